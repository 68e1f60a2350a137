"""How many steps a time budget allows: the pace, what disturbs it, and what fits."""

import logging
from itertools import accumulate, count
from types import SimpleNamespace

import pytest

from cloudseg.catalog import Catalog
from cloudseg.storage import LocalStore
from cloudseg.train import budget, train_run, validate
from cloudseg.train.budget import pace_of, steps_in
from tests.tiny_world import CPU, recipe


def moments(steps: list[float]) -> list[float]:
    return list(accumulate(steps, initial=100.0))


def test_the_pace_of_even_steps():
    assert pace_of(moments([0.5] * 8)) == pytest.approx(0.5)


def test_a_machine_that_is_busy_for_a_while_does_not_count():
    assert pace_of(moments([3.0] * 16 + [0.5] * 24)) == pytest.approx(0.5)
    assert pace_of(moments([0.5] * 11 + [60.0] + [0.5] * 12)) == pytest.approx(0.5)


def test_slow_and_fast_steps_belong_together():
    assert pace_of(moments([0.1, 0.9] * 12)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("left_s", "epoch_steps", "steps"),
    [
        (240.0, 10, 200),  # 200 steps of 1 s, 20 epochs of 2 s
        (100.0, 100_000, 84),  # less than 8 epochs fit: 8 shorter ones of 2 s
        (95.9, 10, 79),  # just under 8 whole epochs
        (96.0, 10, 80),
        (16.5, 10, 1),  # no time for a step: one
        (-30.0, 10, 1),
    ],
)
def test_steps_and_validations_fit_into_the_time(left_s: float, epoch_steps: int, steps: int):
    assert steps_in(left_s, step_s=1.0, epoch_s=2.0, epoch_steps=epoch_steps) == steps


def test_a_short_time_budget_has_epochs_to_watch(
    store: LocalStore, catalog: Catalog, snapshot_id: str, monkeypatch: pytest.MonkeyPatch
):
    """The clock advances by 10 s each time it is read, while the pace is measured: a step takes 10 s everywhere."""
    clock = SimpleNamespace(monotonic=count(0.0, 10.0).__next__)
    monkeypatch.setattr(budget, "time", clock)
    monkeypatch.setattr(validate, "time", clock)
    record = train_run(
        store,
        catalog,
        snapshot_id=snapshot_id,
        recipe=recipe(budget={"minutes": 9, "steps": None, "epoch_steps": 100_000}),
        run_id="run-a",
        device=CPU,
    )
    # 540 s less 130 s of measuring, 8 s at the end, 15 s for the last validation and what preparation really took; 8
    # validations of 15 s leave time for 26 steps.
    assert 17 <= record.steps <= 26
    assert 6 <= record.epochs <= 8


def test_an_unused_budget_is_logged(
    store: LocalStore, catalog: Catalog, snapshot_id: str, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, logger="cloudseg.train"):
        train_run(
            store,
            catalog,
            snapshot_id=snapshot_id,
            recipe=recipe(budget={"minutes": 9}),
            run_id="run-a",
            device=CPU,
        )
    assert "of 9 minutes of the budget unused" in caplog.text
