"""No leakage.

Training draws training chips, the threshold is chosen on validation chips, held-out chips change nothing.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cloudseg.catalog import Catalog, model_rows, training_rows
from cloudseg.dataset import ChipSet, build_snapshot, open_chips, split_of
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.weights import load_weights
from cloudseg.records import Chip, Snapshot, Split
from cloudseg.storage import LocalStore
from cloudseg.train import train_run
from cloudseg.train.batch import Batches
from cloudseg.train.data import TrainingData
from cloudseg.train.distributed import DistributedContext
from cloudseg.train.validate import Validator, choose_threshold
from tests.evaluate.world import register_net
from tests.tiny_world import CPU, places, recipe

SPLITS: tuple[Split, ...] = ("train", "validation", "held_out")


def get_snapshot(catalog: Catalog, snapshot_id: str) -> Snapshot:
    with catalog.read() as db:
        return training_rows.get_snapshot(db, snapshot_id)


@pytest.mark.parametrize("balance", [False, True])
def test_an_epoch_draws_every_training_chip_and_no_other(
    store: LocalStore, catalog: Catalog, snapshot_id: str, monkeypatch: pytest.MonkeyPatch, balance: bool
) -> None:
    drawn: list[Chip] = []
    pick = Batches._pick

    def record(batches: Batches, number: int) -> Chip:
        drawn.append(pick(batches, number))
        return drawn[-1]

    monkeypatch.setattr(Batches, "_pick", record)
    wanted = recipe(data={"balance": balance}, budget={"steps": 60, "epoch_steps": 20})
    train_run(store, catalog, snapshot_id=snapshot_id, recipe=wanted, run_id="run-a", device=CPU)
    with open_chips(store, get_snapshot(catalog, snapshot_id)) as chips:
        expected = {chip.chip_id for chip in chips.of("train")}
        assert 0 < len(expected) < len(chips.chips)
    assert len(drawn) >= 120
    assert {chip.chip_id for chip in drawn} == expected
    assert {split_of(chip.place) for chip in drawn} == {"train"}


def test_the_threshold_is_the_one_that_validation_chips_want(
    store: LocalStore, catalog: Catalog, add_scene: Callable[..., str]
) -> None:
    """Brightness rises from left to right; each split calls another part of it cloud."""
    brightness = np.broadcast_to(np.linspace(1000, 9000, 64).astype(np.uint16), (3, 64, 64))
    for split, cloud_from in zip(SPLITS, (5000, 3500, 6500), strict=True):
        label = (brightness[0] >= cloud_from).astype(np.uint8)
        for place in places(split, 2):
            add_scene(place, pixels=brightness, label=label)
    # One step of next to no length from a net that is a brightness threshold: its probability rises with brightness.
    parent = register_net(store, catalog, 0.5, gain=8.0)
    wanted = recipe(
        warm_start=True,
        model={"widths": [2, 4]},
        input={"mean": [0.0], "std": [1.0]},
        optimizer={"lr": 1e-9},
        budget={"steps": 1},
    )
    built = build_snapshot(store, catalog, wanted)
    record = train_run(
        store,
        catalog,
        snapshot_id=built.snapshot_id,
        recipe=wanted,
        run_id="run-a",
        device=CPU,
        parent_weights_id=parent.weights_id,
    )
    with open_chips(store, get_snapshot(catalog, built.snapshot_id)) as chips:
        best = {split: best_threshold(store, catalog, record.weights_id, chips, split) for split in SPLITS}
    assert best["validation"] + 0.1 < best["train"] < best["held_out"] - 0.1, best
    assert record.metrics["threshold"] == best["validation"]


def best_threshold(store: LocalStore, catalog: Catalog, weights_id: str, chips: ChipSet, split: Split) -> float:
    """The threshold that published weights would get on the chips of a split."""
    with catalog.read() as db:
        weights = model_rows.get_weights(db, weights_id)
    predictor = TorchPredictor(load_weights(store.get(weights.key)), CPU)
    validator = Validator(TrainingData(chips, [], chips.of(split)), 4, DistributedContext(0, 1, CPU))
    return choose_threshold(validator.count(predictor))


def test_other_held_out_chips_give_the_same_weights(
    store: LocalStore, catalog: Catalog, snapshot_id: str, add_scene: Callable[..., str]
) -> None:
    for number, place in enumerate(places("held_out", 6)):
        add_scene(place, seed=1000 + number, label=np.full((64, 64), number % 2, np.uint8))
    other_id = build_snapshot(store, catalog, recipe()).snapshot_id
    assert get_snapshot(catalog, snapshot_id).counts["held_out"] != get_snapshot(catalog, other_id).counts["held_out"]
    results = []
    for number, name in enumerate((snapshot_id, other_id)):
        record = train_run(store, catalog, snapshot_id=name, recipe=recipe(), run_id=f"run-{number}", device=CPU)
        with catalog.read() as db:
            results.append((record, model_rows.get_weights(db, record.weights_id)))
    (first, weights), (second, other_weights) = results
    assert first.metrics == second.metrics
    tensors, other_tensors = (load_weights(store.get(row.key)).net.state_dict() for row in (weights, other_weights))
    assert all(torch.equal(tensors[name], other_tensors[name]) for name in tensors)
