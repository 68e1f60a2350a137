"""An evaluation on held-out places has thresholds with a promise; what they miss is counted place by place."""

from statistics import mean

import pytest

from cloudseg.catalog import Catalog
from cloudseg.catalog.promise_rows import find_promise
from cloudseg.evaluate.evaluation import evaluate_weights
from cloudseg.evaluate.metrics import pool
from cloudseg.evaluate.table import read_table
from cloudseg.records import Promise
from cloudseg.storage import LocalStore
from tests.evaluate.world import CPU, build_world, make_tile, register_net


def test_the_promise_is_measured_on_held_out_places(store: LocalStore, catalog: Catalog) -> None:
    tiles = [make_tile("A", "train", 0.5), make_tile("V", "validation", 0.5), make_tile("W", "validation", 0.0)]
    tiles += [make_tile(f"H{n}", "held_out", 0.1 + n / 30, size=32) for n in range(20)]
    tiles += [make_tile("again", "held_out", 0.9, size=32, place="mgrs:H0")]
    tiles += [make_tile(f"C{n}", "held_out", 0.0, size=32) for n in range(2)]
    snapshot_id = build_world(store, catalog, tiles)
    weights = register_net(store, catalog, 0.59, threshold=0.6)
    question = {"weights_id": weights.weights_id, "snapshot_id": snapshot_id, "device": CPU}
    evaluation = evaluate_weights(store, catalog, **question)
    promise = Promise.model_validate(evaluation.metrics["promise"])
    assert (promise.evaluation_id, promise.cloudy_places, promise.clear_places) == (evaluation.evaluation_id, 20, 22)

    by_place: dict[str, list[object]] = {}
    for scene in read_table(store, evaluation).scenes:
        by_place.setdefault(scene.place, []).append(scene.counts)
    counts = [pool(found) for found in by_place.values()]
    assert promise.balanced is not None
    assert promise.balanced.threshold == 0.6
    assert promise.balanced.missed == pytest.approx(mean(c.fn / c.cloud for c in counts if c.cloud), abs=1e-6)
    assert promise.balanced.false_cloud == pytest.approx(
        mean(c.fp / (c.fp + c.tn) for c in counts if c.fp + c.tn), abs=1e-6
    )
    assert promise.balanced.missed > 0.1
    assert promise.careful is not None
    assert promise.careful.threshold < 0.6
    assert (20 * promise.careful.missed + 1) / 21 <= promise.careful.missed_at_most == 0.05

    html = store.get(evaluation.report["html"]["key"]).decode()
    assert "Thresholds with a promise" in html
    assert f"<td>careful</td><td>{promise.careful.threshold:.3f}</td>" in html
    with catalog.read() as db:
        assert find_promise(db, weights.weights_id) == promise


def test_other_splits_promise_nothing(store: LocalStore, catalog: Catalog) -> None:
    """The threshold and the epoch were chosen on validation places."""
    snapshot_id = build_world(
        store, catalog, [make_tile("A", "train", 0.5), *(make_tile(f"V{n}", "validation", 0.4) for n in range(20))]
    )
    weights = register_net(store, catalog, 0.35)
    evaluation = evaluate_weights(
        store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, split="validation", device=CPU
    )
    assert "promise" not in evaluation.metrics
    assert "Thresholds with a promise" not in store.get(evaluation.report["html"]["key"]).decode()
    with catalog.read() as db:
        assert find_promise(db, weights.weights_id) is None
