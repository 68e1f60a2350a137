"""Connected areas of a class in a raster of any size: drawn strip by strip, joined where strips meet.

Pixels are connected by their edges, not by their corners. Coordinates are pixels `(col, row)` of the whole raster and
therefore integers, so that joined polygons are exact.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.features import shapes
from rasterio.transform import Affine
from shapely.geometry import Polygon, shape

from cloudseg.export.ground import Ground

STRIP: Final = 512
"""Rows that are drawn at a time."""

UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Advance = Callable[[int], None]
"""Called with the number of rows that are done."""


@dataclass(eq=False)
class Component:
    """A connected area, or what is known of it so far."""

    area_m2: float
    pieces: list[tuple[int, Polygon]]
    """First row of the strip, and the part of the area in that strip; empty once it is known to be too large."""
    joined_to: "Component | None" = field(default=None, repr=False)

    def root(self) -> "Component":
        """Return the component that this one was joined to, at the end of the chain."""
        found = self
        while found.joined_to is not None:
            if found.joined_to.joined_to is not None:  # shortens the chain for the next call
                found.joined_to = found.joined_to.joined_to
            found = found.joined_to
        return found


Touch = tuple[float, float, Component]
"""First and last column edge of a stretch of a strip's border, and what lies there."""


def iter_components(
    classes: UInt8,
    value: int,
    ground: Ground,
    *,
    below_m2: float | None = None,
    strip: int = STRIP,
    advance: Advance | None = None,
) -> Iterator[Component]:
    """Yield the connected areas of a class, each as soon as the strips are read that hold it.

    Memory: one strip and the areas that reach its lower border.

    Args:
        classes: `(row, col)`; may be a memory map.
        value: of the class.
        ground: sizes of the pixels.
        below_m2: yield the areas that are smaller only; nothing is kept of the others.
        strip: rows that are drawn at a time.
        advance: called after every strip.
    """
    area_of_column = ground.column_area_m2
    # A billionth absorbs the rounding error of a sum of pixels that is just the limit.
    limit = np.inf if below_m2 is None else below_m2 * (1 - 1e-9)
    above: list[Touch] = []
    for top in range(0, len(classes), strip):
        part = np.ascontiguousarray(classes[top : top + strip])
        bottom = top + len(part)
        drawn = _draw(part, value, top)
        found = [_component(polygon, top, area_of_column, limit) for polygon in drawn]
        _join(above, _touches(drawn, found, top), limit)
        reached = [component for _, _, component in above] + found
        above = _touches(drawn, found, bottom) if bottom < len(classes) else []
        unfinished = {component.root() for _, _, component in above}
        # A dictionary and not a set: the order of the output must not differ from run to run.
        for component in dict.fromkeys(component.root() for component in reached):
            if component not in unfinished and component.area_m2 < limit:
                yield component
        if advance is not None:
            advance(len(part))


def polygon_of(component: Component) -> Polygon:
    """Return the outline of a component with its holes, without vertices inside straight edges."""
    pieces = [piece for _, piece in component.pieces]
    if len(pieces) == 1:
        return pieces[0]
    whole = shapely.union_all(pieces)
    return Polygon(_corners(whole.exterior), [_corners(ring) for ring in whole.interiors])


def _draw(part: UInt8, value: int, top: int) -> list[Polygon]:
    wanted = part == value
    if not wanted.any():
        return []
    drawn = shapes(part, mask=wanted, connectivity=4, transform=Affine.translation(0, top))
    return [shape(geometry) for geometry, _ in drawn]


def _component(polygon: Polygon, top: int, area_of_column: Floats, limit: float) -> Component:
    area_m2 = _area(polygon, area_of_column)
    return Component(area_m2, [(top, polygon)] if area_m2 < limit else [])


def _area(polygon: Polygon, area_of_column: Floats) -> float:
    """Return the area of a polygon of pixel edges, in square meters.

    Green's theorem: only horizontal edges count, each with its width times the area of a column above it.
    """
    rings = [_ring_area(ring, area_of_column) for ring in (polygon.exterior, *polygon.interiors)]
    return rings[0] - sum(rings[1:])


def _ring_area(ring: Any, area_of_column: Floats) -> float:
    points = shapely.get_coordinates(ring)
    rows = np.rint(points[:-1, 1]).astype(np.int64)
    return abs(float(np.sum(np.diff(points[:, 0]) * area_of_column[rows])))


def _touches(polygons: list[Polygon], components: list[Component], row: int) -> list[Touch]:
    """Return the stretches of a horizontal line that outlines run along, from left to right.

    Holes do not reach the border of a strip.
    """
    if not polygons:
        return []
    bounds = shapely.bounds(polygons)
    found: list[Touch] = []
    for index in np.flatnonzero((bounds[:, 1] == row) | (bounds[:, 3] == row)):
        points = shapely.get_coordinates(polygons[index].exterior)
        along = (points[:-1, 1] == row) & (points[1:, 1] == row)
        ends = np.sort(np.column_stack([points[:-1, 0], points[1:, 0]])[along], axis=1)
        found += [(float(start), float(end), components[index]) for start, end in ends]
    return sorted(found, key=lambda touch: touch[0])


def _join(above: list[Touch], below: list[Touch], limit: float) -> None:
    """Join the components whose stretches of the common border overlap."""
    upper, lower = 0, 0
    while upper < len(above) and lower < len(below):
        (start, end, one), (begin, stop, other) = above[upper], below[lower]
        if min(end, stop) > max(start, begin):
            _unite(one.root(), other.root(), limit)
        if end <= stop:
            upper += 1
        else:
            lower += 1


def _unite(one: Component, other: Component, limit: float) -> None:
    if one is other:
        return
    one.area_m2 += other.area_m2
    # Of what is too large to be wanted nothing is kept.
    one.pieces = [*one.pieces, *other.pieces] if one.area_m2 < limit else []
    other.pieces, other.joined_to = [], one


def _corners(ring: Any) -> Floats:
    """Return the vertices of a ring of horizontal and vertical edges at which it turns."""
    points = shapely.get_coordinates(ring)[:-1]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0] != 0
    return np.asarray(points[turns])
