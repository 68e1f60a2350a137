"""Batches are a function of seed and step; invalid pixels never reach the loss."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from cloudseg.catalog import Catalog, training_rows
from cloudseg.dataset import ChipSet, build_snapshot, open_chips
from cloudseg.recipe import Optimizer
from cloudseg.storage import LocalStore
from cloudseg.train.augment import Draw
from cloudseg.train.batch import Batches
from cloudseg.train.data import choose_chips
from cloudseg.train.pixels import DevicePixels, HostPixels, chip_bytes, choose_pixels, fits
from cloudseg.train.trainer import learning_rate, masked_bce
from tests.tiny_world import places, recipe

AUGMENT = {
    "flip": True,
    "rotate90": True,
    "gain": 0.3,
    "band_gain": 0.1,
    "saturate": 0.5,
    "scale": 0.4,
    "offset": 0.1,
    "rectangle": 0.5,
    "interpolation": "random",
    "power": 0.5,
    "gray": 0.25,
    "cutmix": 0.5,
}


def test_a_batch_depends_on_seed_and_step_only(chip_set: ChipSet) -> None:
    wanted = recipe(augment=AUGMENT, data={"balance": True})
    chips = choose_chips(chip_set.of("train"), wanted)
    one, other = Batches(chip_set, chips, wanted), Batches(chip_set, chips, wanted)
    for step in (5, 0, 5):
        assert torch.equal(one.make(step).x, other.make(step).x)
        assert torch.equal(one.make(step).label, other.make(step).label)
    streamed = list(one.iter_from(3, 9))
    assert len(streamed) == 6
    assert all(torch.equal(batch.x, other.make(step).x) for step, batch in enumerate(streamed, start=3))
    assert not torch.equal(one.make(0).x, one.make(1).x)
    assert one.make(0).x.shape == (2, 3, 32, 32)
    assert bool(torch.isfinite(one.make(0).x).all())


def test_chips_in_the_memory_of_a_device_make_the_same_batches(chip_set: ChipSet) -> None:
    """On the CPU to the bit; a GPU divides and interpolates to rounding (`python -m benchmarks.gpu`)."""
    wanted = recipe(augment=AUGMENT)
    chips = choose_chips(chip_set.of("train"), wanted)
    mapped, copied = Batches(chip_set, chips, wanted), Batches(chip_set, chips, wanted)
    copied._pixels = DevicePixels(chip_set, chips, torch.device("cpu"))
    for step in range(6):
        one, other = mapped.make(step), copied.make(step)
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.label, other.label)
    assert torch.equal(copied.make(0).x, mapped.make(0).x), "no batch changes the copy"


def test_padding_is_not_observed_in_the_memory_of_a_device_either(
    store: LocalStore, catalog: Catalog, add_scene: Callable[..., str]
) -> None:
    add_scene(places("train", 1)[0], size=(40, 48))
    built = build_snapshot(store, catalog, recipe())
    with catalog.read() as db:
        snapshot = training_rows.get_snapshot(db, built.snapshot_id)
    with open_chips(store, snapshot) as chips:
        copied = DevicePixels(chips, chips.chips, torch.device("cpu"))
        for chip in chips.chips:
            one, other = (source.window(chip, Draw(side=64, row=0, col=0)) for source in (HostPixels(chips), copied))
            assert int(other.valid.sum()) == 40 * 48
            assert torch.equal(one.valid, other.valid)
            assert torch.equal(one.reflectance, other.reflectance)
            assert torch.equal(one.label, other.label)


def test_chips_fit_into_a_quarter_of_the_free_memory(chip_set: ChipSet) -> None:
    assert chip_bytes(chip_set) == 64 * 64 * (3 * 2 + 1)
    assert fits(250, 1000)
    assert not fits(251, 1000)
    assert isinstance(choose_pixels(chip_set, [], torch.device("cpu")), HostPixels)


def test_a_pass_sees_every_chip_once(chip_set: ChipSet) -> None:
    wanted = recipe()
    chips = choose_chips(chip_set.of("train"), wanted)
    batches = Batches(chip_set, chips, wanted)
    assert batches.steps_per_pass == 3
    for first in (0, 6):
        assert sorted(batches._pick(number).chip_id for number in range(first, first + 6)) == sorted(
            chip.chip_id for chip in chips
        )


def test_processes_share_a_step_without_overlap(chip_set: ChipSet) -> None:
    wanted = recipe()
    chips = choose_chips(chip_set.of("train"), wanted)
    alone = Batches(chip_set, chips, recipe(budget={"batch_size": 4}))
    pair = [Batches(chip_set, chips, wanted, rank=rank, world_size=2) for rank in (0, 1)]
    for step in range(3):
        together = torch.cat([batches.make(step).x for batches in pair])
        assert torch.equal(together, alone.make(step).x)


def test_max_chips_are_chosen_by_the_seed(chip_set: ChipSet) -> None:
    chips = chip_set.of("train")
    few = [choose_chips(order, recipe(data={"max_chips": 3})) for order in (chips, chips[::-1])]
    assert few[0] == few[1]
    assert len(few[0]) == 3
    seeds = {
        tuple(chip.chip_id for chip in choose_chips(chips, recipe(data={"max_chips": 3}, seed=seed)))
        for seed in range(8)
    }
    assert len(seeds) > 1


def test_crops_stay_on_the_scene_where_the_chip_is_padded(
    store: LocalStore, catalog: Catalog, add_scene: Callable[..., str]
) -> None:
    add_scene(places("train", 1)[0], size=(40, 48))
    built = build_snapshot(store, catalog, recipe())
    with catalog.read() as db:
        snapshot = training_rows.get_snapshot(db, built.snapshot_id)
    with open_chips(store, snapshot) as chips:
        batches = Batches(chips, chips.chips, recipe())
        assert all((batches.make(step).label != 255).all() for step in range(10))


def test_loss_at_the_start_is_ln_2() -> None:
    label = torch.randint(0, 2, (2, 16, 16), dtype=torch.uint8)
    assert masked_bce(torch.zeros(2, 16, 16), label).item() == pytest.approx(math.log(2))


def test_invalid_pixels_never_change_the_loss() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 8, 8, requires_grad=True)
    label = torch.randint(0, 2, (2, 8, 8), dtype=torch.uint8)
    label[:, :3] = 255
    loss = masked_bce(logits, label)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[:, :3].abs().max() == 0
    wild = logits.detach().clone()
    wild[:, :3] = torch.tensor([float("nan"), 1e30, -1e30, float("inf")]).repeat(2)
    assert masked_bce(wild, label).item() == loss.item()
    nothing = masked_bce(wild, torch.full_like(label, 255))
    assert nothing.item() == pytest.approx(0.0)


def test_a_perfect_prediction_costs_nothing() -> None:
    label = torch.tensor([[[0, 1], [1, 0]]], dtype=torch.uint8)
    logits = torch.where(label == 1, 40.0, -40.0)
    assert masked_bce(logits, label).item() == pytest.approx(0.0, abs=1e-6)


# Ten steps of warm-up, then half a cosine over ninety: a third of it is done at step 40, half at 55, two thirds at 70.
DECAY = {10: 0.1, 40: 0.075, 55: 0.05, 70: 0.025}
SCHEDULES = {
    "constant": dict.fromkeys((0, 5, 10, 55, 99), 0.1),
    "cosine": DECAY | {0: 0.01, 4: 0.05, 9: 0.1},
    "onecycle": DECAY | {0: 0.1 / 25, 5: (0.1 / 25 + 0.1) / 2},
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules(schedule: str) -> None:
    rates = [learning_rate(step, 100, Optimizer(schedule=schedule, lr=0.1, warmup_fraction=0.1)) for step in range(100)]  # type: ignore[arg-type]
    for step, rate in SCHEDULES[schedule].items():
        assert rates[step] == pytest.approx(rate, rel=1e-3), step
    assert min(rates) > 0
    if schedule != "constant":
        assert all(np.diff(rates[:10]) > 0)
        assert all(np.diff(rates[10:]) < 0)
        assert rates[-1] < 0.0001, "nearly 0 at the last step"


def test_the_one_cycle_ends_at_the_rate_of_pytorch() -> None:
    optimizer = Optimizer(schedule="onecycle", lr=0.1, warmup_fraction=0.1)
    assert learning_rate(100, 100, optimizer) == pytest.approx(0.1 / 25 / 1e4)
