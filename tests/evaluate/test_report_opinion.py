"""The agreement with a model of others is in the report, from every pixel once, and nowhere else."""

import json

import numpy as np
import pytest

from cloudseg.catalog import Catalog
from cloudseg.evaluate.evaluation import evaluate_weights
from cloudseg.evaluate.second_opinion import Agreement, compare
from cloudseg.records import StoredObject
from cloudseg.storage import LocalStore
from tests.bright_model import BRIGHT
from tests.evaluate.world import CPU, build_world, make_tile, register_net


def test_the_report_states_the_agreement_and_the_metrics_do_not(store: LocalStore, catalog: Catalog) -> None:
    """Chips of 32 overlap on scenes of 48; the agreement must be that of the whole scenes."""
    tiles = [make_tile(f"t{n}", "train", 0.4) for n in range(3)] + [make_tile("v", "validation", 0.5)]
    tested = [make_tile(f"h{n}", "held_out", n / 4, resolution_m=30.0) for n in range(4)]
    snapshot_id = build_world(store, catalog, tiles + tested)
    weights = register_net(store, catalog, 0.57, threshold=0.4)
    asked = {"weights_id": weights.weights_id, "snapshot_id": snapshot_id, "device": CPU}
    evaluation = evaluate_weights(store, catalog, **asked, teacher=BRIGHT)
    total = Agreement()
    for tile in tested:
        mask = np.rint(1 / (1 + np.exp(-40.0 * (tile.dn[0] / 10_000 - 0.57))) * 250) >= 100
        second = tile.dn[[2, 1, 0, 0]].mean(axis=0) > 5000
        total += compare(mask.astype(np.uint8), tile.label, second.astype(np.uint8))
    assert total.pixels == 4 * 48 * 48
    part = StoredObject.model_validate(evaluation.report["json"])
    found = json.loads(store.get(part.key, part.sha256))["second_opinion"]
    assert (found["model"], found["scenes"], found["pixels"]) == ("bright 1.0", 4, 4 * 48 * 48)
    assert found["iou_with_masks"] == pytest.approx(total.masks_both / total.masks_either, abs=1e-3)
    assert found["iou_with_labels"] == pytest.approx(total.labels_both / total.labels_either, abs=1e-3)
    assert found["against_label"] == pytest.approx(total.against_label / total.pixels, abs=1e-3)
    page = StoredObject.model_validate(evaluation.report["html"])
    assert "bright 1.0, a model of others that never changes" in store.get(page.key, page.sha256).decode()
    assert "bright 1.0" not in json.dumps(evaluation.metrics)  # what the gate reads
    counts = StoredObject.model_validate(evaluation.report["counts"])
    assert "bright 1.0" not in store.get(counts.key, counts.sha256).decode()


def test_pixels_are_compared_where_all_three_know_something() -> None:
    #                 both, only ours, only theirs, label only, unlabeled, no data, unknown to the other
    mask = np.array([[1, 1, 0, 0, 1, 255, 1]], np.uint8)
    label = np.array([[0, 1, 1, 1, 255, 1, 1]], np.uint8)
    second = np.array([[1, 0, 1, 0, 1, 1, 255]], np.uint8)
    expected = Agreement(masks_both=1, masks_either=3, labels_both=1, labels_either=4, against_label=2, pixels=4)
    assert compare(mask, label, second) == expected
