"""The application of `cloudseg serve` behind a login, as the plugin mounts it; the real one: test_standalone.py."""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import serve_world
from cloudseg_ui import LazyApp
from cloudseg_ui.browse import AT_ONCE, Bounded, create_browse, open_application
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from plugin_rows import login

from cloudseg.errors import StoreUnreachable
from cloudseg.runtime import open_runtime

PREFIX = "/airflow/cloudseg/browse"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return serve_world.home_of(tmp_path_factory.mktemp("browse"))


def mounted(open_app: Callable[[], object]) -> TestClient:
    """Return a client without login of an application as Airflow mounts it, behind a proxy with a path."""
    outer = FastAPI(root_path="/airflow", docs_url=None, redoc_url=None, openapi_url=None)

    def build() -> FastAPI:
        return create_browse(
            open_app, guards=[Depends(login)], login_page=lambda then: f"/airflow/auth/login?next={quote(then)}"
        )

    outer.mount("/cloudseg/browse", LazyApp(build))
    return TestClient(outer, base_url="http://airflow.test", follow_redirects=False)


@pytest.fixture(scope="module")
def settings(published: Path) -> Iterator[pytest.MonkeyPatch]:
    """The settings of a home whose `cloudseg serve` needs a key and lets every page read; neither holds here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOUDSEG_HOME", str(published))
        patch.setenv("CLOUDSEG_SERVE_API_KEYS", "k" * 20)
        patch.setenv("CLOUDSEG_SERVE_CORS_ORIGINS", "*")
        patch.setenv("CLOUDSEG_SERVE_REQUESTS_PER_MINUTE", "1")
        # The first tile imports libraries: on a busy machine that alone may take longer than a reader waits.
        patch.setattr("cloudseg.serve.context.RENDER_TIMEOUT_S", 200.0)
        yield patch


@pytest.fixture(scope="module")
def application(settings: pytest.MonkeyPatch) -> Iterator[FastAPI]:
    runtime = open_runtime(check=False)
    yield open_application(runtime)
    runtime.catalog.engine.dispose()


@pytest.fixture(scope="module")
def stranger(application: FastAPI) -> Iterator[TestClient]:
    with mounted(lambda: application) as client:
        yield client


@pytest.fixture(scope="module")
def reader(application: FastAPI) -> Iterator[TestClient]:
    with mounted(lambda: application) as client:
        client.headers["Authorization"] = "Bearer good"
        yield client


def addresses(application: FastAPI) -> list[str]:
    """Return an address of every route of the application, with something in place of its parameters."""
    every = [route.path for route in application.routes] + ["/", "/docs", "/openapi.json", "/no/such/page"]
    return sorted({path.replace("{", "").replace("}", "").replace(":path", "") for path in every})


def test_no_route_answers_without_login(stranger: TestClient, application: FastAPI):
    found = addresses(application)
    assert {"/", "/stac/api", "/stac/search", "/static/name", "/store/key", "/health", "/stac/_mgmt/ping"} <= set(found)
    assert len(found) > 30
    for path in found:
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = stranger.request(method, PREFIX + path)
            assert answer.status_code == 401, (method, path)
            if method == "GET":
                assert answer.json() == {"code": "HTTPException", "description": "Not authenticated"}


def test_a_key_of_a_reader_is_no_login(stranger: TestClient):
    for headers in ({"X-API-Key": "k" * 20}, {"Authorization": "Bearer " + "k" * 20}):
        assert stranger.get(f"{PREFIX}/stac/", headers=headers).status_code == 401
    assert stranger.get(f"{PREFIX}/stac/?api_key={'k' * 20}").status_code == 401


@pytest.mark.parametrize("path", ["/", "/stac/search?limit=3", "/tiles/mk-1/mask/tilejson.json"])
def test_a_browser_is_led_to_the_login_and_back(stranger: TestClient, path: str):
    answer = stranger.get(PREFIX + path, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert answer.status_code == 302
    assert answer.headers["location"] == f"/airflow/auth/login?next={quote(PREFIX + path)}"
    assert answer.headers["cache-control"] == "no-store"


def test_with_login_everything_is_found_by_the_links_of_the_answers(reader: TestClient):
    """Follow the links of the API from its landing page: all of them begin with the prefix, and none is broken.

    Of tiles one of each layer is drawn.
    """
    waiting, seen, drawn = [f"http://airflow.test{PREFIX}/stac/"], set(), set()
    while waiting:
        address = waiting.pop()
        layer = address.split("/")[-4] if address.endswith("/0/0/0.png") else None
        if address in seen or layer in drawn:
            continue
        seen.add(address)
        drawn |= {layer} - {None}
        answer = reader.get(address)
        assert answer.status_code == 200, address
        if "json" in answer.headers["content-type"]:
            waiting += [found for found in _links(answer.json()) if found not in seen]
    kinds = {urlsplit(address).path.removeprefix(PREFIX).split("/")[1] for address in seen}
    assert kinds == {"stac", "store", "tiles"}
    assert drawn == {"mask", "probability", "image"}
    assert any("token=" in address for address in seen), "a next page"
    assert len(seen) > 60


def _links(body: object) -> Iterator[str]:
    """Yield the addresses in a document; templates of tiles as the address of one tile."""
    if isinstance(body, dict):
        for name, value in body.items():
            if name == "href" and isinstance(value, str):
                assert value.startswith(f"http://airflow.test{PREFIX}/"), value
                yield value
            elif name == "tiles":
                for template in value:
                    assert template.startswith(f"http://airflow.test{PREFIX}/tiles/")
                    yield template.replace("{z}/{x}/{y}", "0/0/0")
            elif name != "$id" and not (name == "links" and body.get("type") == "Catalog" and "body" in body):
                yield from _links(value)
    elif isinstance(body, list):
        for value in body:
            if not (isinstance(value, dict) and value.get("method") == "POST"):
                yield from _links(value)


def test_with_login_a_search_by_post_and_its_next_page(reader: TestClient):
    found = reader.post(f"{PREFIX}/stac/search", json={"collections": ["masks"], "limit": 5}).json()
    (following,) = [link for link in found["links"] if link["rel"] == "next"]
    assert following["href"] == f"http://airflow.test{PREFIX}/stac/search"
    second = reader.post(following["href"], json=following["body"]).json()
    assert {item["id"] for item in found["features"]} & {item["id"] for item in second["features"]} == set()


def test_with_login_the_page_and_what_it_loads(reader: TestClient):
    page = reader.get(f"{PREFIX}/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for name in ("app.js", "app.css", "maplibre-gl.mjs", "maplibre-gl-worker.mjs", "maplibre-gl.css"):
        assert reader.get(f"{PREFIX}/static/{name}").status_code == 200
    assert 'src="static/' in page.text
    assert 'src="/' not in page.text, "addresses are relative: the prefix is not known"


def test_with_login_a_file_by_ranges(reader: TestClient):
    (item,) = reader.get(f"{PREFIX}/stac/collections/masks/items?limit=1").json()["features"]
    answer = reader.get(f"{PREFIX}/assets/{item['id']}/mask", headers={"Range": "bytes=0-3"})
    assert (answer.status_code, answer.content) == (206, b"II*\x00")
    assert reader.head(f"{PREFIX}/assets/{item['id']}/mask").headers["content-length"] != "4"


def test_no_shared_cache_keeps_an_answer_and_no_other_origin_reads(reader: TestClient):
    mosaic = reader.get(f"{PREFIX}/mosaic/mask/10/5/5.png", headers={"Origin": "https://maps.example.org"})
    assert mosaic.status_code == 200
    for path in ("/mosaic/mask/10/5/5.png", "/static/app.js", "/stac/", "/features/footprints", "/"):
        answer = reader.get(PREFIX + path, headers={"Origin": "https://maps.example.org"})
        assert answer.status_code == 200
        assert "public" not in answer.headers["cache-control"], path
        assert "access-control-allow-origin" not in answer.headers


def test_a_missing_extra_is_named_to_who_is_logged_in(
    settings: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("cloudseg.serve.", "stac_fastapi"))]:
        parent, _, child = name.rpartition(".")
        if hasattr(sys.modules.get(parent), child):
            # Importing sets the attribute of the package too: without this it would stay on the second module.
            monkeypatch.setattr(sys.modules[parent], child, sys.modules[name])
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "stac_fastapi", None)
    with mounted(lambda: open_application(open_runtime(check=False))) as client:
        assert client.get(f"{PREFIX}/").status_code == 401
        client.headers["Authorization"] = "Bearer good"
        answer = client.get(f"{PREFIX}/stac/")
        assert answer.status_code == 503
        assert "pip install 'cloudseg[serve]'" in answer.json()["description"]
        page = client.get(f"{PREFIX}/", headers={"Accept": "text/html"})
        assert page.status_code == 503
        assert "pip install &#x27;cloudseg[serve]&#x27;" in page.text


def test_an_application_that_cannot_be_built_is_tried_again_and_tells_nothing(application: FastAPI):
    tries = []

    def build() -> FastAPI:
        tries.append(threading.current_thread().name)
        if len(tries) < 2:
            raise StoreUnreachable("the store does not answer", subject="s3://secret-bucket")
        return application

    with mounted(build) as client:
        client.headers["Authorization"] = "Bearer good"
        answer = client.get(f"{PREFIX}/health")
        assert answer.status_code == 503
        assert "secret" not in answer.text
        assert [client.get(f"{PREFIX}/health").status_code for _ in range(3)] == [200, 200, 200]
    assert len(tries) == 2
    assert all("MainThread" not in name for name in tries)


@pytest.mark.parametrize(("answering", "at_once"), [(False, AT_ONCE), (True, 60)])
def test_a_burst_of_requests_takes_not_every_thread_of_the_api_server(answering: bool, at_once: int):
    """Of 60 requests 24 are worked on and the others wait; downloads that have begun do not count."""
    running: list[int] = []

    async def app(number: int, receive: object, send: Callable[..., Awaitable[None]]) -> None:
        if answering:
            await send({"type": "http.response.start"})
        running.append(number)
        await released.wait()
        if number == 0:
            raise OSError("an error gives its place back too")

    async def burst() -> None:
        nonlocal released
        released, bounded = asyncio.Event(), Bounded(app)
        tasks = [asyncio.create_task(bounded(number, None, _heard)) for number in range(60)]
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(running) == at_once
        released.set()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert len(running) == 60
        assert sum(isinstance(error, OSError) for error in ended) == 1

    released = asyncio.Event()
    asyncio.run(burst())


async def _heard(message: object) -> None:
    """Take a message of an answer."""
