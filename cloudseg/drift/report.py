"""Drift of the catalog's newest scenes and masks against the training scenes of the champion."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection

from cloudseg.catalog import drift_rows, model_rows
from cloudseg.catalog.drift_rows import SceneFigures
from cloudseg.drift.places import CLEAR, OVERCAST, list_suspects
from cloudseg.drift.psi import LIMIT
from cloudseg.drift.weeks import (
    MIN_REFERENCE,
    list_current,
    list_weeks,
    monday_of,
    sentence_of,
    week_of,
)
from cloudseg.records import DriftRecord, DriftWeek, Weights

WEEKS: Final = 26
"""Weeks that are compared, that of the newest scene included."""


def drift_report(db: Connection, *, limit: float = LIMIT, measured: int = 0) -> DriftRecord:
    """Compare the scenes of the last 26 weeks, and their masks by the champion, with its training scenes.

    Args:
        db: the catalog; nothing is written, no pixel is read.
        limit: PSI above which a week has drifted.
        measured: for the record: how many scenes were measured just now.
    """
    champion = model_rows.find_champion(db)
    weights = model_rows.get_weights(db, champion.weights_id) if champion else None
    weeks, notes = _compare(db, weights, limit)
    places = drift_rows.list_places(db, weights.weights_id, lower=CLEAR, upper=OVERCAST) if weights else []
    unmeasured = drift_rows.count_unmeasured(db)
    if unmeasured:
        notes.append(f"the brightness of {unmeasured} scenes is still to be measured: `cloudseg drift` goes on")
    return DriftRecord(
        weights_id=weights.weights_id if weights else None,
        model_version=weights.version if weights else None,
        snapshot_id=weights.snapshot_id if weights else None,
        limit=limit,
        past_limit=[sentence_of(week) for week in _current(db, weeks) if week.past],
        notes=notes,
        weeks=weeks,
        places=list_suspects(places),
        measured=measured,
        unmeasured=unmeasured,
    )


def list_drifted(db: Connection, *, limit: float) -> list[DriftWeek]:
    """Return the current week of each sensor and measure that is past the limit; empty without a champion."""
    champion = model_rows.find_champion(db)
    weights = model_rows.get_weights(db, champion.weights_id) if champion else None
    weeks, _ = _compare(db, weights, limit)
    return [week for week in _current(db, weeks) if week.past]


def _compare(db: Connection, weights: Weights | None, limit: float) -> tuple[list[DriftWeek], list[str]]:
    """Return the weeks, newest first, and why something was not compared."""
    newest = drift_rows.find_newest_arrival(db)
    if weights is None:
        return [], ["there is no champion yet, so there is nothing to compare with"]
    if weights.snapshot_id is None:
        return [], [f"model v{weights.version} was imported: no training snapshot of it is known"]
    if newest is None:
        return [], []
    since = monday_of(week_of(newest)) - timedelta(weeks=WEEKS - 1)
    reference = drift_rows.list_training_figures(db, weights.snapshot_id)
    arrivals = drift_rows.list_arrivals(db, weights.weights_id, since=since)
    return list_weeks(reference, arrivals, limit=limit), _small_references(reference, arrivals)


def _current(db: Connection, weeks: Sequence[DriftWeek]) -> list[DriftWeek]:
    newest = drift_rows.find_newest_arrival(db)
    return list_current(weeks, newest) if newest else []


def _small_references(reference: Sequence[SceneFigures], arrivals: Sequence[SceneFigures]) -> list[str]:
    """Return a note for each sensor that arrives and that the champion has hardly been trained on."""
    counts = dict.fromkeys(sorted({scene.sensor for scene in arrivals}), 0)
    for scene in reference:
        if scene.sensor in counts:
            counts[scene.sensor] += 1
    return [
        f"{sensor} is not compared: the champion was trained on {count} scenes of it, {MIN_REFERENCE} are needed"
        for sensor, count in counts.items()
        if count < MIN_REFERENCE
    ]
