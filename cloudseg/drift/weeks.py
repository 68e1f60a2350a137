"""The scenes of each week and sensor beside the training scenes of the same sensor."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final

import numpy as np

from cloudseg.catalog.drift_rows import SceneFigures
from cloudseg.drift.psi import LIMIT, count_in_bins, decile_edges, psi, psi_by_chance
from cloudseg.records import DriftMeasure, DriftWeek

MIN_SCENES: Final = 20
"""Scenes of a week below which nothing is said. With 20, a shift by one standard deviation is seen in a quarter of the
weeks, with 30 in more than two thirds, with 50 nearly always (docs/decisions/0037_drift.md)."""
MIN_REFERENCE: Final = 50
"""Training scenes below which nothing is said: five in each decile, from which on the chi-square distribution is a fair
approximation (Cochran 1954, Biometrics 10(4))."""
CURRENT_WEEKS: Final = 4
"""A week counts as current if it began within this many weeks before that of the newest scene."""
_MEASURES: Final[dict[DriftMeasure, Callable[[SceneFigures], float | None]]] = {
    "brightness": lambda scene: scene.reflectance,
    "cloud_fraction": lambda scene: scene.cloud_fraction,
}
NAMES: Final[dict[DriftMeasure, str]] = {
    "brightness": "brightness of the scenes",
    "cloud_fraction": "cloud fraction of the masks",
}


def week_of(moment: datetime) -> str:
    """Return the ISO week of a moment in UTC: '2026-W09'."""
    year, week, _ = moment.astimezone(UTC).isocalendar()
    return f"{year}-W{week:02d}"


def monday_of(week: str) -> datetime:
    """Return when an ISO week begins, in UTC."""
    return datetime.strptime(f"{week}-1", "%G-W%V-%u").replace(tzinfo=UTC)


def list_weeks(
    reference: Sequence[SceneFigures], arrivals: Iterable[SceneFigures], *, limit: float = LIMIT
) -> list[DriftWeek]:
    """Return every measure of every week and sensor, newest week first.

    Args:
        reference: the training scenes.
        arrivals: the scenes that were ingested.
        limit: PSI above which a week has drifted, if samples of these sizes do not reach it by chance.
    """

    def group_of(scene: SceneFigures) -> tuple[str, str]:
        return week_of(scene.created_at), scene.sensor

    found: list[DriftWeek] = []
    for (week, sensor), scenes in groupby(sorted(arrivals, key=group_of), key=group_of):
        listed = list(scenes)
        for measure, value_of in _MEASURES.items():
            values = [value for scene in listed if (value := value_of(scene)) is not None]
            trained = [value for s in reference if s.sensor == sensor and (value := value_of(s)) is not None]
            if values:
                found.append(_compare(week, sensor, measure, values, trained, limit))
    return sorted(sorted(found, key=lambda w: (w.sensor, w.measure)), key=lambda w: w.week, reverse=True)


def list_current(weeks: Iterable[DriftWeek], newest: datetime) -> list[DriftWeek]:
    """Return the newest week with a PSI of each sensor and measure, unless it is too old to count.

    Args:
        weeks: newest first, from `list_weeks`.
        newest: when the newest scene was ingested; not the time of the call, so that equal rows give equal answers.
    """
    first = monday_of(week_of(newest)) - timedelta(weeks=CURRENT_WEEKS - 1)
    current: dict[tuple[str, str], DriftWeek] = {}
    for week in weeks:
        if week.psi is not None and monday_of(week.week) >= first:
            current.setdefault((week.sensor, week.measure), week)
    return list(current.values())


def sentence_of(week: DriftWeek) -> str:
    """Return what drifted, in words."""
    if week.psi is None or week.psi_limit is None or week.reference_median is None:
        raise ValueError(f"{week.week} of {week.sensor} was not compared")
    direction = "higher" if week.median > week.reference_median else "lower"
    if week.median == week.reference_median:
        direction = "distributed otherwise"
    return (
        f"{NAMES[week.measure]} of {week.sensor} in {week.week} is {direction} than in training: median "
        f"{week.median:.2f}, in training {week.reference_median:.2f} (PSI {week.psi:.2f}, limit {week.psi_limit:.2f}, "
        f"{week.scenes} scenes)"
    )


def _compare(
    week: str, sensor: str, measure: DriftMeasure, values: list[float], trained: list[float], limit: float
) -> DriftWeek:
    low, median, high = (float(value) for value in np.quantile(values, (0.1, 0.5, 0.9)))
    band = [float(value) for value in np.quantile(trained, (0.1, 0.5, 0.9))] if trained else [None, None, None]
    index, index_limit = None, None
    if len(values) >= MIN_SCENES and len(trained) >= MIN_REFERENCE:
        edges = decile_edges(trained)
        expected, actual = count_in_bins(trained, edges), count_in_bins(values, edges)
        index, index_limit = psi(expected, actual), max(limit, psi_by_chance(expected, actual))
    return DriftWeek(
        week=week,
        sensor=sensor,
        measure=measure,
        scenes=len(values),
        median=median,
        low=low,
        high=high,
        reference_scenes=len(trained),
        reference_low=band[0],
        reference_median=band[1],
        reference_high=band[2],
        psi=index,
        psi_limit=index_limit,
        past=index is not None and index_limit is not None and index > index_limit,
    )
