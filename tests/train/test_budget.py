"""How many steps a time budget allows: the pace, what disturbs it, and what fits."""

import logging
from itertools import accumulate

import pytest

from cloudseg.catalog import Catalog
from cloudseg.storage import LocalStore
from cloudseg.train import train_run
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


def test_a_short_time_budget_has_epochs_to_watch(store: LocalStore, catalog: Catalog, snapshot_id: str):
    record = train_run(
        store,
        catalog,
        snapshot_id=snapshot_id,
        recipe=recipe(budget={"minutes": 0.19, "steps": None, "epoch_steps": 100_000}),
        run_id="run-a",
        device=CPU,
    )
    assert 1 < record.epochs <= 8


def test_steps_and_the_validations_between_them_fit():
    # 10 epochs of 10 steps: 100 s of steps and 50 s of validation.
    assert steps_in(150.0, step_s=1.0, epoch_s=5.0, epoch_steps=10) == 100
    assert steps_in(149.0, step_s=1.0, epoch_s=5.0, epoch_steps=10) == 99


def test_a_time_that_is_too_short_for_eight_epochs_still_has_eight_validations():
    assert steps_in(60.0, step_s=1.0, epoch_s=5.0, epoch_steps=1000) == 20
    assert steps_in(30.0, step_s=1.0, epoch_s=5.0, epoch_steps=1000) == 1
    assert steps_in(-5.0, step_s=1.0, epoch_s=5.0, epoch_steps=1000) == 1


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
