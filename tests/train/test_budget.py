"""A time budget is used: the first plan comes from real steps, a new one after every epoch; resume is exact."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from cloudseg.catalog import Catalog, model_rows, training_rows
from cloudseg.errors import StoreUnreachable
from cloudseg.model.weights import load_weights
from cloudseg.records import Epoch, TrainRecord
from cloudseg.storage import LocalStore
from cloudseg.train import budget, loop, run, train_run, validate
from cloudseg.train.checkpoint import Checkpoints, TrainingProgress
from cloudseg.train.trainer import Trainer
from tests.tiny_world import CPU, recipe

FINISH_S = 8.0
"""What is kept for the end, after the last step."""


class Clock:
    """A clock that only steps and validations move: `step_s` gives the seconds of a step from the moment it begins."""

    def __init__(self, step_s: Callable[[float], float], chip_s: float = 0.25) -> None:
        self.now, self.step_s, self.chip_s = 0.0, step_s, chip_s
        self.rates: list[float] = []

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def make_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clock]:
    """Return a function that replaces the clock of a training; the nets really train."""
    train_step, count_batch = Trainer.train_step, validate.Validator._count_batch

    def make(step_s: Callable[[float], float], chip_s: float = 0.25) -> Clock:
        clock = Clock(step_s, chip_s)

        def timed_step(self: Trainer, batch: object) -> float:
            clock.rates.append(self.learning_rate(self.progress.step))
            clock.now += clock.step_s(clock.now)
            return train_step(self, batch)

        def timed_count(self: validate.Validator, predictor: object, chips: list[object]) -> object:
            clock.now += clock.chip_s * len(chips)
            return count_batch(self, predictor, chips)

        for module in (budget, loop, run, validate):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(Trainer, "train_step", timed_step)
        monkeypatch.setattr(validate.Validator, "_count_batch", timed_count)
        return clock

    return make


def train(
    store: LocalStore,
    catalog: Catalog,
    snapshot_id: str,
    *,
    run_id: str = "run-a",
    on_progress: Any = None,
    **parts: Any,
) -> tuple[TrainRecord, list[Epoch]]:
    """Train for six minutes, or the budget that is given; return the record and the epochs."""
    limits = {"minutes": 6, "steps": None, "epoch_steps": 100_000} | parts.pop("budget", {})
    record = train_run(
        store,
        catalog,
        snapshot_id=snapshot_id,
        recipe=recipe(budget=limits, **parts),
        run_id=run_id,
        device=CPU,
        on_progress=on_progress,
    )
    with catalog.read() as db:
        return record, training_rows.list_epochs(db, run_id)


@pytest.mark.parametrize(
    "step_s",
    [
        pytest.param(lambda now: 4.0, id="even"),
        pytest.param(lambda now: 8.0 if now < 90 else 4.0, id="busy while the pace is measured"),
        pytest.param(lambda now: 3.0 if now < 60 else 6.0, id="quiet while the pace is measured"),
        pytest.param(lambda now: 8.0 if 150 < now < 250 else 4.0, id="busy in the middle"),
        pytest.param(lambda now: 1.0 if now < 20 else 4.0, id="four times slower"),
    ],
)
def test_the_minutes_are_used_and_not_exceeded(
    store: LocalStore,
    catalog: Catalog,
    snapshot_id: str,
    make_clock: Callable[..., Clock],
    step_s: Callable[[float], float],
) -> None:
    clock = make_clock(step_s)
    record, epochs = train(store, catalog, snapshot_id)
    assert 0.95 * 360 <= clock.now + FINISH_S <= 360
    assert record.steps == len(clock.rates), "the steps that were measured count"
    assert epochs[-1].metrics["total_steps"] == epochs[-1].step
    assert len(epochs) >= 3


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
def test_the_learning_rate_has_no_jump_and_comes_to_its_end(
    store: LocalStore, catalog: Catalog, snapshot_id: str, make_clock: Callable[..., Clock], schedule: str
) -> None:
    clock = make_clock(lambda now: 8.0 if now < 60 else (3.0 if now < 200 else 5.0))
    optimizer = {"schedule": schedule, "lr": 1e-3, "warmup_fraction": 0.1}
    record, epochs = train(store, catalog, snapshot_id, optimizer=optimizer)
    totals = [epoch.metrics["total_steps"] for epoch in epochs]
    assert totals[0] > 1.2 * totals[-1] or min(totals) < max(totals), "the plan changed"
    steepest = max(abs(later - earlier) for earlier, later in zip(clock.rates, clock.rates[1:], strict=False))
    assert steepest < 1e-3 * 2.5 / (0.1 * min(totals)), "about the warm-up of the shortest plan, an eighth of its steps"
    assert max(clock.rates) > 0.98e-3
    assert clock.rates[-1] < 0.01e-3
    assert record.steps == totals[-1]


def test_a_plan_that_never_changes_has_the_schedule_of_its_steps() -> None:
    progress = TrainingProgress(step=0, total_steps=3407, epoch_steps=400)
    assert [progress.schedule_position(step) for step in range(3407)] == list(range(3407))


def test_a_changed_plan_spreads_what_is_left_of_the_schedule() -> None:
    progress = TrainingProgress(step=250, total_steps=1000, epoch_steps=50)
    progress.replan(1750)
    assert [progress.schedule_position(step) for step in (250, 1000, 1750)] == [250, 625, 1000]
    progress.step = 1000
    progress.replan(1100)
    assert [progress.schedule_position(step) for step in (1000, 1100)] == [625, 1000]


def test_a_run_that_is_killed_ends_with_the_plans_and_weights_of_one_that_is_not(
    store: LocalStore,
    catalog: Catalog,
    snapshot_id: str,
    make_clock: Callable[..., Clock],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed inside an epoch, and between an epoch's row, which records its plan, and its checkpoint."""
    parts: dict[str, Any] = {
        "ema_decay": 0.9,
        "optimizer": {"schedule": "onecycle"},
        "budget": {"checkpoint_every_steps": 10**6},
    }

    def pace(now: float) -> float:
        return 6.0 if now < 150 else 3.0

    clock = make_clock(pace)
    whole, expected = train(store, catalog, snapshot_id, run_id="run-whole", **parts)
    assert len({epoch.metrics["total_steps"] for epoch in expected}) > 1, "the plan changed"

    def die(done: int, total: int, phrase: str) -> None:
        if done == expected[1].step + 2:
            raise KeyboardInterrupt

    clock.now = 0.0
    with pytest.raises(KeyboardInterrupt):
        train(store, catalog, snapshot_id, run_id="run-killed", on_progress=die, **parts)
    save = Checkpoints.save

    def fail(self: Checkpoints, state: Any) -> None:
        if state.progress.step == expected[2].step:
            raise StoreUnreachable("no answer")
        save(self, state)

    monkeypatch.setattr(Checkpoints, "save", fail)
    clock.now = expected[1].metrics["seconds"]
    with pytest.raises(StoreUnreachable):
        train(store, catalog, snapshot_id, run_id="run-killed", **parts)
    monkeypatch.setattr(Checkpoints, "save", save)
    clock.now = expected[1].metrics["seconds"]
    killed, epochs = train(store, catalog, snapshot_id, run_id="run-killed", **parts)

    assert [(row.epoch, row.step, row.metrics) for row in epochs] == [
        (row.epoch, row.step, row.metrics | {"images_per_s": found.metrics["images_per_s"]})
        for row, found in zip(expected, epochs, strict=True)
    ]
    with catalog.read() as db:
        weights = [model_rows.get_weights(db, record.weights_id) for record in (whole, killed)]
    nets = [load_weights(store.get(row.key)).net.state_dict() for row in weights]
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])


def test_an_epoch_that_is_repeated_is_followed_by_the_plan_that_its_row_records(
    store: LocalStore,
    catalog: Catalog,
    snapshot_id: str,
    make_clock: Callable[..., Clock],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = make_clock(lambda now: 6.0 if now < 60 else 4.0)
    save = Checkpoints.save
    saved: list[int] = []

    def fail(self: Checkpoints, state: Any) -> None:
        saved.append(state.progress.step)
        if len(saved) == 3:
            raise StoreUnreachable("no answer")
        save(self, state)

    monkeypatch.setattr(Checkpoints, "save", fail)
    only_epochs = {"checkpoint_every_steps": 10**6}
    with pytest.raises(StoreUnreachable):
        train(store, catalog, snapshot_id, budget=only_epochs)
    monkeypatch.setattr(Checkpoints, "save", save)
    with catalog.read() as db:
        recorded = training_rows.list_epochs(db, "run-a")[1]
    assert recorded.step == saved[2]
    clock.step_s = lambda now: 7.0
    totals: dict[int, int] = {}

    def note(done: int, total: int, phrase: str) -> None:
        totals[done] = total

    train(store, catalog, snapshot_id, budget=only_epochs, on_progress=note)
    assert totals[recorded.step + 1] == recorded.metrics["total_steps"], "although this process was slower"


def test_patience_lasts_as_long_where_the_plan_grew(
    store: LocalStore,
    catalog: Catalog,
    snapshot_id: str,
    make_clock: Callable[..., Clock],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Epochs were made for a machine that is three times slower: two of them are no reason to stop."""
    monkeypatch.setattr(validate.Tally, "loss", 0.5)  # the first epoch stays the best
    caplog.set_level(logging.INFO)
    make_clock(lambda now: 6.0 if now < 40 else 2.0)
    record, epochs = train(store, catalog, snapshot_id, budget={"patience": 2})
    full = epochs[-1].metrics["total_steps"] // 8
    assert epochs[0].step + 2 * full <= record.steps < epochs[0].step + 3 * full
    assert len(epochs) > 3
    assert f"no lower validation loss than 0.5000 for {len(epochs) - 1} epochs" in caplog.text


def test_time_that_is_over_ends_the_training_at_the_end_of_the_epoch(
    store: LocalStore, catalog: Catalog, snapshot_id: str, make_clock: Callable[..., Clock], caplog: Any
) -> None:
    caplog.set_level(logging.INFO)
    make_clock(lambda now: 1.0 if now < 12 else 20.0)
    record, epochs = train(store, catalog, snapshot_id)
    assert record.steps == epochs[-1].step == epochs[-1].metrics["total_steps"]
    assert f"run run-a ends at step {record.steps}: no time is left of 6 minutes" in caplog.text


def test_a_short_time_budget_has_epochs_to_watch_and_a_warning(
    store: LocalStore, catalog: Catalog, snapshot_id: str, make_clock: Callable[..., Clock], caplog: Any
) -> None:
    make_clock(lambda now: 10.0, chip_s=1.0)
    record, epochs = train(store, catalog, snapshot_id)
    assert 25 <= record.steps <= 35
    assert 5 <= len(epochs) <= 9
    assert [row.epoch for row in epochs] == list(range(1, len(epochs) + 1))
    warnings = [line.getMessage() for line in caplog.records if line.levelname == "WARNING"]
    assert any("learns little: 6 minutes are too few here" in line for line in warnings)


def test_an_epoch_of_one_step_is_planned_by_its_end(
    store: LocalStore, catalog: Catalog, snapshot_id: str, make_clock: Callable[..., Clock]
) -> None:
    clock = make_clock(lambda now: 4.0)
    record, epochs = train(store, catalog, snapshot_id, budget={"minutes": 1, "epoch_steps": 1})
    assert 0.9 * 60 <= clock.now + FINISH_S <= 60
    assert len(epochs) == record.steps


def test_steps_for_which_there_is_time_are_all_taken(
    store: LocalStore, catalog: Catalog, snapshot_id: str, make_clock: Callable[..., Clock]
) -> None:
    clock = make_clock(lambda now: 9.0 if now < 20 else 3.0)
    optimizer = {"schedule": "onecycle"}
    with_minutes, epochs = train(
        store, catalog, snapshot_id, budget={"steps": 40, "epoch_steps": 10}, optimizer=optimizer
    )
    rates, clock.rates = clock.rates, []
    without, plain = train(
        store,
        catalog,
        snapshot_id,
        run_id="run-b",
        budget={"steps": 40, "epoch_steps": 10, "minutes": None},
        optimizer=optimizer,
    )
    assert rates == clock.rates
    assert with_minutes.steps == without.steps == 40
    for name in ("train_loss", "validation_loss", "lr"):
        assert [row.metrics[name] for row in epochs] == [row.metrics[name] for row in plain]


def test_an_unused_budget_is_logged(
    store: LocalStore, catalog: Catalog, snapshot_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="cloudseg.train"):
        train(store, catalog, snapshot_id, budget={"minutes": 9, "steps": 12})
    assert "of 9 minutes of the budget unused" in caplog.text
    assert "learns little" not in caplog.text, "the steps of the recipe are few, not the minutes"
