"""The pages about readers, decisions and changes, on real masks by two models; Airflow's part: test_standalone.py."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import serve_world
from cloudseg_ui.app import create_app
from fake_airflow import FakeAirflow
from fastapi import Depends
from fastapi.testclient import TestClient
from PIL import Image
from plugin_rows import EVIL, login

from cloudseg.catalog import Catalog
from cloudseg.catalog.model_rows import find_champion
from cloudseg.catalog.reader_rows import find_shown, list_switches
from cloudseg.registry.readers import switch_readers, switch_readers_back
from cloudseg.runtime import Runtime, read_settings
from cloudseg.storage import LocalStore


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return serve_world.home_of(tmp_path_factory.mktemp("readers"))


@pytest.fixture
def world(home: Path, tmp_path: Path) -> Iterator[Runtime]:
    """Masks of every scene by model 1; the champion, model 2, has not seen the last day."""
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    (tmp_path / "catalog.db").write_bytes((home / "catalog.db").read_bytes())
    catalog = Catalog(url)
    yield Runtime(settings=read_settings(), store=LocalStore(home / "store"), catalog=catalog, inbox="", home=tmp_path)
    catalog.engine.dispose()


@pytest.fixture
def airflow() -> FakeAirflow:
    return FakeAirflow()


@pytest.fixture
def viewer(world: Runtime, airflow: FakeAirflow) -> Iterator[TestClient]:
    app = create_app(lambda: world, guards=[Depends(login)], runs=airflow.runs())
    with TestClient(
        app, base_url="http://ui.test", headers={"Authorization": "Bearer good"}, follow_redirects=False
    ) as client:
        yield client


@pytest.fixture
def ada(viewer: TestClient) -> TestClient:
    viewer.headers |= {"X-User": "ada", "Origin": "http://ui.test"}
    return viewer


FORM = {"decision": "switch_readers", "about": ["v1"], "hold": "true", "force": "false", "reason": "for the report"}


def ids(world: Runtime) -> list[str]:
    with world.catalog.read() as db:
        return [row[0] for row in db.exec_driver_sql("SELECT weights_id FROM weights ORDER BY version").fetchall()]


def test_the_pages_say_whose_masks_readers_see(viewer: TestClient, world: Runtime):
    for path in ("/", "/readers"):
        page = viewer.get(path).text
        assert "<b>model v2</b>, 6 masks" in page
        assert "the newest champion, always" in page
    switch_readers(world.catalog, mode="complete", weights_id=ids(world)[0], actor="ada", reason=EVIL)
    for path in ("/", "/readers"):
        page = viewer.get(path).text
        assert "<b>model v1</b>, 9 masks" in page
        assert "until the masks of a newer champion are complete" in page
        assert "decision 1 by ada" in page
        assert "3 scenes that readers see have no mask of it yet" in page
        assert EVIL not in page


def test_the_months_of_the_backfill(viewer: TestClient):
    page = viewer.get("/readers").text
    assert "6 of 9 scenes have a mask of the champion" in page
    assert '<progress max="9" value="6">6 of 9</progress>' in page
    assert "2024-06" in page
    assert "3 scenes have none of this model yet" in viewer.get("/").text


def test_a_viewer_sees_no_form_and_cannot_decide(viewer: TestClient, airflow: FakeAirflow, world: Runtime):
    viewer.headers["Origin"] = "http://ui.test"
    page = viewer.get("/readers").text
    assert "<form" not in page
    assert "permission to trigger the DAG" in page
    assert viewer.get("/decide?decision=switch_readers&about=v1").status_code == 403
    assert viewer.get("/decide").status_code == 403
    assert viewer.post("/runs/cloudseg_decide", data=FORM).status_code == 403
    assert viewer.post("/runs/cloudseg_decide", data=FORM, headers={"Authorization": ""}).status_code == 401
    assert airflow.triggered == []
    with world.catalog.read() as db:
        assert list_switches(db) == []


def test_a_decision_is_shown_before_and_then_triggered(ada: TestClient, airflow: FakeAirflow, world: Runtime):
    shown = ada.get("/decide?decision=switch_readers&about=v1&hold=true").text
    assert "Readers see v1, until somebody switches." in shown
    assert "6 scenes show another mask, 0 are no longer seen, 3 are seen newly" in shown
    assert 'action="/runs/cloudseg_decide"' in shown
    with world.catalog.read() as db:
        assert list_switches(db) == [], "the page only says what would happen"
    answer = ada.post("/runs/cloudseg_decide", data=FORM)
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs?run_id=manual__1")
    conf = {"decision": "switch_readers", "about": ["v1"], "hold": True, "force": False, "reason": "for the report"}
    assert airflow.triggered == [("ada", conf)]
    page = ada.get("/runs?run_id=manual__1").text
    assert 'http-equiv="refresh"' in page
    assert "/runs/manual__1/tasks/switch_readers" in page
    airflow.state = "success"
    assert 'http-equiv="refresh"' not in ada.get("/runs?run_id=manual__1").text
    assert ada.get("/runs?run_id=other").status_code == 404


def test_a_switch_that_loses_scenes_is_refused_before_it_is_triggered(ada: TestClient, world: Runtime):
    switch_readers(world.catalog, mode="hold", weights_id=ids(world)[0], actor="x", reason="y")
    page = ada.get("/decide?decision=switch_readers&about=newest").text
    assert "readers would lose scenes" in page
    assert "3 of 9 scenes" in page
    assert 'method="post"' not in page
    assert 'href="/decide?decision=switch_readers&amp;about=newest&amp;force=true"' in page
    forced = ada.get("/decide?decision=switch_readers&about=newest&force=true").text
    assert "Readers see the newest champion, always" in forced
    assert "3 are no longer seen" in forced


def test_back_names_the_decision_that_it_takes_back(ada: TestClient, world: Runtime):
    assert "No decision was made yet" in ada.get("/decide?decision=switch_readers_back").text
    switch_readers(world.catalog, mode="hold", weights_id=ids(world)[0], actor="x", reason="y")
    assert 'href="/decide?decision=switch_readers_back&amp;about=1"' in ada.get("/readers").text
    page = ada.get("/decide?decision=switch_readers_back&about=1").text
    assert '<input type="hidden" name="about" value="1">' in page
    assert "Readers see the newest champion, always again." in page
    switch_readers_back(world.catalog, sequence=1, actor="x", reason="y")
    with world.catalog.read() as db:
        assert find_shown(db) == ids(world)[1]
    assert "back, newest" in ada.get("/readers").text
    assert "Nothing: decision 1 was taken back already" in ada.get("/decide?decision=switch_readers_back&about=1").text


def test_the_pages_lead_to_their_decisions(ada: TestClient, world: Runtime):
    """And the page that they lead to says what would change, or why it is not possible."""
    first, second = ids(world)
    with world.catalog.read() as db:
        champion = find_champion(db)
    assert champion is not None
    assert champion.weights_id == second
    older, current = ada.get(f"/weights/{first}").text, ada.get(f"/weights/{second}").text
    for decision, about, page in (
        ("promote", "v1", older),
        ("decline", "v1", older),
        ("switch_readers", "v1", older),
        ("roll_back", "v2", current),
    ):
        address = f"/decide?decision={decision}&about={about}"
        assert f'href="{address.replace("&", "&amp;")}"' in page, decision
        answer = ada.get(address)
        assert answer.status_code == 200
        assert "What would change" in answer.text or "Not possible" in answer.text


def test_a_decision_without_words_is_chosen(ada: TestClient):
    page = ada.get("/decide").text
    assert '<option value="roll_back">' in page
    assert "About" in page
    page = ada.get("/decide?decision=roll_back").text
    assert "The champion is v2" in page, "the next step"
    assert 'method="post"' not in page


def test_what_is_wrong_is_said_in_words_and_escaped(ada: TestClient):
    for about in ("v9", EVIL):
        page = ada.get("/decide", params={"decision": "promote", "about": about})
        assert page.status_code == 200
        assert "Not possible: " in page.text
        assert EVIL not in page.text
    assert ada.get("/decide?decision=delete").status_code == 422


@pytest.mark.parametrize("origin", ["https://evil.example.org", "null", "", "http://ui.test.evil.example.org"])
def test_a_form_of_another_site_is_refused(ada: TestClient, airflow: FakeAirflow, origin: str):
    assert ada.post("/runs/cloudseg_decide", data=FORM, headers={"Origin": origin}).status_code == 403
    assert airflow.triggered == []


def test_a_form_behind_a_proxy_with_another_name_is_its_own(ada: TestClient, airflow: FakeAirflow):
    answer = ada.post("/runs/cloudseg_decide", data=FORM, headers={"Origin": "https://airflow.example.org"})
    assert answer.status_code == 303


@pytest.mark.parametrize(
    "wrong",
    [
        {"decision": "delete"},
        {"reason": " "},
        {"reason": "a\0"},
        {"about": ["v1\0"]},
        {"reason": "x" * 501},
        {"about": ["x" * 251]},
        {"about": ["x"] * 201},
    ],
)
def test_what_makes_no_sense_is_refused(ada: TestClient, airflow: FakeAirflow, wrong: dict[str, Any]):
    assert 400 <= ada.post("/runs/cloudseg_decide", data=FORM | wrong).status_code < 500
    assert ada.post("/runs/cloudseg_retrain", data=FORM).status_code in (404, 422)
    assert airflow.triggered == []


def test_the_change_map_of_two_models(viewer: TestClient, world: Runtime):
    assert 'href="/changes/v1/v2"' in viewer.get("/changes").text
    assert viewer.get("/changes/pair?before=v1&after=v2").headers["location"] == "/changes/v1/v2"
    page = viewer.get("/changes/v1/v2").text
    flipped = sum(
        int((serve_world.cloud_of(place, day, 2) ^ serve_world.cloud_of(place, day, 1))[:, 16:].sum())
        for place in range(3)
        for day in range(2)
    )
    assert f"<b>{flipped}</b><span>clear, now cloud</span>" in page
    assert "The latest 6 scenes" in page
    pictures = [part.split('"')[0] for part in page.split('<img class="pair" src="')[1:]]
    assert len(pictures) == 6
    answer = viewer.get(pictures[0])
    assert Image.open(io.BytesIO(answer.content)).width == 2 * 256 + 6
    cog = viewer.get(pictures[0].replace(".png", ".tif"))
    assert "attachment" in cog.headers["content-disposition"]
    with rasterio.open(io.BytesIO(cog.content)) as dataset:
        assert set(np.unique(dataset.read(1))) == {0, 1, 2, 255}
        assert dataset.tags()["CLOUDSEG_BEFORE_WEIGHTS_ID"] == ids(world)[0]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/changes/v1/v1", 400),
        ("/changes/v1/v9", 404),
        ("/changes/v1/x", 422),
        ("/changes/v1/v2/sc-0.png", 404),
        ("/changes/v1/v2/sc-0.tif", 404),
    ],
)
def test_what_cannot_be_compared(viewer: TestClient, path: str, status: int):
    assert viewer.get(path).status_code == status


def test_models_without_masks_have_no_changes(viewer: TestClient, world: Runtime):
    with world.catalog.begin() as db:
        db.exec_driver_sql("DELETE FROM mask WHERE weights_id = ?", (ids(world)[1],))
    assert "Fewer than two models have masks" in viewer.get("/changes").text
    assert "no scene has a mask of both models" in viewer.get("/changes/v1/v2").text
