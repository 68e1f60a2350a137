"""The footprint of a scene: the outline of its valid pixels in lon/lat, right at the antimeridian and at the poles.

Geometries follow RFC 7946 section 3.1.9: what crosses 180° is cut there into parts of a MultiPolygon, with every
longitude in [-180, 180]. Why no library does it: docs/decisions/0027.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio._err import CPLE_BaseError
from rasterio.errors import CRSError
from rasterio.features import shapes
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points
from shapely.geometry import MultiPolygon, Polygon, box, shape
from shapely.geometry.base import BaseGeometry

from cloudseg.errors import BadScene
from cloudseg.raster.read import GDAL_ENV

OVERVIEW_SIZE: Final = 512
"""Longest side, in pixels, of the validity overview that a footprint is drawn from."""

_EDGE_PARTS: Final = 32
"""A straight edge in a projected CRS is a curve in lon/lat: it is cut into this many parts over the longer side."""

_MAX_EDGES: Final = 4_000
"""Pixel edges between valid and invalid beyond which the overview is halved.

A swath edge of a full overview has 1 000.
"""

_GRID: Final = 1e-9
"""Degrees, a tenth of a millimeter, to which coordinates are rounded: a shift by 360° would leave gaps otherwise."""

Bool = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]


def footprint_of(
    valid: Bool, transform: Affine, crs: str, *, extent: tuple[float, float] | None = None
) -> BaseGeometry:
    """Return the outline of the valid pixels as a (multi)polygon in lon/lat (EPSG:4326), cut at 180°.

    It is simplified by one overview pixel; for a full grid it is the four corners with densified edges.

    Args:
        valid: overview `(row, col)` of at most about `OVERVIEW_SIZE` pixels per side.
        transform: from pixels of the overview to `crs`.
        crs: what `rasterio.crs.CRS.from_user_input` takes.
        extent: height and width of the true grid in overview pixels, where the last row and column of the overview
            reach beyond it.

    Raises:
        BadScene: nothing is valid, or the coordinates are not on the Earth.
    """
    outline = _outline(valid, extent or valid.shape)
    if outline.is_empty:
        raise BadScene("no pixel is valid, so there is no footprint")
    dense = shapely.segmentize(outline, max(valid.shape) / _EDGE_PARTS)
    found = shapely.union_all([_to_lonlat(polygon, transform, crs) for polygon in _parts(dense)], grid_size=_GRID)
    # A ninth of a meter: what vertices of one straight edge differ by.
    footprint = shapely.simplify(shapely.orient_polygons(found), 1e-6)
    if footprint.is_empty:
        raise BadScene(
            "the footprint has no area on the ground", next_step="Check the geotransform and the CRS of the file."
        )
    return footprint


def footprint_bounds(geometry: BaseGeometry) -> tuple[float, float, float, float]:
    """Return (min_lon, min_lat, max_lon, max_lat); min_lon > max_lon if the footprint crosses the antimeridian."""
    min_lon, min_lat, max_lon, max_lat = geometry.bounds
    parts = sorted(part.bounds for part in _parts(geometry))
    whole = any(part[0] == -180 and part[2] == 180 for part in parts)
    if min_lon > -180 or max_lon < 180 or whole:
        return min_lon, min_lat, max_lon, max_lat
    # It touches 180° from both sides: the widest gap between its parts is what it does not cover.
    reach, gap, edges = parts[0][2], 0.0, (min_lon, max_lon)
    for west, _, east, _ in parts[1:]:
        if west - reach > gap:
            gap, edges = west - reach, (west, reach)
        reach = max(reach, east)
    return edges[0], min_lat, edges[1], max_lat


def polygons_to_lonlat(geometry: BaseGeometry, crs: str) -> BaseGeometry:
    """Return the polygons of a geometry of a CRS in lon/lat (EPSG:4326), cut at 180°.

    Straight edges stay straight between their vertices: `shapely.segmentize` a geometry with long ones first.

    Args:
        geometry: (multi)polygon in units of the CRS; longitudes beyond ±180 are folded.
        crs: what `rasterio.crs.CRS.from_user_input` takes.

    Raises:
        BadScene: the coordinates are not on the Earth.
    """
    return shapely.union_all(
        [_to_lonlat(polygon, Affine.identity(), crs) for polygon in _parts(geometry)], grid_size=_GRID
    )


def lonlat_of(points: Sequence[tuple[float, float]], crs: str) -> list[tuple[float, float]]:
    """Return lon/lat of points `(x, y)` of a CRS.

    Raises:
        BadScene: the CRS cannot project a point.
    """
    return [(float(lon), float(lat)) for lon, lat in _transform(np.array(points, np.float64), crs)]


def _outline(valid: Bool, extent: tuple[float, float]) -> BaseGeometry:
    """Return the outline of the valid pixels in overview pixels `(col, row)`."""
    if valid.all():
        return box(0, 0, extent[1], extent[0])
    height, width = valid.shape
    if min(height, width) > 1 and _is_speckled(valid):
        half: Bool = np.asarray(
            np.pad(valid, ((0, height % 2), (0, width % 2)))
            .reshape(-(-height // 2), 2, -(-width // 2), 2)
            .any(axis=(1, 3))
        )
        return shapely.transform(_outline(half, (extent[0] / 2, extent[1] / 2)), lambda points: points * 2)
    union = shapely.union_all([shape(geometry) for geometry, _ in shapes(valid.astype(np.uint8), mask=valid)])
    inside = union.intersection(box(0, 0, extent[1], extent[0]))
    return shapely.simplify(inside, 1.0)


def _is_speckled(valid: Bool) -> bool:
    """Return whether the outline would have too many vertices, as that of salt-and-pepper validity has."""
    edges = np.count_nonzero(valid[1:] != valid[:-1]) + np.count_nonzero(valid[:, 1:] != valid[:, :-1])
    return bool(edges > _MAX_EDGES)


def _to_lonlat(polygon: Polygon, transform: Affine, crs: str) -> BaseGeometry:
    """Return a polygon of pixel coordinates in lon/lat: the area of its shell minus that of its holes, cut at 180°.

    A hole may hold a pole too, so it cannot become an interior ring of the shell.
    """
    shell, *holes = (
        _enclosed(np.asarray(ring.coords), transform, crs) for ring in (polygon.exterior, *polygon.interiors)
    )
    return shapely.difference(shell, shapely.union_all(holes), grid_size=_GRID)


def _enclosed(pixels: Points, transform: Affine, crs: str) -> BaseGeometry:
    """Return the area within a ring of pixel coordinates, in lon/lat and cut at 180°."""
    ring, turns = _unwrapped(pixels, transform, crs)
    return _fold(shapely.make_valid(Polygon(_over_the_pole(ring, turns) if turns else ring)))


def _unwrapped(pixels: Points, transform: Affine, crs: str) -> tuple[Points, int]:
    """Return a ring in lon/lat whose longitudes run on beyond ±180, and its winding number about a pole (-1, 0, 1)."""
    x = transform.a * pixels[:, 0] + transform.b * pixels[:, 1] + transform.c
    y = transform.d * pixels[:, 0] + transform.e * pixels[:, 1] + transform.f
    ring = _transform(np.column_stack([x, y]), crs)
    ring[:, 0] = np.unwrap(ring[:, 0], period=360.0)
    return ring, round((ring[-1, 0] - ring[0, 0]) / 360)


def _over_the_pole(ring: Points, turns: int) -> Points:
    """Close a ring that runs once around a pole along the edge of the lon/lat plane that stands for the pole.

    The ring is left and entered at its vertex nearest to the pole: no other edge lies between that one and the pole.
    """
    pole = 90.0 if ring[:, 1].mean() > 0 else -90.0
    nearest = int(np.abs(ring[:, 1] - pole).argmin())
    ring = np.concatenate([ring[nearest:], ring[1 : nearest + 1] + np.array([360.0 * turns, 0.0])])
    return np.concatenate([ring, [[ring[-1, 0], pole], [ring[0, 0], pole]], ring[:1]])


def _transform(points: Points, crs: str) -> Points:
    """Return points `(n, 2)` of a CRS as lon/lat.

    Raises:
        BadScene: the points cannot be projected, or are not on the Earth.
    """
    try:
        with rasterio.Env(**GDAL_ENV):
            lon, lat = transform_points(crs, "EPSG:4326", points[:, 0].tolist(), points[:, 1].tolist())
    except (CRSError, rasterio.errors.RasterioError, CPLE_BaseError) as error:
        raise BadScene(
            "the CRS cannot be projected to lon/lat", found=error, next_step="Check the CRS of the file."
        ) from error
    found = np.column_stack([lon, lat]).astype(np.float64)
    if not np.isfinite(found).all() or np.abs(found[:, 1]).max() > 90 + 1e-6 or np.abs(found[:, 0]).max() > 540:
        raise BadScene(
            "the corners are not on the Earth",
            found=f"lon/lat {found[0].round(3).tolist()}",
            expected="-180..180, -90..90",
            next_step="Check the geotransform and the CRS of the file.",
        )
    found[:, 1] = np.clip(found[:, 1], -90, 90)
    return found


def _fold(geometry: BaseGeometry) -> BaseGeometry:
    """Shift longitudes beyond ±180 back into [-180, 180], cutting at 180°."""
    pieces: list[BaseGeometry] = []
    for shift in (-720.0, -360.0, 0.0, 360.0, 720.0):
        piece = geometry.intersection(box(-180 + shift, -90, 180 + shift, 90))
        pieces += [shapely.transform(part, lambda points, by=shift: points - [by, 0.0]) for part in _parts(piece)]
    return shapely.union_all(pieces, grid_size=_GRID)


def _parts(geometry: BaseGeometry) -> list[Any]:
    """Return the polygons of any geometry; lines and points that an intersection leaves are dropped."""
    if isinstance(geometry, Polygon):
        return [] if geometry.is_empty else [geometry]
    if isinstance(geometry, MultiPolygon) or hasattr(geometry, "geoms"):
        return [part for inner in geometry.geoms for part in _parts(inner)]
    return []
