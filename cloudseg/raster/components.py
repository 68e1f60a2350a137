"""Connected areas of a class in a raster of any size: drawn strip by strip, joined where strips meet.

Pixels are connected by their edges, not by their corners. Coordinates are pixels `(col, row)` of the whole raster and
therefore integers, so that joined polygons are exact.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.features import shapes
from rasterio.transform import Affine
from shapely.geometry import Polygon

from cloudseg.raster.ground import Ground

STRIP: Final = 512
"""Rows that are drawn at a time."""

UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
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
) -> Iterator[list[Component]]:
    """Yield the connected areas of a class, after each strip those that are complete with it.

    Memory: one strip and the areas that reach its lower border.

    Args:
        classes: `(row, col)`; may be a memory map, and strips that are done may change.
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
        found = [
            Component(area, [(top, polygon)] if area < limit else [])
            for area, polygon in zip(drawn.areas(area_of_column).tolist(), drawn.polygons, strict=True)
        ]
        _join(above, drawn.touches(top, found), limit)
        reached = [component for _, _, component in above] + found
        above = drawn.touches(bottom, found) if bottom < len(classes) else []
        unfinished = {component.root() for _, _, component in above}
        # A dictionary and not a set: the order of the output must not differ from run to run.
        roots = dict.fromkeys(component.root() for component in reached)
        yield [root for root in roots if root not in unfinished and root.area_m2 < limit]
        if advance is not None:
            advance(len(part))


def polygon_of(component: Component) -> Polygon:
    """Return the outline of a component with its holes, without vertices inside straight edges."""
    pieces = [piece for _, piece in component.pieces]
    if len(pieces) == 1:
        return pieces[0]
    whole = shapely.union_all(pieces)
    return Polygon(_corners(whole.exterior), [_corners(ring) for ring in whole.interiors])


@dataclass(frozen=True)
class _Drawn:
    """The areas of a strip as polygons, and their vertices in flat arrays: there may be 100 000 of them."""

    points: Floats
    """`(n, 2)`: column, row."""
    ring: Ints
    """Of each point; points of a ring follow each other."""
    owner: Ints
    """Polygon of each ring; the first ring of a polygon is its shell."""

    @cached_property
    def polygons(self) -> npt.NDArray[Any]:
        """The polygons, `(n,)`."""
        if not len(self.owner):
            return np.empty(0, object)
        rings = shapely.linearrings(self.points, indices=self.ring)
        return np.atleast_1d(shapely.polygons(rings, indices=self.owner))

    @cached_property
    def _inner(self) -> npt.NDArray[np.bool_]:
        """Whether a point and the next one are of the same ring."""
        same: npt.NDArray[np.bool_] = self.ring[:-1] == self.ring[1:]
        return same

    def areas(self, area_of_column: Floats) -> Floats:
        """Return the area of each polygon, in square meters.

        Green's theorem: only horizontal edges count, each with its width times the area of a column above it.
        """
        if not len(self.owner):
            return np.empty(0)
        rows = np.rint(self.points[:-1, 1]).astype(np.int64)
        edges = np.where(self._inner, np.diff(self.points[:, 0]) * area_of_column[rows], 0.0)
        of_rings = np.abs(np.bincount(self.ring[:-1], edges, minlength=len(self.owner)))
        is_shell = np.diff(self.owner, prepend=-1) != 0
        return np.bincount(self.owner, np.where(is_shell, of_rings, -of_rings)).astype(np.float64)

    def touches(self, row: int, components: list[Component]) -> list[Touch]:
        """Return the stretches of a horizontal line that outlines run along, from left to right.

        Holes do not reach the border of a strip.
        """
        on_line = self.points[:, 1] == row
        along = np.flatnonzero(on_line[:-1] & on_line[1:] & self._inner)
        ends = np.sort(np.column_stack([self.points[along, 0], self.points[along + 1, 0]]), axis=1)
        owners = self.owner[self.ring[along]]
        order = np.argsort(ends[:, 0])
        return [
            (start, end, components[owner])
            for (start, end), owner in zip(ends[order].tolist(), owners[order].tolist(), strict=True)
        ]


def _draw(part: UInt8, value: int, top: int) -> _Drawn:
    wanted = part == value
    points: list[tuple[float, float]] = []
    lengths: list[int] = []
    counts: list[int] = []
    if wanted.any():
        for geometry, _ in shapes(part, mask=wanted, connectivity=4, transform=Affine.translation(0, top)):
            rings = geometry["coordinates"]
            counts.append(len(rings))
            for ring in rings:
                lengths.append(len(ring))
                points += ring
    return _Drawn(
        np.array(points, np.float64).reshape(-1, 2),
        np.repeat(np.arange(len(lengths)), lengths),
        np.repeat(np.arange(len(counts)), counts),
    )


def paint(classes: UInt8, polygons: Sequence[Polygon], value: int) -> None:
    """Set the class of the pixels inside polygons of pixel edges.

    Args:
        classes: `(row, col)`, is changed.
        polygons: that do not overlap.
        value: the class.
    """
    top, left, inside = _pixels_inside(polygons)
    classes[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = value


def touches(classes: UInt8, polygon: Polygon, value: int) -> bool:
    """Return whether a pixel of a class lies beside a polygon of pixel edges: above, below, left or right.

    Args:
        classes: `(row, col)`.
        polygon: without pixels of that class.
        value: the class.
    """
    top, left, inside = _pixels_inside([polygon])
    above, before = min(1, top), min(1, left)  # 0 at the border of the raster
    around = classes[top - above : top + inside.shape[0] + 1, left - before : left + inside.shape[1] + 1] == value
    area = np.zeros(around.shape, np.bool_)
    area[above : above + inside.shape[0], before : before + inside.shape[1]] = inside
    return bool(
        (area[1:] & around[:-1]).any()
        or (area[:-1] & around[1:]).any()
        or (area[:, 1:] & around[:, :-1]).any()
        or (area[:, :-1] & around[:, 1:]).any()
    )


def _pixels_inside(polygons: Sequence[Polygon]) -> tuple[int, int, npt.NDArray[np.bool_]]:
    """Return the first row and column of polygons, and which pixels from there on are inside, `(row, col)`.

    A pixel is inside where an odd number of vertical edges lies to its left.
    """
    rings = shapely.get_rings(polygons)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    points = np.rint(points).astype(np.int64)
    start, end = points[:-1], points[1:]
    upright = (ring[:-1] == ring[1:]) & (start[:, 0] == end[:, 0])
    col = start[upright, 0]
    first, last = (choose(start[upright, 1], end[upright, 1]) for choose in (np.minimum, np.maximum))
    top, bottom, left, right = first.min(), last.max(), col.min(), col.max()
    edges = np.zeros((bottom - top, right - left + 1), np.uint8)
    length = last - first
    step = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    np.add.at(edges, (np.repeat(first - top, length) + step, np.repeat(col - left, length)), 1)
    inside: npt.NDArray[np.bool_] = np.cumsum(edges, axis=1, dtype=np.uint8)[:, :-1] % 2 == 1
    return int(top), int(left), inside


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
