"""What stands before every request: API keys, CORS, rate, size, headers; and what errors tell."""

import logging
import subprocess
import sys

import pytest
from fastapi.testclient import TestClient

from cloudseg.errors import SettingsError
from cloudseg.serve.context import Recent
from cloudseg.serve.guard import MAX_BODY, ApiKeys, RateLimit, client_of
from cloudseg.serve.run import is_loopback

KEY, OTHER = "k" * 20, "another-reader-of-maps"
DATA = [
    "/stac/",
    "/stac/search",
    "/stac/collections/masks/items",
    "/stac/api",
    "/stac/queryables",
    "/_mgmt/ping",
    "/stac/_mgmt/ping",
    "/tiles/mk-1/mask/1/0/0.png",
    "/mosaic/mask/8/0/0.png",
    "/features/footprints",
    "/assets/mk-1/mask",
    "/store/masks/x.tif",
    "/point/mk-1?lon=0&lat=0",
    "/nothing",
]


@pytest.fixture
def locked(client_with) -> TestClient:
    return client_with(serve_api_keys=f"{KEY} {OTHER}")


@pytest.mark.parametrize("path", DATA)
def test_everything_with_data_needs_a_key(locked: TestClient, path: str):
    answer = locked.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("ApiKey")
    assert locked.get(path, headers={"X-API-Key": "x" * 20}).status_code == 401
    for headers in ({"X-API-Key": KEY}, {"X-API-Key": OTHER}, {"Authorization": f"Bearer {KEY}"}):
        assert locked.get(path, headers=headers).status_code != 401
    given = "&" if "?" in path else "?"
    assert locked.get(f"{path}{given}api_key={KEY}").status_code != 401
    assert locked.get(f"{path}{given}api_key={KEY}x").status_code == 401


def test_what_has_no_data_needs_none(locked: TestClient):
    assert locked.get("/health").json() == {"status": "UP"}
    assert locked.get("/health/").status_code in (307, 401)


def test_tiles_of_a_client_without_headers_carry_its_key(locked: TestClient):
    tiles = locked.get(f"/mosaic/mask/tilejson.json?api_key={KEY}").json()["tiles"][0]
    assert f"api_key={KEY}" in tiles
    assert locked.get(tiles.replace("{z}/{x}/{y}", "10/5/5")).status_code == 200
    assert "api_key" not in locked.get("/mosaic/mask/tilejson.json", headers={"X-API-Key": KEY}).text


def test_a_shared_cache_keeps_nothing_that_needed_a_key(locked: TestClient, client: TestClient):
    path = "/mosaic/mask/10/5/5.png"
    assert locked.get(path, headers={"X-API-Key": KEY}).headers["cache-control"] == "private, max-age=60"
    assert client.get(path).headers["cache-control"] == "public, max-age=60"


def test_a_short_key_is_refused():
    with pytest.raises(SettingsError, match="too short"):
        ApiKeys("secret")
    assert not ApiKeys("")
    assert ApiKeys(KEY).allow(KEY)
    assert not ApiKeys(KEY).allow("")


def test_cors_is_off_until_an_origin_is_named(client: TestClient, client_with):
    page = {"Origin": "https://maps.example.org"}
    assert "access-control-allow-origin" not in client.get("/stac/", headers=page).headers
    open_ = client_with(serve_cors_origins="https://maps.example.org", serve_api_keys=KEY)
    answer = open_.get("/stac/", headers=page)
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == "https://maps.example.org"
    assert "access-control-allow-origin" not in open_.get("/stac/", headers={"Origin": "https://evil.example"}).headers
    asked = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    assert open_.options("/stac/search", headers=asked).status_code == 200


def test_a_client_that_asks_too_often_waits(client_with):
    limited = client_with(serve_requests_per_minute="5")
    answers = [limited.get("/health") for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert 0 < int(answers[-1].headers["retry-after"]) <= 12


def test_the_bucket_refills_and_remembers_a_bounded_number_of_clients(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    rate = RateLimit(2, clock=lambda: now[0])
    assert [rate.wait_of("a") for _ in range(3)] == [0, 0, 30]
    assert rate.wait_of("b") == 0
    now[0] = 30.0
    assert rate.wait_of("a") == 0
    assert rate.wait_of("a") > 0
    monkeypatch.setattr("cloudseg.serve.guard._MAX_CLIENTS", 10)
    for number in range(1000):
        rate.wait_of(str(number))
    assert len(rate._buckets) == 10


def test_clients_are_addresses_and_networks():
    assert client_of({"client": ("192.0.2.7", 1)}) == "192.0.2.7"
    assert client_of({"client": ("2001:db8::1", 1)}) == client_of({"client": ("2001:db8::2", 9)})
    assert client_of({"client": ("2001:db8:0:1::1", 1)}) != client_of({"client": ("2001:db8::1", 1)})
    assert client_of({"client": None}) == ""


def test_large_requests_are_refused(client: TestClient):
    assert client.post("/stac/search", content=b"{" * (MAX_BODY + 1)).status_code == 413

    def endless():
        for _ in range(40):
            yield b" " * (1 << 16)

    answer = client.post("/stac/search", content=endless(), headers={"content-type": "application/json"})
    assert answer.status_code in (400, 413), "FastAPI calls a body that ends early unreadable"
    assert client.get("/stac/search?filter=" + "a" * 20_000).status_code == 414


def test_every_answer_has_the_headers(client: TestClient):
    for path in ("/stac/", "/nothing", "/tiles/mk-1/mask/1/0/0.png", "/mosaic/mask/10/5/5.png"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]


def test_an_error_tells_nothing_of_the_inside(client_with, monkeypatch: pytest.MonkeyPatch, caplog):
    client = client_with()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("password=hunter2 at /srv/secret")

    monkeypatch.setattr("cloudseg.catalog.mask_search.search", broken)
    with caplog.at_level(logging.ERROR):
        answer = client.get("/stac/search")
    assert answer.status_code == 500
    assert answer.json() == {"code": "InternalError", "description": "the service failed; its log says why"}
    assert "hunter2" in caplog.text


def test_a_catalog_that_does_not_answer_is_503_without_its_address(client_with, tmp_path):
    client = client_with()
    context = client.app.state.context
    context.catalog.engine.dispose()
    context.catalog.engine.pool._creator = _refuse
    answer = client.get("/stac/search")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "sqlite" not in answer.text.lower()
    assert client.get("/health").status_code == 503


def _refuse(*_: object) -> None:
    import sqlite3

    raise sqlite3.OperationalError("unable to open database file")


def test_a_slow_query_is_stopped(client_with):
    from cloudseg.catalog.read_only import open_read_only
    from cloudseg.errors import CatalogUnreachable

    client = client_with()
    catalog = open_read_only(client.app.state.context.runtime.catalog, timeout_s=0.2)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(CatalogUnreachable), catalog.read() as db:
        db.exec_driver_sql(endless)
    catalog.engine.dispose()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("::", False), ("192.0.2.1", False), ("maps", False)],
)
def test_loopback(host: str, expected: bool):
    assert is_loopback(host) is expected


def test_the_application_needs_no_torch():
    code = "import sys, cloudseg.serve.app, cloudseg.serve.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_recent_keeps_for_its_time_and_forgets_the_oldest():
    now, asked = [0.0], []
    recent = Recent(60, 2, clock=lambda: now[0])

    def get(key: str) -> str:
        return recent.get(key, lambda: asked.append(key) or key.upper())

    assert [get("a"), get("a"), get("b")] == ["A", "A", "B"]
    assert asked == ["a", "b"]
    get("a")
    get("c")  # b was not asked for longest
    assert [get("a"), get("b")] == ["A", "B"]
    assert asked == ["a", "b", "c", "b"]
    now[0] = 61
    get("b")
    assert asked[-1] == "b"
    assert len(asked) == 5
    with pytest.raises(ZeroDivisionError):
        recent.get("d", lambda: 1 / 0)
    assert recent.get("d", lambda: "found") == "found"
