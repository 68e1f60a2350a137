"""The page of drift: how the scenes and masks of each week differ from the training scenes. It measures nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cloudseg_ui.shell import Render, Values
from fastapi import FastAPI, Request, Response

from cloudseg.drift.psi import LIMIT, LITTLE
from cloudseg.drift.report import WEEKS, drift_report
from cloudseg.drift.weeks import MIN_REFERENCE, MIN_SCENES, NAMES, monday_of
from cloudseg.records import DriftWeek
from cloudseg.runtime import Runtime

_WIDTH: Final = 640
_HEIGHT: Final = 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 12, 24
_ROWS: Final = 60
"""Rows of the table."""


@dataclass(frozen=True)
class Dot:
    """A week of a chart."""

    x: float
    y: float
    low: float
    high: float
    past: bool
    title: str


@dataclass(frozen=True)
class Chart:
    """One sensor and measure over the weeks: the band of the training scenes, a dot and a bar for each week."""

    title: str
    dots: list[Dot]
    line: str
    """Points of the polyline through the medians."""
    band: tuple[float, float] | None
    """Upper edge and height of the 10th to 90th percentile of the training scenes."""
    ticks: list[tuple[float, str]]
    """Height and text of the values beside the axis."""
    weeks: list[tuple[float, str]]
    """Position and text of the weeks below the axis."""
    words: str
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    bottom: int = _HEIGHT - _BOTTOM


def drift(runtime: Runtime) -> Values:
    """Return the report and its charts."""
    with runtime.catalog.read() as db:
        report = drift_report(db)
    series: dict[tuple[str, str], list[DriftWeek]] = {}
    for week in reversed(report.weeks):
        series.setdefault((week.sensor, week.measure), []).append(week)
    return {
        "report": report,
        "charts": [draw(weeks) for _, weeks in sorted(series.items())],
        "rows": report.weeks[:_ROWS],
        "left_out": max(0, len(report.weeks) - _ROWS),
        "names": NAMES,
        "limits": {
            "little": LITTLE,
            "limit": LIMIT,
            "scenes": MIN_SCENES,
            "reference": MIN_REFERENCE,
            "weeks": WEEKS,
        },
    }


def draw(weeks: Sequence[DriftWeek]) -> Chart:
    """Return the chart of one sensor and measure.

    Args:
        weeks: oldest first, at least one.
    """
    newest = weeks[-1]
    values = [value for w in weeks for value in (w.low, w.high, w.reference_low, w.reference_high) if value is not None]
    top = max(1.0 if newest.measure == "cloud_fraction" else 0.0, *values) or 1.0
    first = monday_of(weeks[0].week)
    span = max(1, (monday_of(newest.week) - first).days // 7)

    def across(week: DriftWeek) -> float:
        return round(_LEFT + 8 + (_WIDTH - _LEFT - _RIGHT - 16) * ((monday_of(week.week) - first).days // 7) / span, 1)

    def up(value: float) -> float:
        return round(_TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - value / top), 1)

    dots = [Dot(across(w), up(w.median), up(w.low), up(w.high), w.past, _words(w)) for w in weeks]
    band = None
    if newest.reference_low is not None and newest.reference_high is not None:
        band = (up(newest.reference_high), round(max(1.0, up(newest.reference_low) - up(newest.reference_high)), 1))
    shown = {0, len(weeks) - 1} if len(weeks) < 5 else {0, len(weeks) // 2, len(weeks) - 1}
    past = [w.week for w in weeks if w.past]
    words = f"past the limit in {', '.join(past)}" if past else "no week is past its limit"
    return Chart(
        title=f"{NAMES[newest.measure]}: {newest.sensor}",
        dots=dots,
        line=" ".join(f"{dot.x},{dot.y}" for dot in dots),
        band=band,
        ticks=[(up(value), f"{value:.2f}") for value in (0.0, top / 2, top)],
        weeks=[(dots[index].x, weeks[index].week) for index in sorted(shown)],
        words=words,
    )


def _words(week: DriftWeek) -> str:
    index = "too few scenes to compare" if week.psi is None else f"PSI {week.psi:.2f}, limit {week.psi_limit:.2f}"
    return f"{week.week}: median {week.median:.2f} of {week.scenes} scenes; {index}"


def add_drift(app: FastAPI, runtime: Callable[[], Runtime], render: Render) -> None:
    """Add the page to an app that has the login as a dependency of every route."""

    @app.get("/drift")
    def drift_page(request: Request) -> Response:
        return render(request, "drift.html", drift(runtime()))
