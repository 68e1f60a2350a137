"""The grid of a composite: the pixels of most of its scenes where possible, so that they are copied, not resampled."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import Affine, from_origin
from shapely.geometry.base import BaseGeometry

from cloudseg.errors import BadScene, InputError
from cloudseg.gis.areas import Area, make_area, project
from cloudseg.gis.mask_of_scene import MaskOfScene

_MOST_PIXELS: Final = 1_000_000
"""Pixels of a side."""
_DIGITS: Final = 6
"""Digits of a pixel to which positions are rounded before they are compared."""


@dataclass(frozen=True)
class Grid:
    """Pixels of a projected CRS in meters, square and north up."""

    crs: CRS
    transform: Affine
    height: int
    width: int

    @property
    def resolution_m(self) -> float:
        """Side of a pixel in meters."""
        return float(self.transform.a)

    @property
    def bounds(self) -> BaseGeometry:
        """The rectangle of the grid in its CRS."""
        (west, north), (east, south) = self.transform @ (0, 0), self.transform @ (self.width, self.height)
        return shapely.box(west, south, east, north)

    def area(self) -> Area:
        """Return the rectangle of the grid as an area."""
        return make_area("grid", self.bounds, self.crs)


def choose_grid(
    masks: Sequence[MaskOfScene], areas: Sequence[Area], *, crs: str | None, resolution_m: float | None
) -> Grid:
    """Return the grid around areas.

    Args:
        masks: whose scenes are composed; at least one.
        areas: places to cover; the grid is their bounding rectangle, extended to whole pixels.
        crs: of the grid; None: the commonest of the scenes that is in meters, else the UTM zone of the center.
        resolution_m: side of a pixel; None: the commonest of the scenes in that CRS, else of all.

    Raises:
        InputError: the CRS is unknown or not in meters, or the grid is too large.
    """
    chosen = _parse_crs(crs) if crs is not None else _commonest_crs(masks) or _utm_zone(areas)
    same = [mask for mask in masks if CRS.from_user_input(mask.crs) == chosen]
    side = resolution_m or _commonest([round(_resolution(mask), _DIGITS) for mask in same or masks])
    origin = next((mask.transform for mask in same if _is_aligned(mask, side)), (side, 0.0, 0.0, 0.0, -side, 0.0))
    west, south, east, north = _bounds(areas, chosen)
    first_col, last_col = _whole(west - origin[2], side, math.floor), _whole(east - origin[2], side, math.ceil)
    first_row, last_row = _whole(south - origin[5], side, math.floor), _whole(north - origin[5], side, math.ceil)
    height, width = last_row - first_row, last_col - first_col
    if max(height, width) > _MOST_PIXELS:
        raise InputError(
            "the composite has too many pixels",
            subject="resolution_m",
            found=f"{height} x {width} pixels of {side:g} m",
            expected=f"at most {_MOST_PIXELS} along a side",
        )
    transform = from_origin(origin[2] + first_col * side, origin[5] + last_row * side, side, side)
    return Grid(chosen, transform, height, width)


def cover(areas: Sequence[Area], grid: Grid) -> BaseGeometry:
    """Return areas as one geometry in the CRS of a grid."""
    moved = [area.geometry if area.crs == grid.crs else project(area.lonlat, "EPSG:4326", grid.crs) for area in areas]
    return shapely.union_all(moved)


def is_same_grid(mask: MaskOfScene, grid: Grid) -> bool:
    """Return whether the pixels of a scene are pixels of the grid."""
    if CRS.from_user_input(mask.crs) != grid.crs or not _is_aligned(mask, grid.resolution_m):
        return False
    col, row = ~grid.transform @ (mask.transform[2], mask.transform[5])
    return bool(abs(col - round(col)) < 0.01 and abs(row - round(row)) < 0.01)


def _resolution(mask: MaskOfScene) -> float:
    return mask.resolution_m or abs(mask.transform[0])


def _is_aligned(mask: MaskOfScene, side: float) -> bool:
    """Return whether the pixels of a scene are north up with this side."""
    return np.allclose([*mask.transform[:2], *mask.transform[3:5]], (side, 0.0, 0.0, -side), rtol=0, atol=1e-6 * side)


def _whole(distance: float, side: float, rounded: object) -> int:
    """Return a distance in whole pixels; a rounding error does not add one."""
    pixels = round(distance / side, _DIGITS)
    return math.floor(pixels) if rounded is math.floor else math.ceil(pixels)


def _bounds(areas: Sequence[Area], crs: CRS) -> tuple[float, float, float, float]:
    moved = [area.geometry if area.crs == crs else project(area.lonlat, "EPSG:4326", crs) for area in areas]
    bounds = shapely.total_bounds(moved)
    if not np.isfinite(bounds).all():
        raise InputError(
            "the area cannot be projected to the CRS of the composite",
            subject="crs",
            found=crs.to_string(),
            next_step="Choose a CRS for this area with --crs.",
        )
    return float(bounds[0]), float(bounds[1]), float(bounds[2]), float(bounds[3])


def _parse_crs(text: str) -> CRS:
    try:
        found = CRS.from_user_input(text)
    except CRSError as error:
        raise InputError("unknown CRS", subject="crs", found=text, expected="EPSG:n or WKT") from error
    if not _is_metric(found):
        raise InputError(
            "the CRS is not in meters", subject="crs", found=text, expected="a projected CRS such as a UTM zone"
        )
    return found


def _is_metric(crs: CRS) -> bool:
    return bool(crs.is_projected) and crs.linear_units_factor[1] == 1.0


def _commonest_crs(masks: Sequence[MaskOfScene]) -> CRS | None:
    metric = [mask.crs for mask in masks if _is_metric(CRS.from_user_input(mask.crs))]
    return CRS.from_user_input(_commonest(metric)) if metric else None


def _commonest(values: Sequence[Any]) -> Any:
    """Return the commonest value; the smallest of those that are equally common."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))


def _utm_zone(areas: Sequence[Area]) -> CRS:
    """Return the UTM zone of WGS 84 (EPSG:326nn, 327nn) at the center of the largest part of the areas."""
    largest = max((part for area in areas for part in shapely.get_parts(area.lonlat)), key=shapely.area)
    center = largest.centroid
    zone = min(60, int((center.x + 180) // 6) + 1)
    try:
        return CRS.from_epsg((32600 if center.y >= 0 else 32700) + zone)
    except CRSError as error:
        raise BadScene("no UTM zone", found=center.wkt) from error
