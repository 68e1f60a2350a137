"""The pages, without Airflow: what they show, the login, and errors."""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
from cloudseg_ui import LazyApp
from cloudseg_ui.app import STATIC
from cloudseg_ui.shell import NAV
from fastapi.testclient import TestClient
from plugin_rows import EVIL, NOON, login

from cloudseg.catalog import Catalog, alert_rows, model_rows, scene_rows
from cloudseg.catalog.model_rows import add_decision, add_evaluation, list_evaluations
from cloudseg.catalog.session import now
from cloudseg.monitor.figures import read_figures
from cloudseg.monitor.messages import new_alert
from cloudseg.records import Decision
from cloudseg.runtime import Runtime, read_settings
from cloudseg.storage import LocalStore

OF_RUN = "/of-run?dag_id=cloudseg_retrain&run_id=manual__2026-03-01T12%3A00%3A00%2B00%3A00"
PAGES = [*(entry.path for entry in NAV[:-1]), "/masks/mk-1", "/weights/w-1", "/compare", OF_RUN]
PATHS = [
    *PAGES,
    "/masks/mk-1/thumbnail",
    "/weights/w-1/report",
    "/static/cloudseg.css",
    "/static/theme.js",
    "/browse",
    "/changes/pair?before=v1&after=v2",
    "/changes/v1/v2",
    "/changes/v1/v2/sc-1.png",
    "/changes/v1/v2/sc-1.tif",
    "/compare?a=v1&b=v2",
    "/compare/v1/v2",
    "/compare/v1/v2/sc-1.png",
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
    assert {entry.path for entry in NAV} - {"/browse/"} <= {route.path for route in routes}
    assert {"/of-run", "/compare", "/weights/{weights_id}/report", "/static/{name}", "/{path:path}"} <= {
        route.path for route in routes
    }
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


def test_the_pages_show_models_masks_runs_and_quarantine(client: TestClient, filled: Runtime) -> None:
    shown = {
        "/": ("0.710", "champion", "PROMOTE", "better than the trivial masks", "synthetic_1", "25% cloud", "run-now"),
        "/models": ("0.710", "0.720", "PROMOTE", "HOLD", "nightly", 'href="/compare?a=v1&amp;b=v2"'),
        "/masks": ("synthetic_1", "1–2 of 2 masks"),
        "/quarantine": ("The file is truncated", "Copy it again.", "1 file could not become", "/quarantine/qu-1/alike"),
    }
    for path, expected in shown.items():
        page = client.get(path).text
        for text in expected:
            assert text in page, (path, text)
    page = client.get("/").text
    assert "run-old" not in page
    assert '<noscript><meta http-equiv="refresh" content="15"></noscript>' in page
    assert '<body data-every="15">' in page


def test_the_overview_shows_what_is_measured(client: TestClient, filled: Runtime) -> None:
    """The figures are those of `cloudseg metrics`; an alert that ended is not shown."""
    at = now()
    with filled.catalog.begin() as db:
        scene = scene_rows.get_scene(db, f"sc-{1:020x}")
        late = {"scene_id": "sc-late", "name": "late", "source_sha256": "9" * 64, "created_at": at - timedelta(hours=5)}
        scene_rows.add_scene(db, scene.model_copy(update={**late, "bands": ["red", "green", "blue"]}))
        verdict = model_rows.list_verdicts(db, challenger_id="w-1")[0]
        night = {"verdict_id": "ve-night", "created_at": at - timedelta(hours=30)}
        model_rows.add_verdict(db, verdict.model_copy(update=night))
        for name, sentence, ended in (("damaged-objects", f"lost {EVIL}", None), ("drift", "it is over", at)):
            alert = new_alert(name, "", {"objects": 1, "first": "x", "sentence": "x"}, at)
            alert_rows.add_alert(db, alert.model_copy(update={"sentence": sentence, "resolved_at": ended}))
    figures = read_figures(filled.catalog)
    page = client.get("/").text
    assert f"<b>{figures.masks.total}</b><span>masks of all models" in page
    assert f"<b>{figures.masks.waiting}</b><span>new scenes wait for their first mask, the oldest for 5 h" in page
    assert figures.masks.waiting == 1
    assert 'href="/masks?state=waiting">2 scenes have none of this model yet</a>' in page
    assert "<b>1 d 6 h</b><span>since the last good night; no label is new" in page
    assert f"<b>{figures.ingest.quarantine}</b><span>in quarantine, 0 in 24 hours" in page
    assert '<span class="chip bad">critical</span> lost &lt;script&gt;' in page
    assert "docs/how-to/runbook.md#damaged-objects" in page
    assert "it is over" not in page


def test_only_a_request_that_can_be_granted_waits(client: TestClient, filled: Runtime) -> None:
    """Its verdict is against the champion of now; an older one would have to be compared again."""
    with filled.catalog.begin() as db:
        add_decision(db, Decision(verdict_id="ve-2", decision="asked", actor="x", reason="y", created_at=NOON))
    assert "<b>Approval</b>" in client.get("/").text
    with filled.catalog.begin() as db:
        newer = model_rows.list_promotions(db)[0].model_copy(update={"generation": 2, "previous_weights_id": "w-1"})
        other = model_rows.get_weights(db, "w-1").model_copy(update={"weights_id": "w-3", "run_id": None})
        model_rows.add_weights(db, other)
        model_rows.add_promotion(db, newer.model_copy(update={"weights_id": "w-3"}))
    assert "<b>Approval</b>" not in client.get("/").text


def test_an_empty_catalog_is_shown(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "no model yet" in page.text
    assert "refresh" not in page.text
    assert "data-every" not in page.text
    for entry in NAV[:-1]:
        assert client.get(entry.path).status_code == 200


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


def test_a_mask_shows_what_it_was_made_without(client: TestClient, filled: Runtime) -> None:
    assert "Made without" not in client.get("/masks/mk-1").text
    with filled.catalog.begin() as db:
        db.exec_driver_sql("UPDATE weights SET metadata = json_set(metadata, '$.optional_bands', json('[\"nir\"]'))")
        db.exec_driver_sql("UPDATE scene SET bands = ?", ('["red", "green", "blue"]',))
    assert "<dt>Made without</dt><dd>nir: the scene lacks it" in client.get("/masks/mk-1").text


@pytest.mark.parametrize(("decision", "shown"), [("asked", "waits for approval"), ("declined", "declined")])
def test_a_model_shows_its_manual_decision(
    client: TestClient, filled: Runtime, decision: Literal["asked", "declined"], shown: str
) -> None:
    assert "waits for approval" not in client.get("/models").text
    with filled.catalog.begin() as db:
        add_decision(
            db, Decision(verdict_id="ve-1", decision=decision, actor="ada", reason="champion by now", created_at=NOON)
        )
        add_decision(db, Decision(verdict_id="ve-2", decision=decision, actor="ada", reason=EVIL, created_at=NOON))
    overview, models, weights = (client.get(path).text for path in ("/", "/models", "/weights/w-2"))
    assert shown in models
    assert shown in weights
    assert EVIL not in overview + models + weights
    assert "champion by now" not in models, "the champion needs no decision"
    assert ("<b>Approval</b>" in overview) == (decision == "asked")
    assert overview.count("<b>Approval</b>") <= 1, "the champion needs none"


def test_a_rejection_outlives_the_request_that_it_answers(client: TestClient, filled: Runtime) -> None:
    with filled.catalog.begin() as db:
        for decision in ("asked", "declined"):
            row = {"verdict_id": "ve-2", "decision": decision, "actor": "ada", "reason": "r", "created_at": NOON}
            add_decision(db, Decision.model_validate(row))
    page = client.get("/weights/w-2").text
    assert "declined" in page
    assert "waits for approval" not in page


def test_figures_and_report_are_those_on_held_out_places(client: TestClient, filled: Runtime) -> None:
    """A newer evaluation on another split, which the model may have been chosen by, changes nothing."""
    with filled.catalog.begin() as db:
        newer = {"evaluation_id": "ev-9", "split": "validation", "created_at": NOON + timedelta(days=1)}
        newer |= {"metrics": {"iou": 0.999}, "report": {}}
        add_evaluation(db, list_evaluations(db, "w-1")[0].model_copy(update=newer))
    for path in ("/", "/models", "/weights/w-1"):
        page = client.get(path).text
        assert ("0.710" in page, "0.999" in page) == (True, False), path
    assert "<h1>Report</h1>" in client.get("/weights/w-1/report").text


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


@pytest.mark.parametrize("path", [*PAGES, "/nothing/here", "/masks/mk-9"])
def test_a_page_has_no_script_and_no_style_of_its_own(client: TestClient, filled: Runtime, path: str) -> None:
    answer = client.get(path)
    scripts = re.findall(r"<script[^>]*>[^<]*", answer.text)
    assert scripts == ['<script src="/static/theme.js">', '<script src="/static/pages.js" defer>']
    assert " style=" not in answer.text
    assert "<style" not in answer.text
    assert re.search(r"<[^>]* on[a-z]+=", answer.text) is None
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in policy if name.endswith("-src")} == {"'none'", "'self'"}
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_every_page_has_the_navigation_and_says_where_it_is(client: TestClient, filled: Runtime) -> None:
    for entry in NAV[:-1]:
        page = client.get(entry.path).text
        assert f'<a href="{entry.path}" aria-current="page">{entry.title}</a>' in page, entry
        assert page.count("aria-current") == 1
        assert all(f'href="{other.path}"' in page for other in NAV)


@pytest.mark.parametrize("name", STATIC)
def test_static_files_load_nothing(client: TestClient, name: str) -> None:
    answer = client.get(f"/static/{name}")
    assert answer.headers["content-type"].startswith(STATIC[name])
    text = answer.text.replace("http://www.w3.org/2000/svg", "")
    for word in ("http:", "https:", "//cdn", "@import", "url(", "eval(", ".innerHTML = "):
        assert word not in text


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/zzz", 404, "There is no such page"),
        ("/static/app.py", 404, "There is no such page"),
        ("/masks/mk-9", 404, "mk-9"),
        ("/models?page=0", 422, "The address is not valid"),
        ("/masks?seen=-1", 422, "The address is not valid"),
        ("/compare?a=v1&b=../etc", 422, "The address is not valid"),
    ],
)
def test_errors_are_pages(client: TestClient, filled: Runtime, path: str, status: int, said: str) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert said in answer.text
    assert 'aria-label="Pages of cloud masks"' in answer.text
    assert "`" not in answer.text


def test_an_error_that_nobody_expected_is_a_page_without_its_details(
    client_of: Callable[[Callable[[], Runtime]], TestClient],
) -> None:
    def broken() -> Runtime:
        raise RuntimeError("a secret detail")

    client = client_of(broken)
    client = TestClient(client.app, raise_server_exceptions=False, headers={"Authorization": "Bearer good"})
    answer = client.get("/models")
    assert answer.status_code == 500
    assert "The page could not be made" in answer.text
    assert "secret" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_no_address_brings_nul_to_the_catalog(client: TestClient, filled: Runtime) -> None:
    """PostgreSQL compares no text with NUL: such an address would be an error that nobody expected."""
    routes = [route.path for route in client.app.routes if "{" in route.path]  # type: ignore[attr-defined]
    paths = [re.sub(r"\{[^}]*\}", "%00", path) for path in routes]
    queries = ["/data?text=a%00", "/data?sensor=%00", "/data/difference?before=%00&after=sn-1", OF_RUN + "%00"]
    for path in [*paths, *queries, "/history?actor=%00", "/models?recipe=%00"]:
        answer = client.get(path)
        assert answer.status_code == 422, path
        assert "The address is not valid" in answer.text


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
