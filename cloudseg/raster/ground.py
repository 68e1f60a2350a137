"""How large pixels are on the ground, in meters: arithmetic over the grid of a scene.

A projection that keeps lengths within 1 % at the center of the scene (UTM: 0.9996 to 1.001 inside its zone, Snyder
1987, "Map projections: a working manual", p. 57) is measured in its own units, so an area is that of the coordinates.
Others (lon/lat, Web Mercator away from the equator) are measured on the WGS 84 ellipsoid, row by row.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from cloudseg.errors import DataError

_SEMI_MAJOR_M: Final = 6_378_137.0
_FLATTENING: Final = 1 / 298.257223563
"""Of the WGS 84 ellipsoid (NGA.STND.0036, table 3.1)."""
_TRUE_TO_SCALE: Final = 0.01
_SQUARE: Final = 0.01
"""Largest cosine of the angle between rows and columns on the ground."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ground:
    """Sizes of the pixels of a raster, which may differ from row to row."""

    across_m: Floats
    """Width of a pixel of each row, `(height,)`."""
    down_m: Floats
    """Height of a pixel of each row, `(height,)`."""

    @property
    def column_area_m2(self) -> Floats:
        """Area of one column from the first row down to each row edge, `(height + 1,)`."""
        return np.concatenate([[0.0], np.cumsum(self.across_m * self.down_m)])

    @property
    def center_m(self) -> Floats:
        """Distance of the center of each row from the upper edge, `(height,)`."""
        return np.cumsum(self.down_m) - self.down_m / 2


def measure_ground(transform: Affine, crs: str, height: int, width: int) -> Ground:
    """Return the sizes of pixels, measured along the middle column.

    Args:
        transform: from pixels to the CRS.
        crs: 'EPSG:n' or WKT.
        height: in pixels.
        width: in pixels.

    Raises:
        DataError: the CRS cannot be measured there, or the grid is sheared.
    """
    rows, middle = np.arange(height, dtype=np.float64) + 0.5, np.full(height, width / 2)
    here = _on_earth(transform, crs, middle, rows)
    right, below = _on_earth(transform, crs, middle + 1, rows), _on_earth(transform, crs, middle, rows + 1)
    across, down = np.linalg.norm(right - here, axis=1), np.linalg.norm(below - here, axis=1)
    skew = np.abs(np.sum((right - here) * (below - here), axis=1)) / np.maximum(across * down, 1e-12)
    if float(np.median(skew)) > _SQUARE:
        raise DataError(
            "rows and columns of the scene are not at right angles on the ground",
            found=f"cosine {np.median(skew):.3f}",
            expected=f"at most {_SQUARE}",
            next_step="Warp the mask to UTM first (gdalwarp).",
        )
    parsed = CRS.from_user_input(crs)
    if parsed.is_projected:
        unit = float(parsed.linear_units_factor[1])
        plane = unit * math.hypot(transform.a, transform.d), unit * math.hypot(transform.b, transform.e)
        center = height // 2
        scales = plane[0] / across[center], plane[1] / down[center]
        if all(abs(scale - 1) <= _TRUE_TO_SCALE for scale in scales):
            return Ground(np.full(height, plane[0]), np.full(height, plane[1]))
    return Ground(across, down)


def _on_earth(transform: Affine, crs: str, cols: npt.NDArray[Any], rows: npt.NDArray[Any]) -> Floats:
    """Return geocentric coordinates in meters, `(n, 3)`: their distances are right at poles and at 180° too."""
    x = transform.a * cols + transform.b * rows + transform.c
    y = transform.d * cols + transform.e * rows + transform.f
    try:
        lon, lat = (np.radians(values) for values in transform_points(crs, "EPSG:4326", x.tolist(), y.tolist()))
    except (CRSError, RasterioError) as error:
        raise DataError(
            "the CRS cannot be projected to lon/lat", found=error, next_step="Export in pixels of another CRS."
        ) from error
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise DataError("the middle of the scene is not on the Earth", found="infinite lon/lat")
    squared = _FLATTENING * (2 - _FLATTENING)
    normal = _SEMI_MAJOR_M / np.sqrt(1 - squared * np.sin(lat) ** 2)
    return np.column_stack(
        [
            normal * np.cos(lat) * np.cos(lon),
            normal * np.cos(lat) * np.sin(lon),
            normal * (1 - squared) * np.sin(lat),
        ]
    )
