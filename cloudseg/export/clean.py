"""Another threshold, small clouds removed, small gaps filled, clouds widened: classes of a mask in a file of bytes.

The file is mapped into memory, so that a scene of any size needs the room of one byte a pixel on disk only.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window as RasterioWindow
from shapely.geometry import Polygon

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD
from cloudseg.errors import InputError
from cloudseg.export.components import STRIP, Advance, iter_components, paint
from cloudseg.export.ground import Ground
from cloudseg.grid import Window
from cloudseg.raster.probability import STEPS, classify
from cloudseg.raster.read import decoded, open_raster
from cloudseg.scratch import reserve_file

MOST_BUFFER_M: Final = 20_000.0
"""Widest buffer in meters: its cost grows with the number of rows that it spans."""
_BLOCK: Final = 2048
"""Side of the windows in which clouds are widened."""
_LEAST: Final = 1 / STEPS
"""The lowest step of a probability that can be a threshold; 0 would make everything cloud."""

UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Cleaning:
    """What is done to a mask, in this order; the defaults leave it as it is."""

    threshold: float | None = None
    """Probability from which a pixel is cloud; None: that of the model."""
    min_area_m2: float = 0.0
    """Clouds smaller than this become clear."""
    min_hole_m2: float = 0.0
    """Clear areas smaller than this become cloud."""
    buffer_m: float = 0.0
    """Clear pixels whose center is at most this far from the center of a cloud pixel become cloud."""

    def check(self) -> None:
        """Raise InputError if a value is out of range."""
        if self.threshold is not None and not _LEAST <= self.threshold <= 1:
            raise InputError("not a threshold", subject="threshold", found=self.threshold, expected=f"{_LEAST} to 1")
        for name in ("min_area_m2", "min_hole_m2"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError("not an area", subject=name, found=value, expected="square meters, 0 or more")
        if not 0 <= self.buffer_m <= MOST_BUFFER_M:
            raise InputError(
                "not a width", subject="buffer_m", found=self.buffer_m, expected=f"meters, 0 to {MOST_BUFFER_M:.0f}"
            )

    @property
    def passes(self) -> int:
        """How often every row is passed, to count progress."""
        return 1 + sum(value > 0 for value in (self.min_area_m2, self.min_hole_m2, self.buffer_m))

    def tags(self, threshold: float) -> dict[str, str]:
        """Return the settings as text, by the names of tags of a mask.

        Args:
            threshold: of the model, which applies where no other is set.
        """
        return {
            "CLOUDSEG_THRESHOLD": repr(threshold if self.threshold is None else self.threshold),
            "CLOUDSEG_MODEL_THRESHOLD": repr(threshold),
            "CLOUDSEG_MIN_AREA_M2": f"{self.min_area_m2:g}",
            "CLOUDSEG_MIN_HOLE_M2": f"{self.min_hole_m2:g}",
            "CLOUDSEG_BUFFER_M": f"{self.buffer_m:g}",
        }


def cleaned_classes(source: Path, ground: Ground, cleaning: Cleaning, folder: Path, advance: Advance) -> UInt8:
    """Return the classes of a mask `(row, col)` after cleaning, as a map of a file in the folder.

    Args:
        source: the mask, or the probability if another threshold is set.
        ground: sizes of its pixels.
        cleaning: what to do.
        folder: a scratch directory.
        advance: called with the number of rows that are done.

    Raises:
        ObjectCorrupt: the raster cannot be read.
        StoreUnreachable: the disk of the scratch directory is full.
    """
    classes = _read(source, cleaning.threshold, folder / "classes.bin", advance)
    if cleaning.min_area_m2:
        _flip_small(classes, MASK_CLOUD, MASK_CLEAR, ground, cleaning.min_area_m2, advance)
    if cleaning.min_hole_m2:
        _flip_small(classes, MASK_CLEAR, MASK_CLOUD, ground, cleaning.min_hole_m2, advance)
    if cleaning.buffer_m:
        widened = map_bytes(folder / "widened.bin", classes.shape)
        widen(classes, ground, cleaning.buffer_m, widened, advance)
        return widened
    return classes


def map_bytes(path: Path, shape: tuple[int, ...]) -> UInt8:
    """Return a new file of zeros as an array of bytes."""
    reserve_file(path, math.prod(shape))
    return np.memmap(path, np.uint8, "r+", shape=shape)


def widen(
    classes: UInt8, ground: Ground, meters: float, out: UInt8, advance: Advance | None = None, *, block: int = _BLOCK
) -> None:
    """Write classes with clouds widened by a distance on the ground, exact to the center of every pixel.

    A row of the source makes clear pixels cloud up to `sqrt(distance² - gap²)` to the left and right, where the gap is
    that between the rows: with pixels of different width and height, and of different width in every row.

    Args:
        classes: `(row, col)`.
        ground: sizes of the pixels.
        meters: distance between centers of pixels; at the distance itself a pixel becomes cloud.
        out: `(row, col)`, is overwritten.
        advance: called with the number of rows that are done.
        block: side of the windows that are held in memory, each with a margin as wide as the distance.
    """
    height, width = classes.shape
    rows = min(height, int(meters / ground.down_m.min()) + 1)
    with np.errstate(divide="ignore"):
        cols = int(min(width, meters / ground.across_m.min()) + 1)
    reach = _Reach(ground, meters, width)
    for inner in _blocks(height, width, block):
        outer = _padded(inner, rows, cols, height, width)
        part = np.asarray(classes[outer.slices])
        near = _widened(_columns_to_cloud(part == MASK_CLOUD, cols), inner, outer, reach, rows)
        core = part[inner.within(outer)]
        out[inner.slices] = np.where((core == MASK_CLEAR) & near, np.uint8(MASK_CLOUD), core)
        if advance is not None and inner.col_off + inner.width == width:
            advance(inner.height)


def _blocks(height: int, width: int, side: int) -> Iterator[Window]:
    """Yield windows that do not overlap, row by row."""
    for row in range(0, height, side):
        for col in range(0, width, side):
            yield Window(row, col, min(side, height - row), min(side, width - col))


class _Reach:
    """How far clouds reach sideways into other rows."""

    def __init__(self, ground: Ground, meters: float, width: int) -> None:
        self._across, self._center = ground.across_m, ground.center_m
        self._meters, self._width = meters, width

    def columns(self, source: slice, target: slice) -> npt.NDArray[np.int64]:
        """Return for each pair of rows how many columns a cloud of the source row reaches, -1 for none."""
        left = self._meters**2 - (self._center[source] - self._center[target]) ** 2
        inside = left >= -1e-9 * self._meters**2  # a distance that is just the limit may be rounded to either side
        with np.errstate(divide="ignore", invalid="ignore"):  # at a pole a pixel has no width
            reach = np.sqrt(np.maximum(left, 0)) / self._across[source] + 1e-9
        return np.where(inside, np.minimum(np.nan_to_num(reach, posinf=self._width), self._width), -1).astype(np.int64)


def _widened(distance: npt.NDArray[np.int32], inner: Window, outer: Window, reach: _Reach, rows: int) -> UInt8:
    near = np.zeros((inner.height, inner.width), np.bool_)
    columns = inner.within(outer)[1]
    for offset in range(-rows, rows + 1):
        first = max(inner.row_off, outer.row_off - offset)
        last = min(inner.row_off + inner.height, outer.row_off + outer.height - offset)
        if first >= last:
            continue
        target, source = slice(first, last), slice(first + offset, last + offset)
        allowed = reach.columns(source, target)
        if (allowed >= 0).any():
            there = distance[source.start - outer.row_off : source.stop - outer.row_off, columns]
            near[first - inner.row_off : last - inner.row_off] |= there <= allowed[:, np.newaxis]
    return near.view(np.uint8)


def _columns_to_cloud(cloud: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.int32]:
    """Return for each pixel the number of columns to the nearest cloud of its row, `most + 1` if it is farther."""
    width = cloud.shape[1]
    col = np.arange(width, dtype=np.int32)
    far = np.int32(width + most + 1)
    before = np.maximum.accumulate(np.where(cloud, col, -far), axis=1)
    after = np.minimum.accumulate(np.where(cloud, col, far + width)[:, ::-1], axis=1)[:, ::-1]
    return np.minimum(np.minimum(col - before, after - col), np.int32(most + 1))


def _padded(window: Window, rows: int, cols: int, height: int, width: int) -> Window:
    top, left = max(0, window.row_off - rows), max(0, window.col_off - cols)
    bottom = min(height, window.row_off + window.height + rows)
    right = min(width, window.col_off + window.width + cols)
    return Window(top, left, bottom - top, right - left)


def _read(source: Path, threshold: float | None, path: Path, advance: Advance) -> UInt8:
    with open_raster(str(source)) as dataset:
        classes = map_bytes(path, dataset.shape)
        for top in range(0, dataset.height, STRIP):
            height = min(STRIP, dataset.height - top)
            with decoded(dataset):
                part = dataset.read(1, window=RasterioWindow(0, top, dataset.width, height))
            classes[top : top + height] = part if threshold is None else classify(part, threshold)
            advance(height)
    return classes


def _flip_small(
    classes: UInt8, value: int, to: int, ground: Ground, below_m2: float, advance: Callable[[int], None]
) -> None:
    """Set another class for the small areas of a class; they are painted as soon as they are known to be small."""
    for components in iter_components(classes, value, ground, below_m2=below_m2, advance=advance):
        by_strip: dict[int, list[Polygon]] = {}
        for component in components:
            for top, piece in component.pieces:
                by_strip.setdefault(top, []).append(piece)
        for pieces in by_strip.values():
            paint(classes, pieces, to)
