"""A small picture of a scene with its clouds outlined, for web pages and catalogs; not for measurements."""

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
"""Longest side in pixels."""
OUTLINE: Final = (255, 0, 170)
"""Magenta: no natural surface has it, and color-blind people can distinguish it from white clouds and green land."""
NO_DATA_GRAY: Final = (96, 96, 96)
MOST_BYTES: Final = 40_000
"""Largest thumbnail: a page of 100 masks loads 4 MB."""
_QUALITIES: Final = (85, 75, 60, 45, 30)
"""Quality of WebP (0 to 100), best first; below 30 the outline is no longer sharp, so the picture gets smaller."""
_EFFORT: Final = 5
"""Of WebP, 0 to 6: a third of the time of 6 for 2 to 4 % more bytes, measured on pictures of 512 x 512 pixels."""

_GAMMA = 0.6
"""Brightens land and water, which occupy the lowest tenth of the range in cloudy scenes."""
_LEAST_RANGE = 0.08
"""Least reflectance between black and white, so that noise over open sea is not stretched to a pattern."""

UInt8 = npt.NDArray[np.uint8]
UInt16 = npt.NDArray[np.uint16]


def make_thumbnail(scene: GdalPath | str, mask: Path, *, most_bytes: int = MOST_BYTES) -> bytes:
    """Return a WebP, at most 512 pixels per side, of a canonical scene (`Store.gdal_path`) and the mask on its grid.

    It shows red, green and blue if the scene has them, else its first band in gray, and is read from the overviews.
    The same two files produce the same bytes.

    Args:
        scene: the canonical scene.
        mask: the mask.
        most_bytes: size of the picture; at most `MOST_BYTES` are used.

    Raises:
        ObjectCorrupt: a raster cannot be read.
    """
    with open_raster(scene) as pixels:
        shape = small_shape(pixels.height, pixels.width)
        dn = _read_colors(pixels, shape)
    with open_raster(str(mask)) as classes:
        cloud = classes.read(1, out_shape=shape, resampling=Resampling.nearest)
    return encode(render(dn, cloud), min(most_bytes, MOST_BYTES))


def make_scene_thumbnail(scene: GdalPath | str, *, most_bytes: int = MOST_BYTES) -> bytes:
    """Return a WebP, at most 512 pixels per side, of a canonical scene alone, as `make_thumbnail` shows it.

    Args:
        scene: the canonical scene.
        most_bytes: size of the picture; at most `MOST_BYTES` are used.

    Raises:
        ObjectCorrupt: the raster cannot be read.
    """
    with open_raster(scene) as pixels:
        dn = _read_colors(pixels, small_shape(pixels.height, pixels.width))
    return encode(render(dn, np.zeros(dn.shape[1:], np.uint8)), min(most_bytes, MOST_BYTES))


def small_shape(height: int, width: int) -> tuple[int, int]:
    """Return height and width of the picture: those of the raster if it is small, never less than one pixel."""
    scale = min(1.0, MAX_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def render(dn: UInt16, mask: UInt8) -> UInt8:
    """Return RGB `(row, col, 3)` of reflectance with the outline of its clouds; both arrays may hold no data.

    Args:
        dn: reflectance x 10 000, `(3, row, col)`.
        mask: classes, `(row, col)`.
    """
    valid = np.all(dn != NO_DATA, axis=0) & (mask != MASK_NO_DATA)
    picture = stretch(dn, valid)
    cloud = (mask == MASK_CLOUD) & valid
    picture[edge_of(cloud, valid & ~cloud)] = OUTLINE
    picture[~valid] = NO_DATA_GRAY
    return picture


def encode(picture: UInt8, most_bytes: int) -> bytes:
    """Return a picture as WebP of the best quality that fits, made smaller where none does.

    Args:
        picture: RGB `(row, col, 3)`.
        most_bytes: size; a picture of one pixel may be larger.
    """
    image = Image.fromarray(picture)
    while True:
        for quality in _QUALITIES:
            out = io.BytesIO()
            image.save(out, format="WEBP", quality=quality, method=_EFFORT)
            if out.tell() <= most_bytes:
                return out.getvalue()
        if max(image.size) == 1:
            return out.getvalue()
        smaller = (max(1, image.width * 3 // 4), max(1, image.height * 3 // 4))
        image = image.resize(smaller, Image.Resampling.BOX)


def color_indexes(pixels: rasterio.DatasetReader) -> list[int]:
    """Return the indexes of red, green and blue, or three times the first band if a scene lacks one of them."""
    names = list(pixels.descriptions)
    return [names.index(band) + 1 for band in RGB] if all(band in names for band in RGB) else [1, 1, 1]


def _read_colors(pixels: rasterio.DatasetReader, shape: tuple[int, int]) -> UInt16:
    with decoded(pixels):
        dn: UInt16 = pixels.read(color_indexes(pixels), out_shape=(3, *shape), resampling=Resampling.average)
    return dn


def stretch(dn: UInt16, valid: npt.NDArray[np.bool_]) -> UInt8:
    """Return uint8 colors `(row, col, 3)`: the 1st to 98th percentile of all bands together, then a gamma.

    One range for all bands keeps the balance of the colors.
    """
    reflectance = dn.astype(np.float32) / REFLECTANCE_SCALE
    seen = reflectance[:, valid]
    low, high = (float(value) for value in np.percentile(seen, (1, 98))) if seen.size else (0.0, 1.0)
    high = max(high, low + _LEAST_RANGE)
    scaled = np.clip((reflectance - low) / (high - low), 0, 1) ** _GAMMA
    return np.ascontiguousarray(np.rint(scaled * 255).astype(np.uint8).transpose(1, 2, 0))


def edge_of(cloud: npt.NDArray[np.bool_], clear: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the cloud pixels that touch a clear one; the border of the picture and no data are no edge of a cloud."""
    other = np.pad(clear, 1, constant_values=False)
    adjacent = other[:-2, 1:-1] | other[2:, 1:-1] | other[1:-1, :-2] | other[1:-1, 2:]
    edge: npt.NDArray[np.bool_] = cloud & adjacent
    return edge
