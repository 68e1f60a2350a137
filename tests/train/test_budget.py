"""How many steps a time budget allows: the pace, and what disturbs it."""

import logging
from itertools import accumulate

import pytest

from cloudseg.catalog import Catalog
from cloudseg.storage import LocalStore
from cloudseg.train import train_run
from cloudseg.train.budget import pace_of
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
    assert record.steps > 8
    assert 5 <= record.epochs <= 8
    assert record.seconds < 25


def test_an_unused_budget_is_said(
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
