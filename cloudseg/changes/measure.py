"""The change map of a scene: one class for each pixel of two masks, written window by window and counted.

Memory: a strip of each mask, and reduced pictures of scene and map.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.windows import Window as RasterioWindow

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, NO_DATA, REFLECTANCE_SCALE
from cloudseg.errors import DataError
from cloudseg.grid import Window, iter_strips
from cloudseg.raster.cog import BLOCK_SIZE, create_tiled, write_cog
from cloudseg.raster.read import decoded, open_raster, read_label
from cloudseg.raster.thumbnail import color_indexes

BOTH_CLEAR, BOTH_CLOUD, CLEAR_TO_CLOUD, CLOUD_TO_CLEAR, NONE = 0, 1, 2, 3, 255
"""Values of a change map."""
NAMES: Final = {
    BOTH_CLEAR: "clear in both",
    BOTH_CLOUD: "cloud in both",
    CLEAR_TO_CLOUD: "clear, now cloud",
    CLOUD_TO_CLEAR: "cloud, now clear",
}
# Colors of Okabe and Ito (2008), which color-blind readers can distinguish; the same as in reports.
COLORS: Final = {
    BOTH_CLEAR: (48, 52, 58),
    BOTH_CLOUD: (245, 247, 250),
    CLEAR_TO_CLOUD: (230, 120, 0),
    CLOUD_TO_CLEAR: (0, 114, 178),
    NONE: (140, 128, 150),
}
SIDE: Final = 360
"""Longest side in pixels of the picture of a scene."""
_GROUND_SIDE: Final = 1024
"""Longest side in pixels of the overview from which the ground's reflectance is taken."""

UInt8 = npt.NDArray[np.uint8]
UInt16 = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Counts:
    """Pixels of a change map that both masks cover."""

    both_clear: int = 0
    both_cloud: int = 0
    clear_to_cloud: int = 0
    cloud_to_clear: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.both_clear + other.both_clear,
            self.both_cloud + other.both_cloud,
            self.clear_to_cloud + other.clear_to_cloud,
            self.cloud_to_clear + other.cloud_to_clear,
        )

    @property
    def pixels(self) -> int:
        """All of them."""
        return self.both_clear + self.both_cloud + self.flipped

    @property
    def flipped(self) -> int:
        """Pixels of another class."""
        return self.clear_to_cloud + self.cloud_to_clear

    @property
    def flipped_fraction(self) -> float:
        """Share of the pixels that have another class; 0 without any pixel."""
        return self.flipped / self.pixels if self.pixels else 0.0


def write_change_map(before: str, after: str, out: Path, *, tags: dict[str, str]) -> Counts:
    """Write the change map of two masks of a scene as a COG on their grid, and return its counts.

    Args:
        before: path of the first mask.
        after: path of the second mask.
        out: path of the COG; a file beside it is written and removed.
        tags: of the COG.

    Raises:
        DataError: the masks have different grids.
        ObjectCorrupt: pixels cannot be read.
    """
    drawn = out.with_suffix(".drawn.tif")
    counts = Counts()
    with open_raster(before) as old, open_raster(after) as new:
        _check_grids(old, new)
        colormap = {value: (*color, 0 if value == NONE else 255) for value, color in COLORS.items()}
        with create_tiled(
            drawn,
            height=old.height,
            width=old.width,
            count=1,
            dtype="uint8",
            crs=old.crs.to_wkt() if old.crs else None,
            transform=Affine(*old.transform[:6]),
            nodata=NONE,
            descriptions=["cloud mask change"],
            colormap=colormap,
        ) as target:
            for strip in iter_strips(Window(0, 0, old.height, old.width), BLOCK_SIZE):
                changes = change_classes(read_label(old, strip), read_label(new, strip))
                counts += count(changes)
                window = RasterioWindow(strip.col_off, strip.row_off, strip.width, strip.height)
                target.write(changes, 1, window=window)
    write_cog(out, drawn, resampling="mode", tags=tags)
    drawn.unlink()
    return counts


def change_classes(before: UInt8, after: UInt8) -> UInt8:
    """Return the class of every pixel of two masks of the same shape; 255 where one of them has no data."""
    changes = np.full(before.shape, NONE, np.uint8)
    for old, new, value in (
        (MASK_CLEAR, MASK_CLEAR, BOTH_CLEAR),
        (MASK_CLOUD, MASK_CLOUD, BOTH_CLOUD),
        (MASK_CLEAR, MASK_CLOUD, CLEAR_TO_CLOUD),
        (MASK_CLOUD, MASK_CLEAR, CLOUD_TO_CLEAR),
    ):
        changes[(before == old) & (after == new)] = value
    return changes


def count(changes: UInt8) -> Counts:
    """Return the counts of a part of a change map."""
    return Counts(*(int(np.count_nonzero(changes == value)) for value in NAMES))


def ground_reflectance(scene: str, change_map: Path) -> float | None:
    """Return the median reflectance of the pixels that are clear in both masks, None without any.

    It is the mean of red, green and blue, or of the first band where one is missing, taken from an overview of at most
    1024 pixels a side: it sorts the scene into a class, it measures nothing.
    """
    with open_raster(scene) as pixels, open_raster(str(change_map)) as changes:
        shape = _reduced(pixels.height, pixels.width, _GROUND_SIDE)
        dn = _read_colors(pixels, shape)
        with decoded(changes):
            classes = changes.read(1, out_shape=shape, resampling=Resampling.nearest)
    clear = (classes == BOTH_CLEAR) & np.all(dn != NO_DATA, axis=0)
    if not clear.any():
        return None
    return float(np.median(dn[:, clear].mean(axis=0, dtype=np.float64))) / REFLECTANCE_SCALE


def read_pictures(scene: str, change_map: Path) -> tuple[UInt16, UInt8]:
    """Return reflectance x 10 000 `(3, row, col)` and change classes `(row, col)`, reduced to `SIDE`.

    Of the pixels that one of the picture stands for, a flipped one is shown if there is any: a few that flipped in a
    large scene stay visible.
    """
    with open_raster(scene) as pixels, open_raster(str(change_map)) as changes:
        shape = _reduced(pixels.height, pixels.width, SIDE)
        dn = _read_colors(pixels, shape)
        return dn, _read_most_changed(changes, shape)


def _read_most_changed(changes: rasterio.DatasetReader, shape: tuple[int, int]) -> UInt8:
    edges_row = np.linspace(0, changes.height, shape[0] + 1).astype(int)
    edges_col = np.linspace(0, changes.width, shape[1] + 1).astype(int)
    picture = np.full(shape, NONE, np.uint8)
    for row in range(shape[0]):
        top, bottom = int(edges_row[row]), int(edges_row[row + 1])
        # Ranked so that the greatest is shown: no data, then the same class in both, then what flipped.
        ranked = _RANK[read_label(changes, Window(top, 0, bottom - top, changes.width))].max(axis=0)
        picture[row] = _UNRANK[np.maximum.reduceat(ranked, edges_col[:-1])]
    return picture


_RANK: Final = np.zeros(256, np.uint8)
_RANK[[BOTH_CLEAR, BOTH_CLOUD, CLEAR_TO_CLOUD, CLOUD_TO_CLEAR]] = (1, 2, 3, 4)
_UNRANK: Final = np.array([NONE, BOTH_CLEAR, BOTH_CLOUD, CLEAR_TO_CLOUD, CLOUD_TO_CLEAR], np.uint8)


def _read_colors(pixels: rasterio.DatasetReader, shape: tuple[int, int]) -> UInt16:
    with decoded(pixels):
        dn: UInt16 = pixels.read(color_indexes(pixels), out_shape=(3, *shape), resampling=Resampling.average)
    return dn


def _reduced(height: int, width: int, side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _check_grids(old: rasterio.DatasetReader, new: rasterio.DatasetReader) -> None:
    """Raise DataError if two masks do not lie on each other."""
    grids = [(raster.crs, raster.transform, raster.height, raster.width) for raster in (old, new)]
    if grids[0] != grids[1]:
        raise DataError(
            "the masks have different grids",
            subject=new.name,
            found=f"{new.height} x {new.width}, {new.transform.to_gdal()}",
            expected=f"{old.height} x {old.width}, {old.transform.to_gdal()}",
            next_step="Run `cloudseg maintain`: one of them is not the mask of this scene.",
        )
