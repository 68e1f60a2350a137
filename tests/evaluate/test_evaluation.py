"""Weights evaluated on a tiny snapshot: once, every pixel once, with the net's own bands and working pixels."""

import json

import numpy as np
import pytest
import torch

from cloudseg.bands import MASK_CLOUD
from cloudseg.catalog import Catalog, model_rows
from cloudseg.catalog.scene_rows import list_scenes
from cloudseg.catalog.training_rows import get_snapshot
from cloudseg.dataset.chips import open_chips
from cloudseg.errors import BadWeights, DataError, EmptySplit, NotInCatalog
from cloudseg.evaluate.evaluation import evaluate_weights
from cloudseg.evaluate.scene import Evaluator
from cloudseg.evaluate.table import read_table, threshold_curve
from cloudseg.model.golden import pack_golden
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.weights import load_weights, pack_weights
from cloudseg.records import StoredObject
from cloudseg.registry import register
from cloudseg.storage import LocalStore
from tests.evaluate.world import CPU, Tile, brightness_net, build_world, default_tiles, make_tile, register_net


def test_counts_are_those_of_whole_scenes(store: LocalStore, catalog: Catalog) -> None:
    """Chips of 32 overlap on scenes of 48; each scene's counts must be those of the scene itself."""
    tiles = default_tiles()
    snapshot_id = build_world(store, catalog, tiles)
    weights = register_net(store, catalog, 0.57, threshold=0.4)
    evaluation = evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, device=CPU)
    found = {scene.name: scene.counts for scene in read_table(store, evaluation).scenes}
    for tile in (tile for tile in tiles if tile.split == "held_out"):
        probability = 1 / (1 + np.exp(-40.0 * (tile.dn[0] / 10_000 - 0.57)))
        mask, cloud = np.rint(probability * 250) >= 100, tile.label == MASK_CLOUD  # as it is published
        expected = {"tp": mask & cloud, "fp": mask & ~cloud, "fn": ~mask & cloud, "tn": ~mask & ~cloud}
        for name, cell in expected.items():
            assert getattr(found[tile.name], name) == pytest.approx(
                cell.sum(), abs=1
            )  # one pixel may be at the threshold
    assert evaluation.metrics["scenes"] == 10
    assert evaluation.metrics["pixels"] == 10 * 48 * 48
    assert 0.3 < evaluation.metrics["iou"] < 0.95


def test_running_twice_gives_the_same_row_and_writes_nothing(store: LocalStore, catalog: Catalog) -> None:
    snapshot_id = build_world(store, catalog, default_tiles())
    weights = register_net(store, catalog, 0.35)
    question = {"weights_id": weights.weights_id, "snapshot_id": snapshot_id, "device": CPU}
    steps: list[tuple[int, int]] = []
    first = evaluate_weights(store, catalog, **question, on_progress=lambda done, total: steps.append((done, total)))
    assert steps == [(n, 10) for n in range(1, 11)]
    before = list(store.list_keys())
    assert evaluate_weights(store, catalog, **question) == first
    assert list(store.list_keys()) == before
    for entry in first.report.values():
        stored = StoredObject.model_validate(entry)
        assert len(store.get(stored.key, stored.sha256)) == stored.size
    assert {"html", "json", "counts"} <= set(first.report)
    with catalog.read() as db:
        assert model_rows.list_evaluations(db, weights.weights_id) == [first]


def test_other_splits_are_other_evaluations(store: LocalStore, catalog: Catalog) -> None:
    snapshot_id = build_world(store, catalog, default_tiles())
    weights = register_net(store, catalog, 0.35)
    found = evaluate_weights(
        store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, split="validation", device=CPU
    )
    assert (found.split, found.metrics["scenes"]) == ("validation", 1)


def test_unusable_questions(store: LocalStore, catalog: Catalog) -> None:
    snapshot_id = build_world(store, catalog, [make_tile("A", "train", 0.5)])
    weights = register_net(store, catalog, 0.35)
    with pytest.raises(EmptySplit, match="held_out"):
        evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, device=CPU)
    with pytest.raises(NotInCatalog):
        evaluate_weights(store, catalog, weights_id="w-none", snapshot_id=snapshot_id, device=CPU)
    with pytest.raises(NotInCatalog):
        evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id="sn-none", device=CPU)


def test_missing_bands_are_named(store: LocalStore, catalog: Catalog) -> None:
    snapshot_id = build_world(store, catalog, default_tiles())
    weights = register_net(store, catalog, 0.35, bands=("red", "green", "nir"))
    with pytest.raises(DataError, match="found red green blue, expected red green nir"):
        evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, device=CPU)


def test_bands_come_in_the_nets_order(store: LocalStore, catalog: Catalog) -> None:
    """A net that looks at its first band: blue. Only there is cloud bright."""
    tile = make_tile("A", "held_out", 0.5)
    dn = tile.dn.copy()
    dn[0], dn[2] = 900, np.where(tile.label == 1, 6000, 900)
    snapshot_id = build_world(
        store, catalog, [make_tile("B", "train", 0.5), Tile("A", "held_out", "mgrs:A", dn, tile.label, {})]
    )
    weights = register_net(store, catalog, 0.35, bands=("blue", "green", "red"))
    evaluation = evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, device=CPU)
    assert evaluation.metrics["iou"] == 1


def test_a_coarser_net_sees_averaged_pixels(store: LocalStore, catalog: Catalog) -> None:
    """A chessboard of 0.2 and 0.6 is 0.4 at half the resolution: all cloud for a threshold of 0.3."""
    board = np.indices((48, 48)).sum(axis=0) % 2
    dn = np.broadcast_to(np.where(board == 1, 6000, 2000), (3, 48, 48)).astype(np.uint16)
    tile = Tile("A", "held_out", "mgrs:A", dn, np.ones((48, 48), np.uint8), {})
    snapshot_id = build_world(store, catalog, [make_tile("B", "train", 0.5), tile])
    fine, coarse = register_net(store, catalog, 0.3), register_net(store, catalog, 0.3, working_resolution_m=20.0)
    found = [
        evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, device=CPU).metrics[
            "recall"
        ]
        for weights in (fine, coarse)
    ]
    assert found == [0.5, 1.0]


def test_the_factor_counts_from_the_snapshots_pixels(store: LocalStore, catalog: Catalog) -> None:
    snapshot_id = build_world(store, catalog, [make_tile("A", "held_out", 0.5)], working_resolution_m=20.0)
    weights = register_net(store, catalog, 0.3, working_resolution_m=40.0)
    with catalog.read() as db:
        snapshot = get_snapshot(db, snapshot_id)
        (scene,) = list_scenes(db)
    with open_chips(store, snapshot) as chips:
        predictor = TorchPredictor(load_weights(store.get(weights.key)), CPU)
        assert Evaluator(chips, predictor, snapshot_id=snapshot_id, snapshot_resolution_m=20.0).factor(scene) == 2
        assert Evaluator(chips, predictor, snapshot_id=snapshot_id, snapshot_resolution_m=None).factor(scene) == 4
        assert Evaluator(chips, predictor, snapshot_id=snapshot_id, snapshot_resolution_m=80.0).factor(scene) == 1


@pytest.mark.parametrize(
    ("snapshot_m", "working_m", "factor"),
    [
        (None, 30.0, 2),  # a sensor of 20 m is seen as it is
        (30.0, 30.0, 1),  # and these chips hold nothing finer than 30 m
        (None, 10.0, 2),
        (20.0, 40.0, 2),  # a sensor of 20 m is averaged to 40 m
        (80.0, 80.0, 1),
    ],
)
def test_a_sensor_twice_as_coarse_is_seen_as_a_net_would_see_it(
    store: LocalStore, catalog: Catalog, snapshot_m: float | None, working_m: float, factor: int
) -> None:
    """In pixels of the snapshot; the scene has 10 m."""
    snapshot_id = build_world(store, catalog, [make_tile("A", "held_out", 0.5)], working_resolution_m=snapshot_m)
    weights = register_net(store, catalog, 0.3, working_resolution_m=working_m)
    with catalog.read() as db:
        snapshot = get_snapshot(db, snapshot_id)
        (scene,) = list_scenes(db)
    assert scene.resolution_m == 10
    with open_chips(store, snapshot) as chips:
        predictor = TorchPredictor(load_weights(store.get(weights.key)), CPU)
        evaluator = Evaluator(chips, predictor, snapshot_id=snapshot_id, snapshot_resolution_m=snapshot_m)
        assert evaluator.factor(scene, 2) == factor


def test_without_training_places_there_is_no_brightness_mask(store: LocalStore, catalog: Catalog) -> None:
    snapshot_id = build_world(store, catalog, [make_tile("A", "held_out", 0.5)])
    weights = register_net(store, catalog, 0.3)
    evaluation = evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, device=CPU)
    assert sorted(evaluation.metrics["trivial"]) == ["all_clear", "all_cloud"]


def test_saturated_scenes_are_set_apart(store: LocalStore, catalog: Catalog) -> None:
    tiles = default_tiles()
    snow = make_tile("SNOW", "held_out", 0.2)
    dn = snow.dn.copy()
    dn[:, :24] = 8000
    snapshot_id = build_world(
        store, catalog, [*tiles, Tile("SNOW", "held_out", "mgrs:SNOW", np.minimum(dn, 8000), snow.label, {})]
    )
    weights = register_net(store, catalog, 0.35)
    evaluation = evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, device=CPU)
    assert evaluation.metrics["scenes"] == 11
    assert evaluation.metrics["without_saturated"]["scenes"] == 10
    assert evaluation.metrics["without_saturated"]["iou"] > evaluation.metrics["iou"]


def test_the_json_report_holds_the_page(store: LocalStore, catalog: Catalog) -> None:
    snapshot_id = build_world(store, catalog, default_tiles())
    weights = register_net(store, catalog, 0.57)
    evaluation = evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, device=CPU)
    found = json.loads(store.get(evaluation.report["json"]["key"]))
    assert found["metrics"] == evaluation.metrics
    kinds = {entry["kind"] for entry in found["slices"]}
    assert {"sensor", "cloud cover", "ground", "saturated", "label", "tag biome"} <= kinds
    assert found["sources"][0].startswith("Synthetic scenes")
    at_half = next(point for point in threshold_curve(read_table(store, evaluation).curve) if point["threshold"] == 0.5)
    assert at_half["iou"] == pytest.approx(evaluation.metrics["iou"], abs=0.001)


def test_a_net_that_makes_no_numbers_has_no_figures(store: LocalStore, catalog: Catalog) -> None:
    """Its mask would be clear everywhere: on a clear region such a net would even look perfect."""
    snapshot_id = build_world(store, catalog, default_tiles())
    data, meta = brightness_net(0.35)
    net = load_weights(data).net
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1e30)
    data = pack_weights(net, meta)
    with pytest.raises(BadWeights, match="golden sample is not finite"):
        pack_golden(load_weights(data))
    weights = register(
        store,
        catalog,
        weights=data,
        metadata=meta.model_dump(mode="json"),
        companions={},
        run_id=None,
        snapshot_id=None,
        architecture=meta.architecture,
    )
    with pytest.raises(BadWeights, match=f"weights {weights.weights_id} on scene sc-.* not a finite number"):
        evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, device=CPU)
    with catalog.read() as db:
        assert model_rows.list_evaluations(db, weights.weights_id) == []
