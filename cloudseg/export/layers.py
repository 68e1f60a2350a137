"""Layers of polygons: the clouds of masks, and the footprints of masks with the addresses of their files."""

from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import chain
from typing import Any, Final

import numpy as np
import shapely
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from cloudseg.bands import MASK_CLOUD
from cloudseg.catalog.mask_query import Found
from cloudseg.export.vector_file import LONLAT, Column
from cloudseg.export.work import CleanedMask
from cloudseg.raster.components import Advance, iter_components, polygon_of
from cloudseg.raster.footprint import polygons_to_lonlat

CLOUDS: Final = "clouds"
FOOTPRINTS: Final = "masks"
_LONGEST_EDGE: Final = 32
"""Pixels. A straight edge of a projection is a curve in lon/lat: of length L it departs from the chord by about
`L² tan(lat) / 8R`, for 32 pixels of 10 m 0.002 m at 45 degrees, a hundredth of a percent of a pixel."""
_HALF_TURN: Final = 180.0

_OF_MASK: Final = (
    Column("mask_id", str),
    Column("scene_id", str),
    Column("scene_name", str),
    Column("acquired_at", datetime),
    Column("model_version", int),
    Column("threshold", float),
)
CLOUD_COLUMNS: Final = (*_OF_MASK, Column("area_m2", float))
FOOTPRINT_COLUMNS: Final = (
    *_OF_MASK,
    Column("weights_id", str),
    Column("sensor", str),
    Column("place", str),
    Column("cloud_fraction", float),
    Column("valid_fraction", float),
    Column("mask", str),
    Column("probability", str),
    Column("thumbnail", str),
    Column("item", str),
    Column("image", str),
)


def iter_clouds(mask: CleanedMask, *, lonlat: bool, advance: Advance) -> Iterator[tuple[BaseGeometry, tuple[Any, ...]]]:
    """Yield the clouds of a mask with the values of `CLOUD_COLUMNS`; holes are kept, shells run counterclockwise.

    Args:
        mask: after cleaning.
        lonlat: polygons in lon/lat, cut at 180°; otherwise in the CRS of the scene.
        advance: called with the number of rows that are done.
    """
    threshold = float(mask.tags["CLOUDSEG_THRESHOLD"])
    facts = (*_identity(mask.mask.mask_id, mask), threshold)
    drawn = iter_components(mask.classes, MASK_CLOUD, mask.ground, advance=advance)
    for component in chain.from_iterable(drawn):
        polygon = polygon_of(component)
        placed = _lonlat(polygon, mask) if lonlat else _affine(polygon, mask.transform)
        yield shapely.orient_polygons(placed), (*facts, round(component.area_m2, 3))


def check_on_earth(mask: CleanedMask) -> None:
    """Raise BadScene if the edges of a mask have no lon/lat, before the first of its clouds is written."""
    height, width = mask.classes.shape
    edges = shapely.segmentize(shapely.box(0, 0, width, height), max(height, width) / _LONGEST_EDGE)
    polygons_to_lonlat(_affine(edges, mask.transform), mask.crs)


def footprint_row(found: Found, address: Callable[[str], str]) -> tuple[BaseGeometry, tuple[Any, ...]] | None:
    """Return the footprint of a mask with the values of `FOOTPRINT_COLUMNS`, None if its scene has no footprint.

    Args:
        found: the mask with its scene and weights.
        address: returns the address of a stored object by its key.
    """
    mask, scene, weights = found.mask, found.scene, found.weights
    if mask is None or weights is None or scene.footprint_wkb is None:
        return None
    files = {name: address(stored["key"]) for name, stored in mask.companions.items()}
    return shapely.from_wkb(scene.footprint_wkb), (
        mask.mask_id,
        scene.scene_id,
        scene.name,
        scene.acquired_at,
        weights.version,
        mask.threshold,
        weights.weights_id,
        scene.sensor,
        scene.place,
        mask.cloud_fraction,
        mask.valid_fraction,
        address(mask.key),
        *(files.get(name) for name in ("probability", "thumbnail", "item")),
        address(scene.key),
    )


def _identity(mask_id: str, mask: CleanedMask) -> tuple[Any, ...]:
    scene = mask.scene
    return mask_id, scene.scene_id, scene.name, scene.acquired_at, mask.weights.version


def _affine(geometry: BaseGeometry, transform: Affine) -> BaseGeometry:
    def placed(points: Any) -> Any:
        col, row = points[:, 0], points[:, 1]
        return np.column_stack(
            [
                transform.a * col + transform.b * row + transform.c,
                transform.d * col + transform.e * row + transform.f,
            ]
        )

    return shapely.transform(geometry, placed)


def _lonlat(polygon: Polygon, mask: CleanedMask) -> BaseGeometry:
    """Return a polygon of pixels in lon/lat.

    One that spans 180 degrees crosses the antimeridian or holds a pole, and needs more care than vertices.
    """
    placed = _affine(shapely.segmentize(polygon, _LONGEST_EDGE), mask.transform)

    def projected(points: Any) -> Any:
        return np.column_stack(transform_points(mask.crs, LONLAT, points[:, 0].tolist(), points[:, 1].tolist()))

    simple = shapely.transform(placed, projected)
    west, _, east, _ = simple.bounds
    beyond = west < -_HALF_TURN or east > _HALF_TURN
    if east - west >= _HALF_TURN or beyond or not simple.is_valid:
        return polygons_to_lonlat(placed, mask.crs)
    return simple
