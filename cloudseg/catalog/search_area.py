"""Areas to search in: boxes and GeoJSON geometries, as shapes in longitude and latitude within [-180, 180]."""

from collections.abc import Sequence
from typing import Any, Final

import shapely
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from cloudseg.errors import InputError

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees; west <= east."""
MAX_VERTICES: Final = 5_000
"""Vertices of a geometry to search by."""


def area_of_box(box: Sequence[float]) -> BaseGeometry:
    """Return a box `(west, south, east, north)` as a geometry; west > east crosses the antimeridian.

    Six numbers are a box with heights, which are ignored (RFC 7946 section 5).

    Raises:
        InputError: the numbers are not a box on the Earth.
    """
    numbers = [float(value) for value in box]
    if len(numbers) == 6:
        numbers = [numbers[0], numbers[1], numbers[3], numbers[4]]
    west, south, east, north = numbers if len(numbers) == 4 else (0.0, 1.0, 0.0, 0.0)
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise InputError(
            "not a box on the Earth",
            subject="bbox",
            found=", ".join(map(str, box))[:120],
            expected="west, south, east, north in degrees, south <= north",
        )
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.MultiPolygon([shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)])


def area_of_geometry(values: Any, subject: str) -> BaseGeometry:
    """Return a GeoJSON geometry as a shape without heights.

    Args:
        values: the geometry, as parsed JSON.
        subject: the parameter that it is from, for the error.

    Raises:
        InputError: it is no valid geometry on the Earth, or has more than `MAX_VERTICES` vertices.
    """
    try:
        area = shape(values)
        west, south, east, north = area.bounds
        if not area.is_valid or area.is_empty or not (west >= -180 and south >= -90 and east <= 180 and north <= 90):
            raise ValueError("empty, invalid or not on the Earth")
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        OverflowError,
        RecursionError,
        ShapelyError,
    ) as error:
        raise InputError(
            "not a GeoJSON geometry",
            subject=subject,
            found=str(error)[:100],
            expected="a valid geometry in lon/lat, cut at 180° where it crosses the antimeridian (RFC 7946)",
        ) from error
    check_vertices(shapely.get_num_coordinates(area), subject)
    return shapely.force_2d(area)


def check_vertices(count: int, subject: str) -> None:
    """Check that an area can be compared with every footprint of a page.

    Raises:
        InputError: it has too many vertices.
    """
    if count > MAX_VERTICES:
        raise InputError(
            "the geometry is too detailed",
            subject=subject,
            found=f"{count} vertices",
            expected=f"at most {MAX_VERTICES}",
            next_step="Simplify it.",
        )


def boxes_of(area: BaseGeometry) -> list[Box]:
    """Return the bounds of the parts of an area, or one box where there are many."""
    parts = list(getattr(area, "geoms", [area]))
    return [tuple(part.bounds) for part in (parts if len(parts) <= 4 else [area]) if not part.is_empty]
