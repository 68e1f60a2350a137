"""A small picture of a scene with its clouds outlined, for pages and catalogues. Not for measuring."""

import io
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image
from rasterio.enums import Resampling

from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA, NO_DATA, REFLECTANCE_SCALE, RGB
from cloudseg.raster.read import decoded, open_raster
from cloudseg.records import GdalPath

MAX_SIDE: Final = 512
"""Pixels of the longer side, at most."""
OUTLINE: Final = (255, 0, 170)
"""Magenta: on no natural surface, and apart from white cloud and green land for colour-blind eyes too."""
NO_DATA_GREY: Final = (96, 96, 96)

_GAMMA = 0.6
"""Lifts dark land and water, which fill the lowest tenth of the range beside clouds."""
_LEAST_RANGE = 0.08
"""Reflectance between black and white, at least: noise over open sea is not stretched to a pattern."""

UInt8 = npt.NDArray[np.uint8]
UInt16 = npt.NDArray[np.uint16]


def make_thumbnail(scene: GdalPath | str, mask: Path) -> bytes:
    """Return a PNG, at most 512 pixels a side, of a canonical scene (`Store.gdal_path`) and the mask on its grid.

    Red, green and blue where the scene has them, else its first band in grey; read from the overviews. The same two
    files give the same bytes. Raises ObjectCorrupt.
    """
    with open_raster(scene) as pixels:
        shape = small_shape(pixels.height, pixels.width)
        numbers = _read_colours(pixels, shape)
    with open_raster(str(mask)) as classes:
        cloud = classes.read(1, out_shape=shape, resampling=Resampling.nearest)
    return render(numbers, cloud)


def small_shape(height: int, width: int) -> tuple[int, int]:
    """Return the picture's height and width: the raster's own where it is small, never less than one pixel."""
    scale = min(1.0, MAX_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def render(numbers: UInt16, mask: UInt8) -> bytes:
    """Draw reflectance x 10 000 `(3, row, col)` with the outline of class 1 of `mask` `(row, col)`.

    Both may hold no data.
    """
    valid = np.all(numbers != NO_DATA, axis=0) & (mask != MASK_NO_DATA)
    picture = _stretch(numbers, valid)
    cloud = (mask == MASK_CLOUD) & valid
    picture[_edge_of(cloud)] = OUTLINE
    picture[~valid] = NO_DATA_GREY
    out = io.BytesIO()
    Image.fromarray(picture).save(out, format="PNG", optimize=True)
    return out.getvalue()


def _read_colours(pixels: rasterio.DatasetReader, shape: tuple[int, int]) -> UInt16:
    names = list(pixels.descriptions)
    indexes = [names.index(band) + 1 for band in RGB] if all(band in names for band in RGB) else [1, 1, 1]
    with decoded(pixels):
        numbers: UInt16 = pixels.read(indexes, out_shape=(3, *shape), resampling=Resampling.average)
    return numbers


def _stretch(numbers: UInt16, valid: npt.NDArray[np.bool_]) -> UInt8:
    """Return `(row, col, 3)`.

    1st to 98th percentile over all bands together (colours keep their balance), then the gamma.
    """
    reflectance = numbers.astype(np.float32) / REFLECTANCE_SCALE
    seen = reflectance[:, valid]
    low, high = (float(value) for value in np.percentile(seen, (1, 98))) if seen.size else (0.0, 1.0)
    high = max(high, low + _LEAST_RANGE)
    scaled = np.clip((reflectance - low) / (high - low), 0, 1) ** _GAMMA
    return np.ascontiguousarray(np.rint(scaled * 255).astype(np.uint8).transpose(1, 2, 0))


def _edge_of(cloud: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the cloud pixels beside anything else, the border included.

    An overcast scene shows a frame, a clear one none.
    """
    other = np.pad(~cloud, 1, constant_values=True)
    beside = other[:-2, 1:-1] | other[2:, 1:-1] | other[1:-1, :-2] | other[1:-1, 2:]
    edge: npt.NDArray[np.bool_] = cloud & beside
    return edge
