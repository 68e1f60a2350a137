"""The figures of monitoring, each from rows whose answer is known, on every kind of database; and their plans."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
import rows
from sqlalchemy import URL

from benchmarks import catalog_scale as scale
from cloudseg.catalog import Catalog, figure_rows, label_rows, model_rows, scene_rows, training_rows
from cloudseg.catalog import tables as t
from cloudseg.monitor import figures as f
from cloudseg.monitor.figures import Figures, Prices, read_figures

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def add(catalog: Catalog, *records: object) -> None:
    """Add rows through the functions of the catalog."""
    writers = {
        "Scene": scene_rows.add_scene,
        "Label": scene_rows.add_label,
        "Mask": model_rows.add_mask,
        "Quarantined": scene_rows.add_quarantined,
        "Weights": model_rows.add_weights,
        "Verdict": model_rows.add_verdict,
        "Promotion": model_rows.add_promotion,
        "Decision": model_rows.add_decision,
        "Evaluation": model_rows.add_evaluation,
        "Run": training_rows.add_run,
        "Epoch": training_rows.add_epoch,
    }
    with catalog.begin() as db:
        for record in records:
            writers[type(record).__name__](db, record)


def changed(record: object, **values: object) -> object:
    return record.model_copy(update=values)


def scene(number: int, ago: timedelta, **values: object) -> object:
    return rows.scene(number, created_at=AT - ago, **values)


def mask(number: int, of: int, by: int, ago: timedelta) -> object:
    return changed(rows.mask(number, of, by), created_at=AT - ago)


def read(catalog: Catalog, **prices: float) -> Figures:
    return read_figures(catalog, prices=Prices(**prices), at=AT)


@pytest.fixture
def two_models(catalog: Catalog) -> Catalog:
    """Return a catalog whose champion is version 1; version 2 was trained by a run and compared with it."""
    with catalog.begin() as db:
        training_rows.add_snapshot(db, rows.snapshot(), {})
    champion = changed(rows.weights(1), metadata={"threshold": 0.5, "bands": ["red", "green"]})
    add(catalog, rows.run(), champion, rows.weights(2, run_id="run-1"))
    verdict = changed(rows.verdict(1, 2), champion_id="w-1", body={"snapshot_id": "sn-1"}, created_at=AT - 5 * HOUR)
    add(catalog, changed(rows.promotion(1, of=1), created_at=AT - 9 * DAY), verdict)
    return catalog


def test_an_empty_catalog_has_figures_and_invents_none(catalog: Catalog):
    found = read(catalog, gpu_hour=2.0)
    assert (found.champion, found.champion_since, found.challenger) == (None, None, None)
    assert found.masks.as_json() == {
        "total": 0,
        "last_day": 0,
        "last_week": 0,
        "waiting": 0,
        "oldest_waiting_at": None,
        "without_champion": None,
        "compared_last_week": 0,
        "outside_last_week": 0,
    }
    assert found.latency_day.as_json() == {"scenes": 0, "p50_s": None, "p95_s": None}
    assert (found.ingest.newest_at, found.night.newest_at, found.night.due_since) == (None, None, None)
    assert (found.bytes.store, found.bytes.store_is_exact) == (0, True)
    assert (found.compute.night_cost, found.compute.mask_cost) == (0.0, None)
    assert read(catalog).compute.night_cost is None
    assert set(found.alerts.values()) == {0}
    assert "no-good-night" in found.alerts


def test_models_have_the_figures_of_the_verdicts_snapshot(two_models: Catalog):
    with two_models.begin() as db:
        training_rows.add_snapshot(db, rows.snapshot(2), {})
    of_verdict = {"iou": 0.8, "iou_bounds": [0.75, 0.85]}
    newer = changed(rows.evaluation(3, of=1), snapshot_id="sn-2", metrics={"iou": 0.1}, created_at=AT)
    add(two_models, changed(rows.evaluation(1, of=1), metrics=of_verdict), newer)
    add(two_models, changed(rows.evaluation(2, of=2), metrics={"iou": 0.7, "iou_bounds": None}))
    found = read(two_models)
    assert found.champion.as_json() == {
        "weights_id": "w-1",
        "version": 1,
        "iou": 0.8,
        "iou_lower": 0.75,
        "iou_upper": 0.85,
    }
    assert (found.challenger.version, found.challenger.iou, found.challenger.iou_lower) == (2, 0.7, None)
    assert found.champion_since == AT - 9 * DAY


def test_masks_made_and_waiting(two_models: Catalog):
    add(two_models, *(scene(n, n * HOUR) for n in range(1, 5)), scene(5, 20 * DAY), scene(6, 20 * DAY))
    add(two_models, scene(7, HOUR, publishable=False), scene(8, HOUR, bands=["red"]))
    add(two_models, mask(1, 1, 1, HOUR), mask(2, 2, 2, 2 * DAY), mask(3, 5, 1, 10 * DAY))
    masks = read(two_models).masks
    assert (masks.total, masks.last_day, masks.last_week) == (3, 1, 2)
    # 3 and 4 have no mask; 2 has one by another model, 7 may have none, 8 lacks a band, 5 and 6 are older.
    assert (masks.waiting, masks.oldest_waiting_at) == (2, AT - 4 * HOUR)
    assert masks.without_champion == 5
    with two_models.read() as db:
        assert masks.without_champion == scene_rows.count_scenes_without_mask(db, "w-1")


def test_a_variant_is_no_further_scene_with_a_mask(two_models: Catalog):
    add(two_models, scene(1, HOUR), scene(2, HOUR), mask(1, 1, 1, HOUR))
    add(two_models, changed(mask(2, 1, 1, HOUR), cleaning='{"buffer_m":50}'))
    assert read(two_models).masks.without_champion == 1


def test_latency_is_that_of_new_scenes_to_their_first_mask(two_models: Catalog):
    """A backfill of older scenes and a second mask of a scene change nothing."""
    add(two_models, *(scene(n, 10 * HOUR) for n in range(1, 21)), scene(21, 3 * DAY), scene(22, 30 * DAY))
    add(two_models, *(mask(n, n, 1, 10 * HOUR - n * timedelta(minutes=1)) for n in range(1, 20)))
    add(two_models, mask(30, 1, 2, HOUR), mask(31, 21, 1, 2 * DAY), mask(32, 22, 1, HOUR))
    found = read(two_models)
    assert found.latency_day.as_json() == {"scenes": 19, "p50_s": 600.0, "p95_s": 1140.0}
    assert found.latency_week.as_json() == {"scenes": 20, "p50_s": 600.0, "p95_s": 1140.0}


def test_ingest_and_quarantine(catalog: Catalog):
    add(catalog, scene(1, 5 * HOUR), changed(rows.label(1, of=1), created_at=AT - 4 * HOUR))
    assert read(catalog).ingest.newest_at == AT - 4 * HOUR
    add(catalog, changed(rows.quarantined(1), created_at=AT - 2 * DAY))
    add(catalog, changed(rows.quarantined(2), created_at=AT - 3 * HOUR))
    found = read(catalog).ingest
    assert (found.quarantine, found.quarantine_last_day, found.newest_at) == (2, 1, AT - 3 * HOUR)


def test_a_night_is_due_from_the_first_new_label_but_not_before_the_last_night(catalog: Catalog):
    add(catalog, scene(1, 9 * DAY), scene(2, 9 * DAY))
    early, late = (changed(rows.label(n, of=n), created_at=AT - n * DAY) for n in (1, 2))
    add(catalog, early)
    assert read(catalog).night.due_since == AT - DAY  # no night took place yet
    with catalog.begin() as db:
        training_rows.add_snapshot(db, rows.snapshot(), {early.label_id: "train"})
    add(catalog, rows.run(), rows.weights(1, run_id="run-1"))
    add(catalog, changed(rows.verdict(1, 1), created_at=AT - 5 * HOUR))
    found = read(catalog)
    assert (found.labels.new, found.night.newest_at, found.night.due_since) == (0, AT - 5 * HOUR, None)
    add(catalog, late)
    found = read(catalog)
    assert (found.labels.new, found.night.due_since) == (1, AT - 5 * HOUR)
    with catalog.begin() as db:
        scene_rows.add_label(db, changed(rows.label(3, of=1), created_at=AT), state="proposed")
        label_rows.add_event(db, late, "withdrawn", actor="test", reason="wrong")
    found = read(catalog)
    assert (found.labels.proposed, found.labels.new, found.night.due_since) == (1, 0, None)


def test_imported_weights_are_no_night(two_models: Catalog):
    add(two_models, rows.weights(3), changed(rows.verdict(2, 3), created_at=AT))
    assert read(two_models).night.newest_at == AT - 5 * HOUR
    assert read(two_models).challenger.version == 3


def test_a_request_is_open_until_it_is_answered_or_too_late(two_models: Catalog):
    add(two_models, rows.decision(1, created_at=AT - HOUR))
    found = read(two_models).approvals
    assert (found.waiting, found.oldest_at) == (1, AT - HOUR)
    other = changed(rows.verdict(2, 2), champion_id=None)  # compared with no champion: can be granted no more
    add(two_models, other, rows.decision(2, created_at=AT - 2 * HOUR))
    assert read(two_models).approvals == found
    add(two_models, rows.decision(2, "declined"))
    assert read(two_models).approvals.waiting == 0


def test_a_granted_request_is_not_open(two_models: Catalog):
    add(two_models, rows.decision(1), rows.promotion(2, of=2, previous=1), rows.promotion(3, of=1, previous=2))
    assert read(two_models).approvals.waiting == 0


def test_bytes_are_those_of_rows_and_their_assets(two_models: Catalog):
    add(two_models, scene(1, HOUR), rows.label(1, of=1), mask(1, 1, 1, HOUR))
    one = 3_000_000_000
    expected = (one + 1) + (one + 1) + (one + 1 + 3) + (one + 1 + 1) + (one + 2 + 1)  # scene, label, mask, weights
    found = read(two_models).bytes
    assert (found.store, found.store_is_exact) == (expected, True)
    assert found.catalog > 10_000


def test_more_rows_than_a_sample_are_estimated(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(figure_rows, "SAMPLE", 2)
    add(catalog, *(changed(scene(n, HOUR), size=n) for n in range(1, 5)))
    found = read(catalog).bytes
    assert (found.store, found.store_is_exact) == (6, False)  # (1 + 2) / 2 * 4


def runs(catalog: Catalog, *wanted: tuple[str, timedelta, float | None]) -> None:
    """Add runs: device, when it began, seconds of its newest epoch or None for a run without one."""
    with catalog.begin() as db:
        training_rows.add_snapshot(db, rows.snapshot(), {})
    for number, (device, ago, seconds) in enumerate(wanted, start=10):
        begin = AT - ago
        add(catalog, changed(rows.run(number), device=device, created_at=begin, finished_at=begin + HOUR))
        for epoch, spent in ((1, 1.0), (2, seconds)) if seconds is not None else ():
            metrics = {"seconds": spent}
            add(catalog, changed(rows.epoch(epoch), run_id=f"run-{number}", metrics=metrics))


def test_training_time_is_that_of_the_newest_epoch(catalog: Catalog):
    runs(catalog, ("cuda", HOUR, 1800.0), ("cpu", HOUR, None), ("cuda", 3 * DAY, 900.0), ("cuda", 8 * DAY, 7.0))
    found = read(catalog).compute
    assert (found.gpu_s, found.cpu_s, found.gpu_week_s, found.cpu_week_s) == (1800.0, 3600.0, 2700.0, 3600.0)
    assert (found.night_cost, found.mask_cost) == (None, None)


def test_a_cost_needs_the_prices_of_what_ran(catalog: Catalog):
    runs(catalog, ("cuda", HOUR, 1800.0), ("cpu", 3 * DAY, 3600.0))
    add(catalog, scene(1, HOUR), rows.weights(1), mask(1, 1, 1, HOUR))
    add(catalog, changed(mask(2, 1, 1, DAY), cleaning="x"))
    found = read(catalog, gpu_hour=4.0).compute
    assert (found.night_cost, found.mask_cost) == (2.0, None)
    found = read(catalog, gpu_hour=4.0, cpu_hour=0.5).compute
    assert (found.night_cost, found.mask_cost) == (2.0, 1.25)
    assert read(catalog, cpu_hour=0.5).compute.night_cost is None


def test_open_alerts_are_counted_by_name(catalog: Catalog):
    from cloudseg.catalog import alert_rows
    from cloudseg.monitor.messages import new_alert

    facts = {"dag": "d", "task": "t", "error": "e"}
    with catalog.begin() as db:
        for subject in ("a", "b", "c"):
            alert_rows.add_alert(db, new_alert("task-failed", subject, facts, AT))
        ended = alert_rows.find_open_alert(db, "task-failed", "c")
        alert_rows.change_alert(db, ended.model_copy(update={"resolved_at": AT}))
    found = read(catalog).alerts
    assert (found["task-failed"], found["drift"]) == (2, 0)


# --- cost of the queries ----------------------------------------------------------------------------------------------


@pytest.fixture
def large(catalog_url: URL, backend: str) -> Catalog:
    """Return a catalog with a few thousand scenes and masks, on PostgreSQL without sequential scans (test_scale.py)."""
    url = catalog_url if backend == "sqlite" else catalog_url.update_query_dict({"options": "-c enable_seqscan=off"})
    catalog = Catalog(url)
    scale.fill(catalog, 3000)
    return catalog


def plan(catalog: Catalog, query: object) -> Sequence[str]:
    return scale.plan(catalog, query, analyze=False, every=True)


def test_no_figure_reads_every_scene_or_mask(large: Catalog, backend: str):
    """Counts come from an index, lists from its end; a row of a scene or mask is read up to a limit only."""
    end = scale.FIRST_DAY + timedelta(days=scale.DAYS)
    queries = {
        "masks": (lambda db: figure_rows.count_rows(db, t.mask), "mask"),
        "new masks": (lambda db: figure_rows.count_masks_since(db, end - f.DAY), "ix_mask_created_at"),
        "unmasked": (lambda db: figure_rows.count_unmasked(db, scale.CHAMPION), "ix_mask_"),
        "new scenes": (lambda db: figure_rows.list_new_scenes(db, end - f.WEEK, limit=100), "ix_scene_created_at"),
        "newest": (lambda db: figure_rows.find_newest_scene_at(db), "ix_scene_created_at"),
        "bytes": (lambda db: figure_rows.measure_objects(db, t.mask, 3000), "mask"),
    }
    for name, (query, index) in queries.items():
        lines = plan(large, query)
        text = "\n".join(lines)
        assert index in text, f"{name}: {text}"
        whole = ["SCAN scene", "SCAN mask"] if backend == "sqlite" else ["Seq Scan on scene", "Seq Scan on mask"]
        assert not [line for line in lines if line.strip(" ->") in whole], f"{name}: {text}"
    if backend == "sqlite":
        assert "ix_mask_main" in "\n".join(plan(large, queries["unmasked"][0]))


def test_the_figures_of_a_large_catalog_are_right(large: Catalog):
    at = scale.FIRST_DAY + timedelta(days=scale.DAYS)
    found = read_figures(large, at=at)
    assert found.masks.total == 3000
    assert found.masks.without_champion == -(-3000 // scale.WAITING)
    assert found.latency_week.scenes == found.masks.last_week > 0
    assert (found.latency_week.p50_s, found.bytes.store_is_exact) == (0.0, False)
    assert found.bytes.store == pytest.approx(3000 * 201_000_003, rel=0.01)
