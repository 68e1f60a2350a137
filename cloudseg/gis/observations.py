"""One scene with its mask on the grid of a composite, read by windows: what is clear, how far from cloud, which values.

A pixel that is coarser than the mask is cloud where any mask pixel in it is (maximum), and its reflectance is the mean;
a finer or shifted one is interpolated (bilinear). On the scene's own grid both are copied.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from cloudseg.bands import MASK_CLEAR, MASK_NO_DATA, NO_DATA
from cloudseg.gis.areas import project
from cloudseg.gis.composite_grid import Grid, is_same_grid
from cloudseg.gis.extras import import_extra
from cloudseg.gis.mask_of_scene import MaskOfScene
from cloudseg.grid import Window
from cloudseg.raster.read import band_indexes, decoded, open_raster
from cloudseg.records import GdalPath
from cloudseg.storage import Store

_MARGIN: Final = 2
"""Pixels around the bounds of a scene on the grid, for the width of interpolation."""
_TOLERANCE: Final = 1e-6
"""Pixels by which GDAL may approximate a transformation. Its default, an eighth, moves every twentieth pixel by one;
rasterio 1.4 refuses 0."""
_CHUNK: Final = 256
"""Side in pixels of the squares of the grid in which GDAL warps. It estimates positions and scale for each request, so
that the same pixel can differ between two windows; squares that never change make windows equal the whole."""
_COARSER: Final = 1.01
"""Ratio of sides from which a pixel of the grid counts as coarser than one of the scene."""

UInt8 = npt.NDArray[np.uint8]
UInt16 = npt.NDArray[np.uint16]
Bool = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Observation:
    """A scene and its mask on the grid."""

    mask: MaskOfScene
    window: Window
    """Pixels of the grid that the scene may cover; may reach beyond the grid."""
    same_grid: bool
    ratio: float
    """Side of a pixel of the grid per side of a pixel of the scene."""

    @property
    def acquired_at(self) -> datetime:
        """Time of the scene."""
        if self.mask.acquired_at is None:
            raise ValueError(f"scene {self.mask.scene_id} has no time")
        return self.mask.acquired_at


def observe(mask: MaskOfScene, grid: Grid) -> Observation:
    """Return a mask as an observation on a grid."""
    crs, affine = CRS.from_user_input(mask.crs), Affine(*mask.transform)
    frame = shapely.segmentize(shapely.box(0, 0, mask.width, mask.height), max(mask.width, mask.height) / 32)
    on_ground = shapely.transform(frame, lambda points: _apply(affine, points))
    placed = on_ground if crs == grid.crs else project(on_ground, crs, grid.crs)
    left, top, right, bottom = shapely.transform(placed, lambda points: _apply(~grid.transform, points)).bounds
    first_row, first_col = int(np.floor(top)) - _MARGIN, int(np.floor(left)) - _MARGIN
    window = Window(
        first_row, first_col, int(np.ceil(bottom)) + _MARGIN - first_row, int(np.ceil(right)) + _MARGIN - first_col
    )
    side = float(np.sqrt(abs(affine.determinant)))
    ratio = (grid.resolution_m / side) if crs == grid.crs else grid.resolution_m / (mask.resolution_m or side)
    return Observation(mask, window, is_same_grid(mask, grid), ratio)


def over_grid(masks: Sequence[MaskOfScene], grid: Grid) -> list[MaskOfScene]:
    """Return the masks that cover a part of a grid."""
    whole = Window(0, 0, grid.height, grid.width)
    return [mask for mask in masks if observe(mask, grid).window.overlap(whole)]


def read_classes(store: Store, seen: Observation, grid: Grid, window: Window) -> UInt8:
    """Return the classes of a mask in a window of the grid, which may reach beyond it: 255 where there is no scene.

    Returns:
        uint8 `(window.height, window.width)`: 0 clear, 1 cloud, 255 no data.

    Raises:
        StoreError: the mask cannot be read.
    """
    resampling = Resampling.max if not seen.same_grid and seen.ratio > _COARSER else Resampling.nearest
    path = store.gdal_path(seen.mask.mask_key)
    classes: UInt8 = _read(path, seen, grid, window, [1], resampling, MASK_NO_DATA, np.uint8)[0]
    return classes


def read_bands(store: Store, seen: Observation, grid: Grid, window: Window, bands: list[str]) -> UInt16:
    """Return reflectance × 10 000 of a scene in a window of the grid, 0 where there is no data.

    Returns:
        uint16 `(band, window.height, window.width)`.

    Raises:
        DataError: the scene lacks a band.
        StoreError: the scene cannot be read.
    """
    coarser = Resampling.average if seen.ratio > _COARSER else Resampling.bilinear
    resampling = Resampling.nearest if seen.same_grid else coarser
    path = store.gdal_path(seen.mask.scene_key)
    found: UInt16 = _read(path, seen, grid, window, bands, resampling, NO_DATA, np.uint16)
    return found


def clear_distance(classes: UInt8, resolution_m: float, cap_m: float) -> Floats:
    """Return the distance in meters from each pixel to the nearest one that is cloud or no data, at most `cap_m`.

    Between the centers of pixels (scipy's Euclidean distance transform); 0 for cloud and no data.
    """
    clear = classes == MASK_CLEAR
    if clear.all():
        return np.full(classes.shape, cap_m, np.float32)
    if not clear.any():
        return np.zeros(classes.shape, np.float32)
    distance = import_extra("scipy.ndimage").distance_transform_edt(clear, sampling=resolution_m)
    capped: Floats = np.minimum(distance, cap_m).astype(np.float32)
    return capped


def _read(
    path: GdalPath,
    seen: Observation,
    grid: Grid,
    window: Window,
    bands: list[Any],
    resampling: Resampling,
    no_data: int,
    dtype: Any,
) -> npt.NDArray[Any]:
    """Read bands, by index or by name, in a window of the grid; where the scene is not, there is no data."""
    out = np.full((len(bands), window.height, window.width), no_data, dtype)
    part = seen.window.overlap(window)
    if part is None:
        return out
    with open_raster(path) as dataset:
        indexes = bands if isinstance(bands[0], int) else band_indexes(dataset, bands)
        with _on_grid(dataset, seen, grid, resampling, no_data) as warped, decoded(dataset):
            for chunk in [part] if seen.same_grid else _chunks(seen.window, part):
                rows, cols = chunk.row_off - seen.window.row_off, chunk.col_off - seen.window.col_off
                found = warped.read(indexes, window=RasterioWindow(cols, rows, chunk.width, chunk.height))
                if (shared := chunk.overlap(part)) is not None:
                    out[(slice(None), *shared.within(window))] = found[(slice(None), *shared.within(chunk))]
    return out


def _chunks(scene: Window, part: Window) -> Iterator[Window]:
    """Yield the squares of the grid that hold a part of a scene, cut at the edge of the scene only."""
    for row in range(part.row_off // _CHUNK, -(-(part.row_off + part.height) // _CHUNK)):
        for col in range(part.col_off // _CHUNK, -(-(part.col_off + part.width) // _CHUNK)):
            chunk = Window(row * _CHUNK, col * _CHUNK, _CHUNK, _CHUNK).overlap(scene)
            if chunk is not None:
                yield chunk


@contextmanager
def _on_grid(
    dataset: rasterio.DatasetReader, seen: Observation, grid: Grid, resampling: Resampling, no_data: int
) -> Iterator[WarpedVRT]:
    """Open a raster on the pixels of the grid that its scene covers: the same ones for every window."""
    window = seen.window
    with WarpedVRT(
        dataset,
        crs=grid.crs,
        transform=grid.transform @ Affine.translation(window.col_off, window.row_off),
        height=window.height,
        width=window.width,
        resampling=resampling,
        src_nodata=no_data,
        nodata=no_data,
        tolerance=_TOLERANCE,
        # Otherwise GDAL estimates the scale, and with it the width of the kernel, for each request.
        XSCALE=1 / seen.ratio,
        YSCALE=1 / seen.ratio,
    ) as warped:
        yield warped


def _apply(by: Affine, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x, y = points[:, 0], points[:, 1]
    return np.column_stack([by.a * x + by.b * y + by.c, by.d * x + by.e * y + by.f])
