"""Georeference of a raster: check CRS and transform, warp rasters that are not north-up.

Runs in the sandboxed decoder process.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import rasterio
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine, from_gcps
from rasterio.vrt import WarpedVRT

from cloudseg.errors import BadScene
from cloudseg.grid import meters_per_degree
from cloudseg.raster.footprint import lonlat_of

_PIXEL_TOLERANCE: Final = 0.01
"""Grids whose corners differ by less than this fraction of a pixel are equal; GeoTIFF keys are rounded."""
_RESOLUTION_M: Final = (0.1, 5_000.0)
"""Range of pixel sizes that are accepted. Landsat quick looks have 900 m."""
_MAX_GCP_RESIDUAL: Final = 1.0
"""Pixels."""
_MIN_GCPS: Final = 4
"""An affine transform has six parameters: three points always fit."""
_MAX_ASPECT: Final = 20.0
"""Longest over shortest side of a pixel; degrees at 85° of latitude make 11."""


@dataclass(frozen=True)
class Grid:
    """CRS, affine transform and size of a north-up raster."""

    crs: CRS | None
    transform: Affine
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def crs_text(self) -> str | None:
        """Return 'EPSG:n' if that is equivalent, else WKT; None without CRS."""
        return self._crs_text

    @cached_property
    def _crs_text(self) -> str | None:
        if self.crs is None:
            return None
        epsg = self.crs.to_epsg()
        return f"EPSG:{epsg}" if epsg and CRS.from_epsg(epsg) == self.crs else str(self.crs.to_wkt())

    def center(self) -> tuple[float, float]:
        """Return longitude and latitude of the center.

        Raises:
            BadScene: The center is not on the Earth.
        """
        return self._around_center[0]

    def resolution_m(self) -> float | None:
        """Return the ground size of the pixel at the center in meters, mean of both axes; None without CRS.

        Raises:
            BadScene: The size is impossible or the pixel is far from square.
        """
        return self._resolution_m

    @cached_property
    def _resolution_m(self) -> float | None:
        if self.crs is None:
            return None
        center, right, below = self._around_center
        sides = [_distance_m(center, right), _distance_m(center, below)]
        size = float(sum(sides) / 2)
        if not all(math.isfinite(side) for side in sides) or not _RESOLUTION_M[0] <= size <= _RESOLUTION_M[1]:
            raise BadScene(
                "the pixel size is not plausible for this CRS",
                found=f"{size:g} m",
                expected=f"{_RESOLUTION_M[0]} to {_RESOLUTION_M[1]} m",
                next_step="Check the geotransform and the CRS: meters and degrees may be mixed up.",
            )
        if max(sides) > _MAX_ASPECT * min(sides):
            raise BadScene(
                "the pixels are far from square",
                found=f"{sides[0]:g} x {sides[1]:g} m",
                expected=f"sides that differ at most by a factor of {_MAX_ASPECT:g}",
            )
        # The sphere has an error of up to 0.3 %: if the CRS is in meters, its own value is better.
        projected_m = self._projected_m()
        return projected_m if projected_m and abs(projected_m - size) < 0.05 * size else size

    def _projected_m(self) -> float | None:
        """Return the pixel size in meters of the CRS; None if it is not projected."""
        if self.crs is None or not self.crs.is_projected:
            return None
        return float(self.crs.linear_units_factor[1] * (abs(self.transform.a) + abs(self.transform.e)) / 2)

    @cached_property
    def _around_center(self) -> list[tuple[float, float]]:
        """Longitude and latitude of the center, and of the points one pixel to the right and one below."""
        col, row = self.width / 2, self.height / 2
        pixels = ((col, row), (col + 1, row), (col, row + 1))
        points = [(self.transform.a * x + self.transform.c, self.transform.e * y + self.transform.f) for x, y in pixels]
        return lonlat_of(points, str(self.crs_text()))


def to_north_up(
    dataset: rasterio.DatasetReader,
    display_name: str,
    *,
    needs_georeference: bool,
    max_pixels: int,
    nodata: float | None = None,
    georeference_beside: str = "",
) -> tuple[Any, Grid, str | None]:
    """Return a raster on a north-up grid. The georeference is read from the file only, never from sidecar files.

    Args:
        dataset: The open raster.
        display_name: Its name, for messages.
        needs_georeference: False: accept a raster without CRS, on the grid of its own pixels.
        max_pixels: Largest size after warping.
        nodata: Value of pixels without data, where it is stated beside the file.
        georeference_beside: Names of files beside it that may hold a georeference, for messages.

    Returns:
        The dataset or a warped VRT, its grid, and how it was warped (None: not at all).

    Raises:
        BadScene: The georeference is missing, not finite, degenerate or not on the Earth.
    """
    points, points_crs = dataset.gcps
    if dataset.crs is None and points and points_crs:
        return _warp_by_gcps(dataset, display_name, points, points_crs, max_pixels, nodata)
    if dataset.crs is None:
        if needs_georeference:
            raise _no_crs(display_name, bool(points), georeference_beside)
        return dataset, Grid(None, Affine.identity(), dataset.height, dataset.width), None
    transform = _check_transform(dataset.transform, display_name)
    grid, how = _north_up(dataset, transform)
    grid.resolution_m()
    if how is None:
        return dataset, grid, None
    if grid.height * grid.width > max_pixels:
        raise BadScene(
            "warped north-up, the raster is larger than allowed",
            subject=display_name,
            found=f"{grid.height} x {grid.width} pixels",
            expected=f"at most {max_pixels} pixels",
        )
    return to_grid(dataset, grid, Resampling.nearest, nodata), grid, how


def same_grid(one: Grid, other: Grid) -> bool:
    """Return whether two grids have the same shape and CRS, and corners within a hundredth of a pixel."""
    if one.shape != other.shape or one.crs != other.crs:
        return False
    tolerance = _PIXEL_TOLERANCE * min(abs(one.transform.a), abs(one.transform.e))
    return all(abs(a - b) <= tolerance for a, b in zip(_bounds(one), _bounds(other), strict=True))


def same_extent(fine: Grid, coarse: Grid) -> bool:
    """Return whether two grids of different resolution cover the same extent, within half a pixel of the coarse one."""
    if fine.crs is None or fine.crs != coarse.crs:
        return False
    tolerance = max(abs(coarse.transform.a), abs(coarse.transform.e)) / 2
    return all(abs(a - b) <= tolerance for a, b in zip(_bounds(fine), _bounds(coarse), strict=True))


def to_grid(dataset: Any, grid: Grid, resampling: Resampling, nodata: float | None = None) -> Any:
    """Return a warped VRT of a raster on another grid. Pixels outside of the raster are transparent or nodata.

    Args:
        dataset: The raster.
        grid: The grid.
        resampling: How its pixels are found.
        nodata: Value of pixels without data, where it is stated beside the file.
    """
    return _warped(dataset, grid, resampling, dataset.crs, dataset.transform, nodata)


def _warped(dataset: Any, grid: Grid, resampling: Resampling, crs: CRS, transform: Affine, nodata: float | None) -> Any:
    extra: dict[str, Any] = {}
    if nodata is not None:
        extra = {"src_nodata": nodata, "nodata": nodata}
    elif dataset.nodata is None and not _has_alpha(dataset):
        extra = {"add_alpha": True}
    return WarpedVRT(
        dataset,
        src_crs=crs,
        src_transform=transform,
        crs=grid.crs,
        transform=grid.transform,
        height=grid.height,
        width=grid.width,
        resampling=resampling,
        **extra,
    )


def _has_alpha(dataset: Any) -> bool:
    return any(interpretation.name == "alpha" for interpretation in dataset.colorinterp)


def _north_up(dataset: rasterio.DatasetReader, transform: Affine) -> tuple[Grid, str | None]:
    """Return the north-up grid of a raster and how it must be warped to it (None: not at all)."""
    height, width = dataset.height, dataset.width
    if transform.b == 0 and transform.d == 0:
        if transform.a > 0 and transform.e < 0:
            return Grid(dataset.crs, transform, height, width), None
        corners = _corners(transform, height, width)
        west, north = min(x for x, _ in corners), max(y for _, y in corners)
        flipped = Affine(abs(transform.a), 0, west, 0, -abs(transform.e), north)
        return Grid(dataset.crs, flipped, height, width), "turned north-up, pixels unchanged"
    corners = _corners(transform, height, width)
    return _bounding_grid(
        corners, math.sqrt(abs(transform.determinant)), dataset.crs
    ), "rotated north-up, nearest neighbour"


def _bounding_grid(corners: list[tuple[float, float]], size: float, crs: CRS) -> Grid:
    """Return the north-up grid of square pixels that contains the corners.

    A hundredth of a pixel is rounding and adds no row or column.
    """
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    rows, cols = (max(1, math.ceil((max(values) - min(values)) / size - _PIXEL_TOLERANCE)) for values in (ys, xs))
    return Grid(crs, Affine(size, 0, min(xs), 0, -size, max(ys)), rows, cols)


def _warp_by_gcps(
    dataset: rasterio.DatasetReader,
    display_name: str,
    points: list[Any],
    crs: CRS,
    max_pixels: int,
    nodata: float | None,
) -> tuple[Any, Grid, str]:
    """Fit an affine transform to ground control points and warp the raster north-up.

    Raises:
        BadScene: The transform does not fit within a pixel.
    """
    transform = _check_transform(from_gcps(points), display_name)
    size = math.sqrt(abs(transform.determinant))
    fitted = [_at(transform, point.col, point.row) for point in points]
    worst = max(math.hypot(x - point.x, y - point.y) for (x, y), point in zip(fitted, points, strict=True)) / size
    if not worst <= _MAX_GCP_RESIDUAL or len(points) < _MIN_GCPS:
        raise BadScene(
            "an affine transform does not fit the ground control points",
            subject=display_name,
            found=f"{len(points)} points, largest residual {worst:.3g} pixels",
            expected=f"at least {_MIN_GCPS} points, residuals of at most {_MAX_GCP_RESIDUAL:g} pixel",
            next_step="Warp the raster to a map projection first (GDAL: gdalwarp).",
        )
    corners = _corners(transform, dataset.height, dataset.width)
    grid = _bounding_grid(corners, size, crs)
    grid.resolution_m()
    if grid.height * grid.width > max_pixels:
        raise BadScene(
            "warped by its ground control points, the raster is larger than allowed",
            subject=display_name,
            found=f"{grid.height} x {grid.width} pixels",
            expected=f"at most {max_pixels} pixels",
        )
    return (
        _warped(dataset, grid, Resampling.nearest, crs, transform, nodata),
        grid,
        "warped by ground control points, nearest neighbour",
    )


def _check_transform(transform: Affine, display_name: str) -> Affine:
    """Return the transform.

    Raises:
        BadScene: It is not finite, degenerate, or the identity.
    """
    values = list(transform)[:6]
    if not all(math.isfinite(value) for value in values) or transform.determinant == 0:
        raise BadScene(
            "the geotransform is degenerate",
            subject=display_name,
            found=values,
            expected="finite coefficients and a pixel size",
        )
    if transform == Affine.identity():
        raise BadScene(
            "the raster has a CRS but no geotransform",
            subject=display_name,
            next_step="Get the georeferenced file from its source.",
        )
    return transform


def _no_crs(display_name: str, has_points: bool, beside: str) -> BadScene:
    found = "ground control points without CRS" if has_points else "no CRS"
    return BadScene(
        "the raster has no coordinate reference system",
        subject=display_name,
        found=f"{found}; not read for a georeference: {beside}" if beside else found,
        expected="a CRS and an affine transform inside the file",
        next_step="Write a CRS into the file (GDAL: gdal_edit.py -a_srs), or use a layout that needs none (38-Cloud).",
    )


def _corners(transform: Affine, height: int, width: int) -> list[tuple[float, float]]:
    ends = ((0, 0), (width, 0), (0, height), (width, height))
    return [_at(transform, col, row) for col, row in ends]


def _at(transform: Affine, col: float, row: float) -> tuple[float, float]:
    a, b, c, d, e, f = list(transform)[:6]
    return a * col + b * row + c, d * col + e * row + f


def _bounds(grid: Grid) -> tuple[float, float, float, float]:
    corners = _corners(grid.transform, grid.height, grid.width)
    return corners[0][0], corners[0][1], corners[3][0], corners[3][1]


def _distance_m(one: tuple[float, float], other: tuple[float, float]) -> float:
    north, east = meters_per_degree((one[1] + other[1]) / 2)
    step = (other[0] - one[0] + 180) % 360 - 180
    return math.hypot((other[1] - one[1]) * north, step * east)
