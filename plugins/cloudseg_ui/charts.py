"""Static SVG of the pages, made on the server: coordinates here, elements in `templates/charts.html`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cloudseg.records import Epoch

WIDTH, HEIGHT = 720, 260
"""Of the chart of the models, in units of its viewBox."""
SMALL: Final = (360, 170)
"""Width and height of a chart of a training."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 40
"""Margins for the labels of the axes."""


@dataclass(frozen=True)
class Tick:
    """A labeled place on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Frame:
    """The rectangle of a chart with its axes."""

    width: int
    height: int
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]

    @property
    def left(self) -> int:
        """The y axis."""
        return _LEFT

    @property
    def right(self) -> int:
        """The right end of the x axis."""
        return self.width - _RIGHT

    @property
    def top(self) -> int:
        """The upper end of the y axis."""
        return _TOP

    @property
    def bottom(self) -> int:
        """The x axis."""
        return self.height - _BOTTOM


@dataclass(frozen=True)
class LineChart:
    """One line."""

    frame: Frame
    points: str
    """Of an SVG polyline."""
    last: tuple[float, float]
    newest: str
    """The newest value, as text."""


def line_chart(
    values: Sequence[tuple[float, float]], *, x_label: str, y_label: str, upper: float | None = None
) -> LineChart | None:
    """Return a chart of values over steps, None for fewer than two.

    Args:
        values: pairs of x and y, in order.
        x_label: of the axis.
        y_label: of the axis.
        upper: end of the y axis, which begins at 0; None: a little above the largest value.
    """
    if len(values) < 2:
        return None
    width, height = SMALL
    top = upper if upper is not None else max(y for _, y in values)
    x_ticks, x_of = _axis(0, max(x for x, _ in values), _LEFT, width - _RIGHT)
    y_ticks, y_of = _axis(0, max(top, 1e-9), height - _BOTTOM, _TOP)
    at = [(x_of(x), y_of(y)) for x, y in values]
    frame = Frame(width, height, x_label, y_label, x_ticks, y_ticks)
    return LineChart(frame, " ".join(f"{x:.1f},{y:.1f}" for x, y in at), at[-1], f"{values[-1][1]:.3f}")


def training_charts(epochs: Sequence[Epoch]) -> dict[str, LineChart | None]:
    """Return the charts of a training over its steps: `loss`, and `iou` on its validation chips."""

    def values(name: str) -> list[tuple[float, float]]:
        every = [(epoch.step, epoch.metrics.get(name)) for epoch in epochs]
        return [(step, value) for step, value in every if isinstance(value, int | float)]

    return {
        "loss": line_chart(values("train_loss"), x_label="step", y_label="loss"),
        "iou": line_chart(values("validation_iou"), x_label="step", y_label="IoU", upper=1.0),
    }


@dataclass(frozen=True)
class Night:
    """A model in the chart of the models."""

    weights_id: str
    version: int
    day: str
    iou: float
    lower: float | None
    upper: float | None
    recipe: str
    is_promoted: bool
    """Whether it became champion at any time."""


@dataclass(frozen=True)
class Dot:
    """Where a model is drawn."""

    night: Night
    x: float
    y: float
    low: float | None
    high: float | None
    new_recipe: bool
    """Whether its recipe is another one than that of the model before."""


@dataclass(frozen=True)
class NightsChart:
    """IoU of models in order of their versions, with intervals, and that of the champion as a band."""

    frame: Frame
    dots: list[Dot]
    band: tuple[float, float] | None
    """Upper and lower edge of the champion's interval."""
    line: float | None
    """The champion's IoU."""


def nights_chart(nights: Sequence[Night], champion: Night | None) -> NightsChart | None:
    """Return the chart of models, oldest first; None for none.

    Args:
        nights: the models that are drawn, in order of their versions.
        champion: its interval is drawn as a band although it may be older than all of them.
    """
    if not nights:
        return None
    shown = [*nights, *([champion] if champion else [])]
    edges = [v for n in shown for v in (n.iou, n.lower, n.upper) if v is not None]
    low, high = min(edges), max(edges)
    margin = max(0.01, (high - low) * 0.08)
    y_ticks, y_of = _axis(max(-1.0, low - margin), min(1.0, high + margin), HEIGHT - _BOTTOM, _TOP)
    step = (WIDTH - _LEFT - _RIGHT) / len(nights)
    dots = [
        Dot(
            night=night,
            x=round(_LEFT + (index + 0.5) * step, 1),
            y=y_of(night.iou),
            low=None if night.lower is None else y_of(night.lower),
            high=None if night.upper is None else y_of(night.upper),
            new_recipe=index > 0 and night.recipe != nights[index - 1].recipe,
        )
        for index, night in enumerate(nights)
    ]
    every = max(1, math.ceil(len(nights) / 12))
    x_ticks = [Tick(dot.x, f"v{dot.night.version}") for index, dot in enumerate(dots) if index % every == 0]
    band = None
    if champion is not None and champion.lower is not None and champion.upper is not None:
        band = (y_of(champion.upper), y_of(champion.lower))
    frame = Frame(WIDTH, HEIGHT, "model", "held-out IoU", x_ticks, y_ticks)
    return NightsChart(frame, dots, band, y_of(champion.iou) if champion else None)


def _axis(low: float, high: float, start: float, end: float) -> tuple[list[Tick], Callable[[float], float]]:
    """Return ticks at round values and the function from a value to its place.

    Args:
        low: value at the start.
        high: value at the end.
        start: coordinate of `low`.
        end: coordinate of `high`.
    """
    span = max(high - low, 1e-9)

    def place(value: float) -> float:
        return round(start + (value - low) / span * (end - start), 1)

    # The largest of 1, 2, 5 times a power of ten that gives at least three steps.
    power = 10.0 ** math.floor(math.log10(span / 3))
    step = next((factor * power for factor in (5, 2) if span / (factor * power) >= 3), power)
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    digits = max(0, -math.floor(math.log10(step)))
    return [Tick(place(index * step), f"{index * step:.{digits}f}") for index in range(first, last + 1)], place
