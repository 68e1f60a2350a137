"""The pages, without Airflow: what they show, the login, and errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from cloudseg_ui import LazyApp
from fastapi.testclient import TestClient
from plugin_rows import EVIL, NOON, login

from cloudseg.catalog import Catalog
from cloudseg.catalog.model_rows import add_decision
from cloudseg.records import Decision
from cloudseg.runtime import Runtime, read_settings
from cloudseg.storage import LocalStore

PATHS = [
    "/",
    "/masks/mk-1",
    "/masks/mk-1/thumbnail",
    "/weights/w-1",
    "/weights/w-1/report",
    "/static/cloudseg.css",
    "/browse",
    "/readers",
    "/changes",
    "/changes/pair?before=v1&after=v2",
    "/changes/v1/v2",
    "/changes/v1/v2/sc-1.png",
    "/changes/v1/v2/sc-1.tif",
    "/docs",
    "/openapi.json",
    "/redoc",
    "/nothing/here",
]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_without_login(client: TestClient, filled: Runtime, path: str) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        answer = client.request(method, path, headers={"Authorization": ""})
        assert answer.status_code in (401, 405), (method, path)
        assert answer.status_code == 401 or method != "GET"


def test_every_route_stands_behind_the_guard(client: TestClient) -> None:
    routes = client.app.routes  # type: ignore[attr-defined]
    assert len(routes) == 14
    assert all(route.dependencies[0].dependency is login for route in routes)


def test_no_route_takes_anything_but_get(client: TestClient) -> None:
    """Except the one that answers 404 to unknown paths, which takes every method; the form: test_readers_page.py."""
    routes = {route.path: route.methods for route in client.app.routes}  # type: ignore[attr-defined]
    assert routes.pop("/{path:path}") == {"GET", "POST", "PUT", "PATCH", "DELETE"}
    assert {method for methods in routes.values() for method in methods} == {"GET"}


@pytest.mark.parametrize("path", ["/", "/masks/mk-1", "/weights/w-1"])
def test_no_page_says_a_password(
    client_of: Callable[[Callable[[], Runtime]], TestClient], store: LocalStore, tmp_path: Path, path: str
) -> None:
    url = "postgresql+psycopg://cloudseg:hunter2-very-secret@127.0.0.1:1/cloudseg?connect_timeout=1"
    broken = Runtime(settings=read_settings(), store=store, catalog=Catalog(url), inbox="", home=tmp_path)
    answer = client_of(lambda: broken).get(path)
    assert answer.status_code == 503
    assert "does not answer" in answer.text
    assert "hunter2" not in answer.text + str(answer.headers)


def test_the_overview_shows_models_masks_runs_and_quarantine(client: TestClient, filled: Runtime) -> None:
    page = client.get("/").text
    for expected in (
        "0.710",
        "0.720",
        "PROMOTE",
        "HOLD",
        "champion",
        "synthetic_1",
        "25% cloud",
        "the file is truncated",
        "Copy it again.",
    ):
        assert expected in page
    assert "run-now" in page
    assert "run-old" not in page
    assert '<polyline points="0.0,16.0' in page
    assert 'http-equiv="refresh"' in page


def test_an_empty_catalog_is_shown(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "No model yet" in page.text
    assert "refresh" not in page.text


def test_a_catalog_without_tables_is_shown_as_empty(
    client_of: Callable[[Callable[[], Runtime]], TestClient], store: LocalStore, tmp_path: Path
) -> None:
    bare = Runtime(
        settings=read_settings(),
        store=store,
        catalog=Catalog(f"sqlite:///{tmp_path / 'new.db'}"),
        inbox="",
        home=tmp_path,
    )
    answer = client_of(lambda: bare).get("/")
    assert answer.status_code == 200
    assert "Nothing here yet" in answer.text


def test_an_unreachable_catalog_is_503(
    client_of: Callable[[Callable[[], Runtime]], TestClient], store: LocalStore, tmp_path: Path
) -> None:
    (tmp_path / "folder.db").mkdir()
    broken = Runtime(
        settings=read_settings(),
        store=store,
        catalog=Catalog(f"sqlite:///{tmp_path / 'folder.db'}"),
        inbox="",
        home=tmp_path,
    )
    answer = client_of(lambda: broken).get("/")
    assert answer.status_code == 503
    assert "Nothing here yet" not in answer.text


@pytest.mark.parametrize(
    "path",
    ["/masks/mk-9", "/masks/mk-9/thumbnail", "/weights/w-9", "/weights/w-9/report", "/weights/w-2/report", "/x"],
)
def test_unknown_ids_are_404(client: TestClient, filled: Runtime, path: str) -> None:
    assert client.get(path).status_code == 404


def test_nothing_can_be_written(client: TestClient, filled: Runtime) -> None:
    for path in PATHS:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert client.request(method, path).status_code in (404, 405)


def test_a_mask_shows_its_lineage(client: TestClient, filled: Runtime) -> None:
    page = client.get("/masks/mk-1").text
    for expected in ("synthetic_1", "file:///tiles/1.tif", "sn-1", "1 labels in train", "masks/w-1/1.tif", "v1"):
        assert expected in page


def test_a_mask_shows_notes_on_its_scene(client: TestClient, filled: Runtime) -> None:
    with filled.catalog.begin() as db:
        db.exec_driver_sql(
            "UPDATE scene SET tags = ?", ('{"georeference": "approximate: somewhere", "source": "cite me"}',)
        )
    page = client.get("/masks/mk-1").text
    assert "approximate: somewhere" in page
    assert "<dt>Citation</dt><dd>cite me</dd>" in page


@pytest.mark.parametrize(("decision", "shown"), [("asked", "waits for approval"), ("declined", "declined")])
def test_a_model_shows_its_manual_decision(
    client: TestClient, filled: Runtime, decision: Literal["asked", "declined"], shown: str
) -> None:
    assert "waits for approval" not in client.get("/").text
    with filled.catalog.begin() as db:
        add_decision(
            db, Decision(verdict_id="ve-1", decision=decision, actor="ada", reason="champion by now", created_at=NOON)
        )
        add_decision(db, Decision(verdict_id="ve-2", decision=decision, actor="ada", reason=EVIL, created_at=NOON))
    overview, weights = client.get("/").text, client.get("/weights/w-2").text
    assert shown in overview
    assert shown in weights
    assert EVIL not in overview + weights
    assert "champion by now" not in overview, "the champion needs no decision"


@pytest.mark.parametrize(("number", "media_type"), [(0, "webp"), (1, "png")])
def test_a_thumbnail_is_the_stored_picture(client: TestClient, filled: Runtime, number: int, media_type: str) -> None:
    answer = client.get(f"/masks/mk-{number}/thumbnail")
    assert answer.headers["content-type"] == f"image/{media_type}"
    assert answer.content == filled.store.get(f"masks/w-1/{number}.{media_type}")
    assert "private" in answer.headers["cache-control"]


@pytest.mark.parametrize("path", ["/", "/masks/mk-0", "/weights/w-2", "/masks/%3Cscript%3Ealert(1)%3C%2Fscript%3E"])
def test_everything_is_escaped(client: TestClient, filled: Runtime, path: str) -> None:
    page = client.get(path).text
    assert EVIL not in page
    assert "&lt;script&gt;" in page or "%3C" in path


def test_a_page_allows_no_script(client: TestClient, filled: Runtime) -> None:
    answer = client.get("/")
    assert "<script" not in answer.text
    assert " style=" not in answer.text
    assert "script-src" not in answer.headers["content-security-policy"]
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_report_runs_in_a_sandbox(client: TestClient, filled: Runtime) -> None:
    answer = client.get("/weights/w-1/report")
    assert "<h1>Report</h1>" in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "allow-scripts" not in policy


def test_links_carry_the_prefix_of_the_mount(
    filled: Runtime, client_of: Callable[[Callable[[], Runtime]], TestClient]
) -> None:
    from fastapi import FastAPI

    outer = FastAPI()
    outer.mount("/cloudseg", LazyApp(lambda: client_of(lambda: filled).app))
    behind_a_proxy = FastAPI(root_path="/airflow")  # what Airflow makes of a path in `[api] base_url`
    behind_a_proxy.mount("/cloudseg", LazyApp(lambda: client_of(lambda: filled).app))
    with TestClient(behind_a_proxy, headers={"Authorization": "Bearer good"}) as client:
        page = client.get("/airflow/cloudseg/").text
        assert 'href="/airflow/cloudseg/static/cloudseg.css"' in page
        assert 'src="/airflow/cloudseg/masks/mk-1/thumbnail"' in page
        assert client.get("/airflow/cloudseg/masks/mk-1/thumbnail").status_code == 200
    with TestClient(outer, headers={"Authorization": "Bearer good"}) as client:
        page = client.get("/cloudseg/").text
        assert 'href="/cloudseg/static/cloudseg.css"' in page
        assert client.get("/cloudseg/masks/mk-1/thumbnail").status_code == 200
