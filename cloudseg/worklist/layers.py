"""The rasters of a worklist that are only looked at: a picture of the scene and its mask, cut around the windows."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.windows import Window as RasterioWindow

from cloudseg.bands import MASK_NO_DATA, NO_DATA
from cloudseg.grid import Window, iter_windows
from cloudseg.raster.cog import BLOCK_SIZE
from cloudseg.raster.read import GDAL_ENV, decoded, open_raster
from cloudseg.raster.thumbnail import NO_DATA_GRAY, color_indexes, stretch
from cloudseg.records import Scene, WorklistWindow

_MARGIN: Final = 512
"""Pixels around the windows: what a cloud is shows in its surroundings."""
_LONGEST: Final = 2048
"""Longest side of the picture in pixels; a larger cut is averaged."""


@dataclass(frozen=True)
class Cut:
    """A part of a scene."""

    window: Window
    factor: int
    """Scene pixels per pixel of the picture, along an axis."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return math.ceil(self.window.height / self.factor), math.ceil(self.window.width / self.factor)


def cut_around(scene: Scene, windows: Sequence[WorklistWindow]) -> Cut:
    """Return the part of a scene that holds its windows and what lies around them."""
    top = max(0, min(window.row_off for window in windows) - _MARGIN)
    left = max(0, min(window.col_off for window in windows) - _MARGIN)
    bottom = min(scene.height, max(window.row_off + window.height for window in windows) + _MARGIN)
    right = min(scene.width, max(window.col_off + window.width for window in windows) + _MARGIN)
    window = Window(top, left, bottom - top, right - left)
    return Cut(window, math.ceil(max(window.height, window.width) / _LONGEST))


def write_rgb(path: Path, source: str, scene: Scene, cut: Cut) -> None:
    """Write an 8-bit picture of a part of a scene as JPEG in GeoTIFF; what was not observed is gray.

    It is stretched as the thumbnail of a mask is. Not for measurements.

    Raises:
        ObjectCorrupt: the scene cannot be read.
    """
    with open_raster(source) as dataset, decoded(dataset):
        dn = dataset.read(
            color_indexes(dataset),
            window=_rasterio(cut.window),
            out_shape=(3, *cut.shape),
            resampling=Resampling.average,  # of the observed pixels
        )
    valid = np.all(dn != NO_DATA, axis=0)
    picture = stretch(dn, valid)
    picture[~valid] = NO_DATA_GRAY
    profile = {"count": 3, "photometric": "YCBCR", "compress": "JPEG", "jpeg_quality": 90}
    with _create(path, scene, cut, cut.factor, **profile) as out:
        out.write(picture.transpose(2, 0, 1))
        out.update_tags(CLOUDSEG_SCENE_ID=scene.scene_id)


def write_mask(path: Path, source: str, scene: Scene, cut: Cut) -> None:
    """Write the same part of a mask, with the colors and tags of the published file.

    Raises:
        ObjectCorrupt: the mask cannot be read.
    """
    profile = {"count": 1, "compress": "DEFLATE", "nodata": MASK_NO_DATA}
    with open_raster(source) as dataset, _create(path, scene, cut, 1, **profile) as out:
        for part in iter_windows(cut.window.height, cut.window.width, BLOCK_SIZE):
            from_row, from_col = cut.window.row_off + part.row_off, cut.window.col_off + part.col_off
            with decoded(dataset):
                classes = dataset.read(1, window=_rasterio(Window(from_row, from_col, part.height, part.width)))
            out.write(classes, 1, window=_rasterio(part))
        out.write_colormap(1, dataset.colormap(1))
        out.update_tags(**{name: text for name, text in dataset.tags().items() if name.startswith("CLOUDSEG_")})


def _rasterio(window: Window) -> RasterioWindow:
    return RasterioWindow(window.col_off, window.row_off, window.width, window.height)


@contextmanager
def _create(path: Path, scene: Scene, cut: Cut, factor: int, **profile: object) -> Iterator[rasterio.io.DatasetWriter]:
    """Open a new 8-bit GeoTIFF of a part of a scene, with `factor` scene pixels per pixel."""
    height, width = (math.ceil(side / factor) for side in (cut.window.height, cut.window.width))
    transform = Affine(*scene.transform) @ Affine.translation(cut.window.col_off, cut.window.row_off)
    grid = {"crs": scene.crs, "transform": transform @ Affine.scale(factor), "height": height, "width": width}
    tiles = {"tiled": True, "blockxsize": BLOCK_SIZE, "blockysize": BLOCK_SIZE}
    with (
        rasterio.Env(**GDAL_ENV),
        rasterio.open(path, "w", driver="GTiff", dtype="uint8", **grid, **tiles, **profile) as out,
    ):
        yield out
