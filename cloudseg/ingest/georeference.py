"""Where a raster lies: CRS and transform checked, odd orientations warped north-up.

Runs in the bounded child process.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import rasterio
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine, from_gcps
from rasterio.vrt import WarpedVRT

from cloudseg.errors import BadScene
from cloudseg.grid import metres_per_degree
from cloudseg.raster.footprint import lonlat_of

_PIXEL_TOLERANCE: Final = 0.01
"""Two grids whose corners differ by less than this part of a pixel are one grid.

What rounding in GeoTIFF keys makes.
"""
_RESOLUTION_M: Final = (0.1, 5_000.0)
"""Clouds on finer pixels are not seen whole; coarser ones are no tiles. Landsat quick looks have 900 m."""
_POINT_TOLERANCE: Final = 1.0
_FEWEST_POINTS: Final = 4
"""An affine transform has six numbers: three points fit always, so they prove nothing."""
_MOST_STRETCH: Final = 20.0
"""Longest over shortest side of a pixel; degrees at 85° of latitude make 11."""


@dataclass(frozen=True)
class Grid:
    """The pixels of a raster on the ground, north-up."""

    crs: CRS | None
    transform: Affine
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def crs_text(self) -> str | None:
        """'EPSG:n' where that says the same, else WKT."""
        if self.crs is None:
            return None
        epsg = self.crs.to_epsg()
        return f"EPSG:{epsg}" if epsg and CRS.from_epsg(epsg) == self.crs else str(self.crs.to_wkt())

    def centre(self) -> tuple[float, float]:
        """Lon/lat of the middle of the grid. Raises BadScene where that is not on the Earth."""
        return self._lonlat(self.width / 2, self.height / 2)

    def resolution_m(self) -> float | None:
        """Ground size of a pixel in the middle of the grid, mean of both axes.

        Raises BadScene for an impossible one.
        """
        if self.crs is None:
            return None
        sides = [
            _distance_m(self.centre(), self._lonlat(self.width / 2 + dx, self.height / 2 + dy))
            for dx, dy in ((1, 0), (0, 1))
        ]
        size = float(sum(sides) / 2)
        if not all(math.isfinite(side) for side in sides) or not _RESOLUTION_M[0] <= size <= _RESOLUTION_M[1]:
            raise BadScene(
                "the size of a pixel makes no sense for this CRS",
                found=f"{size:g} m",
                expected=f"{_RESOLUTION_M[0]} to {_RESOLUTION_M[1]} m",
                next_step="Check the geotransform and the CRS: metres and degrees may be mixed up.",
            )
        if max(sides) > _MOST_STRETCH * min(sides):
            raise BadScene("pixels are far from square", found=f"{sides[0]:g} x {sides[1]:g} m")
        # The sphere is off by up to 0.3 %: where the CRS counts true metres, its own number is the better one.
        units = self._units_m()
        return units if units and abs(units - size) < 0.05 * size else size

    def _units_m(self) -> float | None:
        if self.crs is None or not self.crs.is_projected:
            return None
        return float(self.crs.linear_units_factor[1] * (abs(self.transform.a) + abs(self.transform.e)) / 2)

    def _lonlat(self, col: float, row: float) -> tuple[float, float]:
        x, y = self.transform.a * col + self.transform.c, self.transform.e * row + self.transform.f
        return lonlat_of(x, y, str(self.crs_text()))


def place_on_ground(
    dataset: rasterio.DatasetReader, shown: str, *, needed: bool, max_pixels: int
) -> tuple[Any, Grid, str | None]:
    """Return the raster on a north-up grid: itself, or a warped view of it and how it was warped.

    `needed` False accepts a raster without CRS on the grid of its own pixels. Raises BadScene for no georeference (and
    none is taken from file names or neighbours), for one that is not finite, degenerate or off the Earth.
    """
    points, points_crs = dataset.gcps
    if dataset.crs is None and points and points_crs:
        return _warp_by_points(dataset, shown, points, points_crs, max_pixels)
    if dataset.crs is None:
        if needed:
            raise _no_crs(shown, bool(points))
        return dataset, Grid(None, Affine.identity(), dataset.height, dataset.width), None
    transform = _checked(dataset.transform, shown)
    grid, how = _north_up(dataset, transform)
    grid.resolution_m()
    if how is None:
        return dataset, grid, None
    if grid.height * grid.width > max_pixels:
        raise BadScene(
            "turned north-up the raster is larger than allowed",
            subject=shown,
            found=f"{grid.height} x {grid.width} pixels",
        )
    return to_grid(dataset, grid, Resampling.nearest), grid, how


def same_grid(one: Grid, other: Grid) -> bool:
    """Return whether two grids are one: shape, CRS, and corners within a hundredth of a pixel."""
    if one.shape != other.shape or one.crs != other.crs:
        return False
    tolerance = _PIXEL_TOLERANCE * min(abs(one.transform.a), abs(one.transform.e))
    return all(abs(a - b) <= tolerance for a, b in zip(_bounds(one), _bounds(other), strict=True))


def same_extent(fine: Grid, coarse: Grid) -> bool:
    """Return whether two grids of different resolution cover the same ground, to half a pixel of the coarse one."""
    if fine.crs is None or fine.crs != coarse.crs:
        return False
    tolerance = max(abs(coarse.transform.a), abs(coarse.transform.e)) / 2
    return all(abs(a - b) <= tolerance for a, b in zip(_bounds(fine), _bounds(coarse), strict=True))


def to_grid(dataset: Any, grid: Grid, resampling: Resampling) -> Any:
    """Return a view of a raster on another grid. Pixels that it does not cover are transparent or nodata."""
    return _warped(dataset, grid, resampling, dataset.crs, dataset.transform)


def _warped(dataset: Any, grid: Grid, resampling: Resampling, crs: CRS, transform: Affine) -> Any:
    more = {"add_alpha": True} if dataset.nodata is None and not _has_alpha(dataset) else {}
    return WarpedVRT(
        dataset,
        src_crs=crs,
        src_transform=transform,
        crs=grid.crs,
        transform=grid.transform,
        height=grid.height,
        width=grid.width,
        resampling=resampling,
        **more,
    )


def _has_alpha(dataset: Any) -> bool:
    return any(interpretation.name == "alpha" for interpretation in dataset.colorinterp)


def _north_up(dataset: rasterio.DatasetReader, transform: Affine) -> tuple[Grid, str | None]:
    height, width = dataset.height, dataset.width
    if transform.b == 0 and transform.d == 0:
        if transform.a > 0 and transform.e < 0:
            return Grid(dataset.crs, transform, height, width), None
        corners = _corners(transform, height, width)
        west, north = min(x for x, _ in corners), max(y for _, y in corners)
        flipped = Affine(abs(transform.a), 0, west, 0, -abs(transform.e), north)
        return Grid(dataset.crs, flipped, height, width), "turned north-up, pixels unchanged"
    corners = _corners(transform, height, width)
    return _around(corners, math.sqrt(abs(transform.determinant)), dataset.crs), "rotated north-up, nearest neighbour"


def _around(corners: list[tuple[float, float]], size: float, crs: CRS) -> Grid:
    """Return the north-up grid of square pixels around the corners. A hair of a pixel is rounding, not another row."""
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    rows, cols = (max(1, math.ceil((max(values) - min(values)) / size - _PIXEL_TOLERANCE)) for values in (ys, xs))
    return Grid(crs, Affine(size, 0, min(xs), 0, -size, max(ys)), rows, cols)


def _warp_by_points(
    dataset: rasterio.DatasetReader, shown: str, points: list[Any], crs: CRS, max_pixels: int
) -> tuple[Any, Grid, str]:
    """Fit an affine transform to the points and turn the raster north-up.

    Raises BadScene where it does not fit to a pixel.
    """
    transform = _checked(from_gcps(points), shown)
    size = math.sqrt(abs(transform.determinant))
    fitted = [_at(transform, point.col, point.row) for point in points]
    worst = max(math.hypot(x - point.x, y - point.y) for (x, y), point in zip(fitted, points, strict=True)) / size
    if not worst <= _POINT_TOLERANCE or len(points) < _FEWEST_POINTS:
        raise BadScene(
            "the ground control points do not fit one plane",
            subject=shown,
            found=f"{len(points)} points, {worst:.3g} pixels off",
            expected=f"at least {_FEWEST_POINTS} points, {_POINT_TOLERANCE:g} pixel off at most",
            next_step="Warp the raster to a map grid before (GDAL: gdalwarp).",
        )
    corners = _corners(transform, dataset.height, dataset.width)
    grid = _around(corners, size, crs)
    grid.resolution_m()
    if grid.height * grid.width > max_pixels:
        raise BadScene(
            "warped by its ground control points the raster is larger than allowed",
            subject=shown,
            found=str(grid.shape),
        )
    return (
        _warped(dataset, grid, Resampling.nearest, crs, transform),
        grid,
        "warped by ground control points, nearest neighbour",
    )


def _checked(transform: Affine, shown: str) -> Affine:
    numbers = list(transform)[:6]
    if not all(math.isfinite(number) for number in numbers) or transform.determinant == 0:
        raise BadScene(
            "the geotransform is degenerate", subject=shown, found=numbers, expected="finite numbers and a pixel size"
        )
    if transform == Affine.identity():
        raise BadScene(
            "the raster has a CRS but no geotransform", subject=shown, next_step="Get the georeferenced file."
        )
    return transform


def _no_crs(shown: str, has_points: bool) -> BadScene:
    return BadScene(
        "the raster has no coordinate reference system",
        subject=shown,
        found="ground control points without CRS" if has_points else "no CRS",
        expected="a CRS and an affine transform inside the file",
        next_step="Write it into the file (GDAL: gdal_edit.py -a_srs), or use a layout that allows none (38-Cloud).",
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
    north, east = metres_per_degree((one[1] + other[1]) / 2)
    step = (other[0] - one[0] + 180) % 360 - 180
    return math.hypot((other[1] - one[1]) * north, step * east)
