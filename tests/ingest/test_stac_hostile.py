"""What hostile servers and items can do: nothing but end in quarantine. And: killed anywhere, the next run goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from cloudseg.errors import InputError
from cloudseg.ingest.inbox_file import NotRead
from tests.conftest import REPO
from tests.ingest.conftest import Service
from tests.ingest.stac_server import StacServer, run_server
from tests.ingest.stac_tiles import sentinel2, static_catalog
from tests.ingest.test_stac_source import Source, only


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StacServer]:
    with run_server(tmp_path / "www") as running:
        yield running


@pytest.fixture
def source(service: Service, server: StacServer) -> Source:
    return Source(service, server)


_ADDRESSES = {
    "file:///etc/passwd.tif": "not read",
    "/../../../../etc/passwd.tif": "did not deliver",
    "s3://bucket/red.tif": "not read",
    "http://127.0.0.1:1/red.tif": "plain http",
    "https://127.0.0.1:1/red.tif": "no public address",
    "https://169.254.169.254/latest/meta-data/red.tif": "no public address",
    "https://user:pw@example.org/red.tif": "not a valid host",
    "gopher://example.org/red.tif": "not read",
    "data:image/tiff;base64,SUkq.tif": "not read",
}


def test_hostile_addresses_end_in_quarantine(source: Source, server: StacServer) -> None:
    made = sentinel2(server.folder, server.url)
    bands = {key: made["assets"][key] for key in ("red", "green", "blue")}
    server.items = [
        made | {"id": f"item{at}", "assets": bands | {"red": bands["red"] | {"href": href}}}
        for at, href in enumerate(_ADDRESSES)
    ]
    assert len(source.ingest().quarantined) == len(_ADDRESSES)
    found = source.service.quarantine()
    for at, (href, what) in enumerate(_ADDRESSES.items()):
        assert what in found[f"item{at}"].what, href
        assert "pw" not in str(found[f"item{at}"].model_dump())
    assert source.service.scenes() == {}
    assert not any("passwd" in path and path != "/etc/passwd.tif" for path in server.paths())


def test_another_asset_of_the_same_band_is_taken_instead(source: Source, server: StacServer) -> None:
    made = sentinel2(server.folder, server.url)
    made["assets"] = {"red-s3": made["assets"]["red"] | {"href": "s3://b/red.tif"}, **made["assets"]}
    web = made["assets"]["green"]["href"]
    made["assets"]["green"] |= {"href": "s3://b/green.tif", "alternate": {"web": {"href": web}}}
    server.items = [made]
    assert len(source.ingest().added) == 1


def test_a_redirect_of_an_asset_to_a_private_address(source: Source, server: StacServer) -> None:
    made = sentinel2(server.folder, server.url)
    server.items = [made]

    def redirect(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_bytes(b"", 302, Location="http://localhost:1/secret")  # type: ignore[attr-defined]
        return True

    server.faults[f"/{made['id']}/red.tif"] = redirect
    source.ingest()
    (entry,) = source.service.quarantine().values()
    assert "plain http" in entry.what


def test_a_body_without_end_is_refused_before_it_is_read(source: Source, server: StacServer) -> None:
    made = sentinel2(server.folder, server.url)
    server.items = [made]

    def endless(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(206)
        handler.send_header("Content-Range", "bytes 0-0/9999999999999")
        handler.end_headers()
        return True

    server.faults[f"/{made['id']}/red.tif"] = endless
    source.ingest()
    (entry,) = source.service.quarantine().values()
    assert "larger than allowed" in entry.what
    server.requests.clear()
    assert source.ingest().still_quarantined == 1
    assert len(source.ingest(max_item_bytes=1 << 50).quarantined) == 1  # other limits: tried again, in another way bad


def test_an_item_larger_than_the_setting_is_not_fetched(source: Source, server: StacServer) -> None:
    server.items = [sentinel2(server.folder, server.url)]
    source.ingest(max_item_bytes=100_000)
    (entry,) = source.service.quarantine().values()
    assert "CLOUDSEG_STAC_MAX_ITEM_MB" in entry.next_step
    assert server.sent == 4
    assert len(source.ingest().added) == 1
    assert source.service.quarantine() == {}


def test_an_item_cannot_take_the_name_of_another_host(source: Source, server: StacServer) -> None:
    made = sentinel2(server.folder, server.url)
    made["links"] = [{"rel": "self", "href": "https://trusted.example.org/items/1"}]
    server.items = [made]
    source.ingest()
    assert only(source.service).source_uri.startswith(server.url)


_NO_ITEMS: list[dict[str, Any]] = [
    {},
    {"type": "Feature"},
    {"type": "Feature", "id": 7, "properties": {}, "assets": {"red": {"href": 5}}},
    {"type": "Feature", "id": "x", "properties": {"datetime": "never"}, "assets": [], "stac_version": "1.0.0"},
    {"type": "Feature", "id": "\u202e\x1b[2J", "properties": {}, "assets": {}, "stac_version": "1.0.0"},
    {"type": "Feature", "id": "x", "properties": {"a": float("nan")}, "assets": {}, "stac_version": "1.0.0"},
    {"type": "Feature", "id": "x", "properties": {}, "assets": {str(i): {"href": "a"} for i in range(600)}},
    {"type": "Feature", "id": "x", "properties": {"t": "a" * (2 << 20)}, "assets": {}, "stac_version": "1.0.0"},
    {"type": "Feature", "id": "x", "properties": {}, "assets": {}, "links": 5, "stac_version": "1.0.0"},
    {"type": "Feature", "id": "x" * 5000, "properties": {}, "bbox": "b", "geometry": 3, "assets": {"a": 5}},
]


def test_items_that_are_no_items(source: Source, server: StacServer) -> None:
    server.filters = False
    server.page = 100
    named = [each | ({"id": f"x{at}"} if each.get("id") == "x" else {}) for at, each in enumerate(_NO_ITEMS)]
    server.items = [*named, sentinel2(server.folder, server.url)]
    record = source.ingest()
    assert len(record.added) == 1
    assert len(record.quarantined) == len(_NO_ITEMS) - 1  # the first two have no id: the same address
    for entry in source.service.quarantine().values():
        assert "\x1b" not in str(entry.model_dump())


@pytest.mark.parametrize(
    ("page", "is_empty"),
    [([], False), ({"features": 5}, False), ({"features": [5]}, True), ({"links": 5, "features": [{}]}, False)],
)
def test_pages_that_are_no_pages(source: Source, server: StacServer, page: Any, is_empty: bool) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_json(page)  # type: ignore[attr-defined]
        return True

    server.faults["/api/search"] = answer
    if is_empty:
        assert source.ingest().added == []
    else:
        with pytest.raises(InputError, match="no item collection"):
            source.ingest()


def test_pages_without_end(source: Source, server: StacServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudseg.ingest.stac_source.api_search._MAX_PAGES", 5)
    page = {"features": [{}], "links": [{"rel": "next", "href": f"{server.url}/api/search", "method": "GET"}]}

    def answer(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_json(page)  # type: ignore[attr-defined]
        return True

    server.faults["/api/search"] = answer
    with pytest.raises(InputError, match="endless"):
        source.ingest()


def test_a_next_page_elsewhere_is_not_asked_for(source: Source, server: StacServer) -> None:
    made = sentinel2(server.folder, server.url)
    for href in ("file:///etc/passwd", "http://localhost:1/x"):
        page = {"features": [made], "links": [{"rel": "next", "href": href}]}

        def answer(handler: BaseHTTPRequestHandler, page: Any = page) -> bool:
            handler.send_json(page)  # type: ignore[attr-defined]
            return True

        server.faults["/api/search"] = answer
        with pytest.raises(InputError, match="not read"):
            source.ingest()


def test_a_catalog_whose_links_never_end(source: Source, server: StacServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudseg.ingest.stac_source.find_items.MAX_EXAMINED", 50)
    catalog = {"type": "Catalog", "stac_version": "1.0.0", "id": "x", "description": "x"}
    for index in range(60):
        links = [{"rel": "child", "href": f"./{index + 1}.json"}, {"rel": "child", "href": "file:///etc/passwd"}]
        (server.folder / f"{index}.json").write_text(json.dumps(catalog | {"links": links}))
    record = source.ingest("/0.json")
    assert 40 < len(server.requests) < 60
    assert "could not be read" in record.notes[0]


def test_addresses_that_are_none(source: Source, server: StacServer) -> None:
    """Python's `urljoin` raises ValueError for them: neither the catalog nor the items beside them suffer."""
    made = sentinel2(server.folder, server.url)
    made["links"] = [{"rel": "self", "href": "http://["}]
    static_catalog(server.folder, [made])
    top = server.folder / "catalog.json"
    catalog = json.loads(top.read_text())
    catalog["links"] = [{"rel": "child", "href": "http://["}, {"rel": "child", "href": "//[x]/"}, *catalog["links"]]
    top.write_text(json.dumps(catalog))
    record = source.ingest("/catalog.json")
    assert len(record.added) == 1
    assert len([note for note in record.notes if "could not be read" in note]) == 2


def test_what_is_no_stac_and_what_does_not_answer(source: Source, server: StacServer) -> None:
    (server.folder / "x.json").write_text('{"type": "Topology"}')
    with pytest.raises(InputError, match="no STAC"):
        source.ingest("/x.json")
    with pytest.raises(NotRead, match="status 404"):
        source.ingest("/nothing.json")
    with pytest.raises(InputError, match="layout of its own"):
        source.service.ingest(f"stac+{server.url}/api", stac=source.options(), layout="pairs")


def _environment(home: Path, server: StacServer) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("CLOUDSEG_")}
    host = server.url.removeprefix("http://")
    return kept | {"CLOUDSEG_HOME": str(home), "CLOUDSEG_STAC_PRIVATE_HOSTS": host, "PYTHONPATH": str(REPO)}


@pytest.mark.timeout(900)
def test_killed_anywhere_the_next_run_goes_on(server: StacServer, tmp_path: Path) -> None:
    """Killed while it lists, asks, and copies; what was copied of a file is not copied again."""
    made = sentinel2(server.folder, server.url)
    static_catalog(server.folder, [made])
    command = [sys.executable, "-m", "cloudseg", "ingest", f"stac+{server.url}/catalog.json", "--json"]
    environment = _environment(tmp_path / "home", server)
    size = (server.folder / made["id"] / "red.tif").stat().st_size

    def stall(
        when: Callable[[BaseHTTPRequestHandler], bool], send: int = 0
    ) -> Callable[[BaseHTTPRequestHandler], bool]:
        def answer(handler: BaseHTTPRequestHandler) -> bool:
            if not when(handler):
                return False
            if send:
                content = (server.folder / handler.path.lstrip("/")).read_bytes()
                handler.send_response(200)
                handler.send_header("Content-Length", str(len(content)))
                handler.send_header("ETag", etag[0])
                handler.end_headers()
                handler.wfile.write(content[:send])
                handler.wfile.flush()
            reached.set()
            ended.wait(300)
            return True

        return answer

    import hashlib

    etag = [f'"{hashlib.md5((server.folder / made["id"] / "red.tif").read_bytes()).hexdigest()}"']  # noqa: S324
    is_probe = lambda handler: handler.headers.get("Range") == "bytes=0-0"  # noqa: E731
    points = [
        ("/collection/collection.json", stall(lambda _: True)),
        (f"/{made['id']}/green.tif", stall(is_probe)),
        (f"/{made['id']}/red.tif", stall(lambda handler: not is_probe(handler), send=size // 2)),
    ]
    for path, fault in points:
        reached, ended = threading.Event(), threading.Event()
        server.faults = {path: fault}
        running = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            assert reached.wait(150), path
            if path.endswith("red.tif"):
                copies = tmp_path / "home" / "fetch"
                for _ in range(600):
                    if sum(file.stat().st_size for file in copies.rglob("0")) >= size // 2:
                        break
                    threading.Event().wait(0.1)
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            ended.set()
    server.faults = {}
    server.requests.clear()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=250)
    record = json.loads(done.stdout)
    assert (len(record["added"]), record["quarantined"]) == (1, [])
    asked = [span for _, path, span in server.requests if path.endswith("red.tif")]
    assert asked == ["bytes=0-0", f"bytes={size // 2}-{size - 1}"]
    assert list((tmp_path / "home" / "fetch").iterdir()) == []
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=250)
    assert json.loads(again.stdout)["known"] == 1
