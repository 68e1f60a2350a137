"""Weights with a promise: an evaluation on held-out places whose clouds have known probabilities."""

from datetime import UTC, datetime
from typing import Any

import numpy as np

from cloudseg.catalog import model_rows, training_rows
from cloudseg.evaluate.risk import promise_of
from cloudseg.raster.probability import STEPS
from cloudseg.records import Evaluation, Promise, Snapshot, Weights

DAY = datetime(2026, 11, 1, tzinfo=UTC)


def evaluate_as(world: Any, weights: Weights, *, places: int = 40, number: int = 0, cloud_from: int = 50) -> Promise:
    """Add an evaluation on held-out places whose clouds have any probability from a step on; return its promise.

    Args:
        world: has the catalog.
        weights: that are evaluated.
        places: with cloud and clear ground.
        number: of the evaluation; higher ones are newer.
        cloud_from: the step; 50 is a probability of 0.2, and about that is the careful threshold.
    """
    counts = np.zeros((2, STEPS + 1), np.int64)
    counts[0, :100], counts[1, cloud_from:] = 1, 1
    found = promise_of(
        {f"p{n}": counts for n in range(places)}, threshold=weights.metadata["threshold"], evaluation_id=f"ev-{number}"
    )
    snapshot = Snapshot(
        snapshot_id=f"sn-{number}",
        manifest_key="m",
        manifest_sha256="0" * 64,
        chip_size=64,
        bands=["red"],
        working_resolution_m=None,
        counts={},
        created_at=DAY,
    )
    evaluation = Evaluation(
        evaluation_id=f"ev-{number}",
        weights_id=weights.weights_id,
        snapshot_id=snapshot.snapshot_id,
        split="held_out",
        threshold=0.5,
        metrics={"promise": found.as_json()},
        report={},
        created_at=DAY.replace(day=number + 1),
    )
    with world.catalog.begin() as db:
        training_rows.add_snapshot(db, snapshot, {})
        model_rows.add_evaluation(db, evaluation)
    return found
