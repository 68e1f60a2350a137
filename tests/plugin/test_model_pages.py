"""Overview, Models and History with many models: nothing that matters falls off the end of a list."""

from datetime import timedelta

import pytest
from cloudseg_ui.charts import Night, line_chart, nights_chart
from cloudseg_ui.overview import eta
from fastapi.testclient import TestClient
from plugin_rows import EVIL, NOON

from cloudseg import keys
from cloudseg.catalog import model_rows, training_rows
from cloudseg.catalog.reader_rows import list_switches
from cloudseg.records import Decision, Epoch, Evaluation, Promotion, Run, Verdict, Weights
from cloudseg.registry.readers import switch_readers
from cloudseg.runtime import Runtime

NIGHTS = 30


@pytest.fixture
def nights(filled: Runtime) -> Runtime:
    """The champion v1 of `filled`, v2, and thirty later challengers that the gate held."""
    with filled.catalog.begin() as db:
        for number in range(3, 3 + NIGHTS):
            _add_night(filled, db, number)
    return filled


def _add_night(runtime: Runtime, db: object, number: int) -> None:
    at = NOON + timedelta(days=number)
    recipe = "nightly" if number < 20 else "baseline"
    training_rows.add_run(
        db,
        Run(
            run_id=f"airflow-scheduled__{number}",
            snapshot_id="sn-1",
            recipe_name=recipe,
            recipe_hash="0" * 64,
            recipe={},
            parent_weights_id=None,
            seed=0,
            status="finished",
            device="cpu",
            device_reason="cpu: no GPU",
            error=None,
            created_at=at,
            finished_at=at,
        ),
    )
    blob = runtime.store.put(keys.weights(f"{number:064x}"), b"weights%d" % number)
    weights_id = f"w-{number}"
    model_rows.add_weights(
        db,
        Weights(
            weights_id=weights_id,
            version=0,
            run_id=f"airflow-scheduled__{number}",
            snapshot_id="sn-1",
            architecture="SimpleUNet",
            companions={},
            metadata={"recipe_name": recipe, "bands": ["red"], "threshold": 0.5},
            created_at=at,
            **blob.model_dump(),
        ),
    )
    iou = 0.6 + number / 1000
    metrics = {"iou": iou, "iou_bounds": [iou - 0.05, iou + 0.04], "scene_mean": {}}
    model_rows.add_evaluation(
        db,
        Evaluation(
            evaluation_id=f"ev-{number}",
            weights_id=weights_id,
            snapshot_id="sn-1",
            split="held_out",
            threshold=0.5,
            metrics=metrics,
            report={},
            created_at=at,
        ),
    )
    model_rows.add_verdict(
        db,
        Verdict(
            verdict_id=f"ve-{number}",
            challenger_id=weights_id,
            champion_id="w-1",
            outcome="HOLD" if number % 2 else "REJECT",
            body={"reasons": [f"night {number} is not better {EVIL}"]},
            created_at=at,
        ),
    )


def test_an_old_champion_is_never_lost(client: TestClient, nights: Runtime) -> None:
    overview = client.get("/").text
    assert '<p class="big"><a href="/weights/w-1">v1</a>' in overview
    assert "Promoted by" in overview
    assert "x: y" in overview, "who promoted it and why"
    assert '<b>2</b> made, <a href="/masks?state=waiting">1 scene has none of this model yet</a>' in overview
    for path in ("/models", "/models?page=2", "/models?recipe=baseline", "/models?verdict=REJECT", "/models?page=99"):
        page = client.get(path).text
        assert page.count('<tr class="champion">') == 1, path
        assert page.count('<span class="chip star">champion</span>') == 1


def test_models_have_pages_and_a_filter(client: TestClient, nights: Runtime) -> None:
    first = client.get("/models").text
    assert "1–24 of 32 models" in first
    assert 'rel="next" href="/models?page=2"' in first
    assert 'rel="prev"' not in first
    second = client.get("/models?page=2").text
    assert "25–32 of 32 models" in second
    assert ">v3</a>" in second
    assert ">v31</a>" not in second.split("<table>")[1].split("</table>")[0]
    filtered = client.get("/models?recipe=nightly&verdict=HOLD").text
    assert "of 9 models" in filtered, "v3, v5 ... v19; v1 and v2 have other runs"
    assert 'href="/models">Clear</a>' in filtered
    assert client.get("/models?verdict=MAYBE").status_code == 422
    assert EVIL not in first + second + filtered


def test_the_chart_of_the_models_has_intervals_promotions_and_recipes(client: TestClient, nights: Runtime) -> None:
    page = client.get("/models").text
    assert page.count('class="interval"') == NIGHTS
    assert page.count('class="promoted"') == 1
    assert page.count('class="recipe-line"') == 3, "imported v2, then nightly, then baseline"
    assert "v32, 2026-04-02, baseline: 0.632 (0.582 to 0.672)" in page
    assert "0.582 to 0.672" in page.split("<table>")[1], "the table has the interval too"


def test_the_band_is_the_champions_interval_also_outside_the_chart() -> None:
    night = Night("w-9", 9, "2026-03-09", 0.6, 0.55, 0.65, "nightly", is_promoted=False)
    champion = Night("w-1", 1, "2026-03-01", 0.8, 0.75, 0.85, "nightly", is_promoted=True)
    chart = nights_chart([night], champion)
    assert chart is not None
    assert chart.band is not None
    assert chart.frame.top <= chart.band[0] < chart.line < chart.band[1] < chart.dots[0].high  # type: ignore[operator]
    assert nights_chart([], champion) is None


@pytest.mark.parametrize("values", [[(1, 0.0), (2, 0.0)], [(10, 1e-6), (20, 2e-6)], [(1, 0.3), (500_000, 12_000.0)]])
def test_a_line_stays_inside_its_axes(values: list[tuple[float, float]]) -> None:
    chart = line_chart(values, x_label="step", y_label="loss")
    assert chart is not None
    for point in chart.points.split():
        x, y = map(float, point.split(","))
        assert chart.frame.left <= x <= chart.frame.right
        assert chart.frame.top <= y <= chart.frame.bottom
    assert 2 <= len(chart.frame.y_ticks) <= 12
    assert line_chart(values[:1], x_label="step", y_label="loss") is None


def test_history_has_every_decision_with_person_reason_and_verdict(client: TestClient, nights: Runtime) -> None:
    with nights.catalog.begin() as db:
        for kind, person in (("asked", "airflow"), ("declined", "ulf")):
            entry = Decision(verdict_id="ve-5", decision=kind, actor=person, reason=f"{kind} because", created_at=NOON)
            model_rows.add_decision(db, entry)
        back = Promotion(
            generation=2,
            weights_id="w-2",
            previous_weights_id="w-1",
            action="rollback",
            verdict_id=None,
            actor=f"ada {EVIL}",
            reason="haze",
            created_at=NOON + timedelta(days=90),
        )
        model_rows.add_promotion(db, back)
    switch_readers(nights.catalog, mode="hold", weights_id="w-1", actor="eva", reason="for the report")
    with nights.catalog.read() as db:
        assert len(list_switches(db)) == 1
    # 2 promotions, 2 decisions, 31 verdicts that are not PROMOTE, 1 switch
    pages = [client.get(f"/history?page={number}").text for number in (1, 2)]
    assert "1–24 of 36 decisions" in pages[0]
    assert "25–36 of 36 decisions" in pages[1]
    both = "".join(pages)
    for text in ("rolled back", "haze", "declined because", "ulf", "asked because", "approval requested", "eva"):
        assert text in both, text
    assert "night 32 is not better" in pages[0]
    assert "rejected by the gate" in both
    assert "better than the trivial masks" in both, "the reasons of the verdict of a promotion"
    assert EVIL not in both
    ulf = client.get("/history?actor=ULF").text
    assert "1–1 of 1 decisions" in ulf
    assert "of 1 decisions" in client.get("/history?kind=rollback").text
    assert client.get("/history?kind=bribed").status_code == 422


def test_a_verdict_names_versions_as_links(client: TestClient, nights: Runtime) -> None:
    page = client.get("/weights/w-9").text
    assert 'compared with <a href="/weights/w-1">v1</a>' in page
    last = client.get("/").text.split('id="verdict"')[1]
    assert '<a href="/weights/w-32">v32</a> against <a href="/weights/w-1">v1</a>' in last
    assert 'href="/compare?a=v1&amp;b=v32"' in last


def test_a_training_of_airflow_links_to_its_run_and_log(client: TestClient, nights: Runtime) -> None:
    run = "airflow-manual__2026-03-01T12:00:00+00:00"
    with nights.catalog.begin() as db:
        old = training_rows.get_run(db, "run-now")
        training_rows.add_run(db, old.model_copy(update={"run_id": run}))
    page = client.get("/").text
    at = "/dags/cloudseg_retrain/runs/manual__2026-03-01T12%3A00%3A00%2B00%3A00"
    assert f'<a href="{at}" data-airflow>' in page
    assert f'<a href="{at}/tasks/train" data-airflow>live log</a>' in page


def test_when_a_training_ends() -> None:
    def run(budget: dict[str, object]) -> Run:
        return Run(
            run_id="r",
            snapshot_id="sn-1",
            recipe_name="n",
            recipe_hash="0" * 64,
            recipe={"budget": budget},
            parent_weights_id=None,
            seed=0,
            status="running",
            device="cpu",
            device_reason="",
            error=None,
            created_at=NOON,
            finished_at=None,
        )

    def epoch(number: int) -> Epoch:
        at = NOON + timedelta(minutes=2 * number)
        return Epoch(run_id="r", epoch=number, step=10 * number, metrics={}, created_at=at)

    epochs, minute = [epoch(1), epoch(2)], timedelta(minutes=1)
    assert eta(run({"minutes": 30}), [], NOON) == NOON + 30 * minute
    assert eta(run({"epochs": 5}), epochs, NOON) == NOON + 10 * minute
    assert eta(run({"steps": 40, "epochs": 5, "minutes": 30}), epochs, NOON) == NOON + 8 * minute
    assert eta(run({"steps": 40}), epochs, NOON + 9 * minute) == NOON + 9 * minute, "not in the past"
    assert eta(run({"epochs": 5}), [], NOON) is None
