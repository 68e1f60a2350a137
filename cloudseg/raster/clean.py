"""Another threshold, small clouds removed, small gaps filled, clouds widened: classes of a mask in a file of bytes.

The one implementation for predictions, exports and Python. Pixels without data keep that class, and only clear pixels
become cloud by a buffer, whatever lies between them and the cloud. A clear area that no cloud touches is no gap in one:
an island between pixels without data stays clear.

The file is mapped into memory, so that a scene of any size needs the room of one byte a pixel on disk only.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from rasterio.transform import Affine
from rasterio.windows import Window as RasterioWindow
from shapely.geometry import Polygon

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA
from cloudseg.grid import Window
from cloudseg.raster.cleaning import Cleaning
from cloudseg.raster.cog import create_tiled
from cloudseg.raster.components import STRIP, Advance, iter_components, paint, touches
from cloudseg.raster.ground import Ground
from cloudseg.raster.probability import classify
from cloudseg.raster.read import decoded, open_raster
from cloudseg.raster.statistics import count_values
from cloudseg.raster.style import mask_colormap
from cloudseg.scratch import reserve_file

_BLOCK: Final = 2048
"""Side of the windows in which clouds are widened."""

UInt8 = npt.NDArray[np.uint8]


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
    return _cleaned(classes, ground, cleaning, lambda: map_bytes(folder / "widened.bin", classes.shape), advance)


def cleaned_array(pixels: UInt8, ground: Ground, cleaning: Cleaning) -> UInt8:
    """Return classes after cleaning, in memory.

    Args:
        pixels: `(row, col)`: the classes, or the encoded probability if another threshold is set.
        ground: sizes of its pixels.
        cleaning: what to do.
    """
    classes = pixels.copy() if cleaning.threshold is None else classify(pixels, cleaning.threshold)
    return _cleaned(classes, ground, cleaning, lambda: np.empty_like(classes), lambda _: None)


def _cleaned(classes: UInt8, ground: Ground, cleaning: Cleaning, room: Callable[[], UInt8], advance: Advance) -> UInt8:
    if cleaning.min_area_m2:
        _flip_small(classes, MASK_CLOUD, MASK_CLEAR, ground, cleaning.min_area_m2, advance)
    if cleaning.min_hole_m2:
        _flip_small(classes, MASK_CLEAR, MASK_CLOUD, ground, cleaning.min_hole_m2, advance, touching=True)
    if cleaning.buffer_m:
        widened = room()
        widen(classes, ground, cleaning.buffer_m, widened, advance)
        return widened
    return classes


def write_classes(path: Path, classes: UInt8, crs: str | None, transform: Affine) -> npt.NDArray[np.int64]:
    """Write classes as a tiled GeoTIFF, to be made into a COG, and return how often each of 256 values occurs.

    Args:
        path: of the new file.
        classes: `(row, col)`; may be a memory map.
        crs: 'EPSG:n' or WKT, if any.
        transform: from pixels to the CRS.
    """
    height, width = classes.shape
    counts = np.zeros(256, np.int64)
    with create_tiled(
        path,
        height=height,
        width=width,
        count=1,
        dtype="uint8",
        crs=crs,
        transform=transform,
        nodata=MASK_NO_DATA,
        descriptions=["cloud mask"],
        colormap=mask_colormap(),
    ) as dataset:
        for top in range(0, height, STRIP):
            part = np.ascontiguousarray(classes[top : top + STRIP])
            counts += count_values(part)
            dataset.write(part, 1, window=RasterioWindow(0, top, width, len(part)))
    return counts


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
    classes: UInt8,
    value: int,
    to: int,
    ground: Ground,
    below_m2: float,
    advance: Callable[[int], None],
    *,
    touching: bool = False,
) -> None:
    """Set another class for the small areas of a class; they are painted as soon as they are known to be small.

    Args:
        classes: `(row, col)`, is changed.
        value: class of the areas.
        to: their new class.
        ground: sizes of the pixels.
        below_m2: size in square meters from which an area stays.
        advance: called with the number of rows that are done.
        touching: leave areas alone that have no pixel of the new class beside them.
    """
    for components in iter_components(classes, value, ground, below_m2=below_m2, advance=advance):
        by_strip: dict[int, list[Polygon]] = {}
        for component in components:
            if touching and not any(touches(classes, piece, to) for _, piece in component.pieces):
                continue
            for top, piece in component.pieces:
                by_strip.setdefault(top, []).append(piece)
        for pieces in by_strip.values():
            paint(classes, pieces, to)
