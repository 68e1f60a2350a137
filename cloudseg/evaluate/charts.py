"""Geometry of the report's charts: positions of lines, bars and ticks in an SVG, which the template draws."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

WIDTH: Final = 440
HEIGHT: Final = 250
_MOST_DIGITS: Final = 5
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 38


@dataclass(frozen=True)
class Tick:
    """A tick of an axis: its position in the SVG and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """A named polyline."""

    name: str
    color: int
    """Number of a color of the page's palette, 1 to 4."""
    points: str
    """SVG points."""
    dots: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """Everything that the template draws of a chart, in units of the SVG; (0, 0) is the top left corner."""

    title: str
    x_name: str
    y_name: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    bars: list[tuple[float, float, float, float]] = field(default_factory=list)
    """x, y, width, height of pale bars behind the lines."""
    marker: float | None = None
    """x of a vertical line."""
    marker_text: str = ""
    diagonal: str | None = None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


Series = tuple[str, int, Sequence[tuple[float, float]]]


def chart(
    title: str,
    x_name: str,
    y_name: str,
    series: Sequence[Series],
    *,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    marker: tuple[float, str] | None = None,
    bars: Sequence[tuple[float, float, float]] = (),
    diagonal: bool = False,
    dots: bool = False,
) -> Chart | None:
    """Return a chart, or None if no point is finite.

    Args:
        title: heading.
        x_name: what the x axis shows.
        y_name: what the y axis shows.
        series: name, color number and points of each line; points that are not finite are omitted.
        x_range: of the axis; None uses the points'.
        y_range: likewise.
        marker: x and text of a vertical line.
        bars: first x, last x and height as a share of the plot, drawn pale behind the lines.
        diagonal: draw y = x.
        dots: mark every point.
    """
    clean = [
        (name, color, [p for p in points if math.isfinite(p[0]) and math.isfinite(p[1])])
        for name, color, points in series
    ]
    everything = [point for _, _, points in clean for point in points]
    if not everything:
        return None
    xs = x_range or _range([x for x, _ in everything])
    ys = y_range or _range([y for _, y in everything])
    to_x, to_y = _scale(xs, _LEFT, WIDTH - _RIGHT), _scale(ys, HEIGHT - _BOTTOM, _TOP)

    def line(name: str, color: int, points: Sequence[tuple[float, float]]) -> Line:
        placed = [(to_x(x), to_y(min(max(y, ys[0]), ys[1]))) for x, y in points]
        return Line(name, color, " ".join(f"{x},{y}" for x, y in placed), placed if dots or len(placed) == 1 else [])

    def bar(first: float, last: float, share: float) -> tuple[float, float, float, float]:
        tall = round(share * (to_y(ys[0]) - to_y(ys[1])), 1)
        return to_x(first), round(to_y(ys[0]) - tall, 1), round(to_x(last) - to_x(first) - 1, 1), tall

    return Chart(
        title=title,
        x_name=x_name,
        y_name=y_name,
        lines=[line(*entry) for entry in clean if entry[2]],
        x_ticks=[Tick(to_x(value), text) for value, text in ticks(*xs)],
        y_ticks=[Tick(to_y(value), text) for value, text in ticks(*ys)],
        bars=[bar(*entry) for entry in bars],
        marker=to_x(marker[0]) if marker else None,
        marker_text=marker[1] if marker else "",
        diagonal=f"{to_x(xs[0])},{to_y(xs[0])} {to_x(xs[1])},{to_y(xs[1])}" if diagonal else None,
    )


def _scale(span: tuple[float, float], first: float, last: float) -> Callable[[float], float]:
    """Return the map from data to pixels along one axis."""
    low, high = span
    return lambda value: round(first + (value - low) / (high - low) * (last - first), 1)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of values with 5 % of margin, not below 0 where no value is."""
    low, high = min(values), max(values)
    if low == high:
        return low - 0.5, high + 0.5
    room = (high - low) * 0.05
    return (max(0.0, low - room) if low >= 0 else low - room), high + room


def ticks(low: float, high: float, about: int = 5) -> list[tuple[float, str]]:
    """Return ticks between low and high with their texts: steps of 1, 2 or 5 times a power of ten.

    After Heckbert (1990), "Nice numbers for graph labels", Graphics Gems.
    """
    raw = (high - low) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    if digits > _MOST_DIGITS:
        return [(n * step, f"{n * step:.0e}" if n else "0") for n in range(first, last + 1)]
    return [(n * step, f"{n * step:.{digits}f}") for n in range(first, last + 1)]
