"""Cut the windows that a net sees out of a scene that is read once, from top to bottom.

Windows overlap by twice their margin: read one by one, the tiles of a scene would be decoded several times. Here the
scene is read in strips of whole tiles over its full width, each strip is averaged to working pixels at once, and a row
of working pixels is kept until the last window that needs it. Where pixels were observed comes from the same read.

Memory: one strip of scene pixels, the working pixels of one row of windows, and a bit for each of its scene pixels.
Scenes wider than `MOST_COLS` are read in vertical parts, so that memory does not grow with the width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cloudseg.grid import Window, iter_strips
from cloudseg.model.windows import PaddedWindow
from cloudseg.raster.cog import BLOCK_SIZE
from cloudseg.raster.resample import Bools, UInt16, average_observed, observed_pixels, scene_window

MOST_COLS: Final = 16_384
"""Width in scene pixels that is read at once; a tile of Sentinel-2 has 10 980. A window may be wider."""
_CHUNK_ROWS: Final = 48
"""Scene rows that are averaged together: what they need stays in the processor's cache."""

ReadPixels = Callable[[Window, tuple[str, ...]], UInt16]
"""Read a window of scene pixels: window and bands. Returns canonical digital numbers `(band, row, col)`; a pixel is
observed where no band is 0."""
OpenPixels = Callable[[], AbstractContextManager[ReadPixels]]
"""Open the pixels of a scene; called, and read from, in the thread that reads ahead."""


@dataclass(frozen=True)
class Validity:
    """Which scene pixels were observed, eight per byte along a row."""

    area: Window
    """In scene pixels."""
    bits: npt.NDArray[np.uint8]
    """`(row, byte)`; the first bit of a row is the first pixel of the area."""

    def part(self, window: Window) -> Bools:
        """Return bool `(row, col)` of a window of scene pixels inside the area."""
        rows, cols = window.within(self.area)
        first = cols.start // 8
        bits = np.unpackbits(self.bits[rows, first : -(-cols.stop // 8)], axis=1)
        return bits[:, cols.start - 8 * first : cols.stop - 8 * first].view(np.bool_)

    def any(self, window: Window) -> bool:
        """Return whether any pixel of a window was observed."""
        return any(self.part(strip).any() for strip in iter_strips(window, BLOCK_SIZE))


@dataclass(frozen=True)
class WindowPixels:
    """What a net needs for one window, and what is needed to draw its result."""

    window: PaddedWindow
    target: Window
    """The core in scene pixels."""
    row: Window
    """The cores of the whole row of windows in scene pixels."""
    valid: Validity
    """Of the same row."""
    dn: UInt16 | None
    """`(band, row, col)` over `window.padded`; None where nothing in the core was observed."""
    observed: Bools | None
    """`(row, col)` over `window.padded`."""

    @property
    def ends_row(self) -> bool:
        """Whether it is the last one of its row of windows."""
        return self.target.col_off + self.target.width == self.row.col_off + self.row.width


def iter_window_pixels(
    read: ReadPixels, bands: tuple[str, ...], shape: tuple[int, int], factor: int, windows: Sequence[PaddedWindow]
) -> Iterator[WindowPixels]:
    """Yield the pixels of windows, row by row; every scene pixel is read once in each vertical part.

    Args:
        read: reads scene pixels.
        bands: names of the wanted bands.
        shape: height and width of the scene in scene pixels.
        factor: scene pixels per working pixel, along an axis.
        windows: a grid of windows, row by row, as `plan_windows` returns it.
    """
    for columns in _vertical_parts(windows, MOST_COLS // factor):
        across = _span([window.padded for window in columns[0]])
        rows = _WorkingRows(read, bands, shape, factor, scene_window(across, factor, *shape))
        for row in columns:
            padded = row[0].padded
            rows.advance(padded.row_off, padded.row_off + padded.height)
            area = scene_window(_span([window.core for window in row]), factor, *shape)
            valid = rows.validity(area.row_off, area.row_off + area.height)
            for window in row:
                target = scene_window(window.core, factor, *shape)
                if not valid.any(target):
                    yield WindowPixels(window, target, area, valid, None, None)
                else:
                    dn, observed = rows.part(window.padded)
                    yield WindowPixels(window, target, area, valid, dn, observed)


def _vertical_parts(windows: Sequence[PaddedWindow], most_cols: int) -> Iterator[list[list[PaddedWindow]]]:
    """Yield the windows of as many columns as fit into a width of working pixels, at least one, as a list of rows."""
    rows = [list(row) for _, row in groupby(windows, key=lambda window: window.core.row_off)]
    first = 0
    for column in range(1, len(rows[0]) + 1):
        end = column == len(rows[0])
        if end or _span([window.padded for window in rows[0][first : column + 1]]).width > most_cols:
            yield [row[first:column] for row in rows]
            first = column


def _span(windows: Sequence[Window]) -> Window:
    """Return the window from the left edge of the first to the right edge of the last of a row."""
    first, last = windows[0], windows[-1]
    return Window(first.row_off, first.col_off, first.height, last.col_off + last.width - first.col_off)


class _WorkingRows:
    """Rows of working pixels of a vertical part of a scene, made of strips of scene rows that are read once."""

    def __init__(
        self, read: ReadPixels, bands: tuple[str, ...], shape: tuple[int, int], factor: int, across: Window
    ) -> None:
        self._read, self._bands, self._factor = read, bands, factor
        self._height, self._across = shape[0], across
        self._left = across.col_off // factor
        self._next = 0
        """The first scene row that was not read yet."""
        self._rest = np.empty((len(bands), 0, across.width), np.uint16)
        """Scene rows of a strip that do not fill a row of working pixels."""
        self._dn, self._observed, self._bits = _NewestRows(), _NewestRows(), _NewestRows()

    def advance(self, top: int, bottom: int) -> None:
        """Forget the working rows above `top` and read what those above `bottom` need."""
        self._dn.forget(top)
        self._observed.forget(top)
        self._bits.forget(top * self._factor)
        while self._next < min(bottom * self._factor, self._height):
            rows = min(BLOCK_SIZE, self._height - self._next)
            strip = Window(self._next, self._across.col_off, rows, self._across.width)
            self._next += rows
            self._add(self._read(strip, self._bands))

    def part(self, window: Window) -> tuple[UInt16, Bools]:
        """Return a copy of the pixels of a window of working pixels and which of them were observed."""
        cols = slice(window.col_off - self._left, window.col_off - self._left + window.width)
        rows = window.row_off, window.row_off + window.height
        dn, observed = self._dn.part(*rows)[..., cols], self._observed.part(*rows)[..., cols]
        return dn.copy(), observed.copy()  # the rows are moved when older ones are forgotten

    def validity(self, first: int, end: int) -> Validity:
        """Return which pixels of some scene rows were observed."""
        area = Window(first, self._across.col_off, end - first, self._across.width)
        return Validity(area, self._bits.part(first, end).copy())

    def _add(self, dn: UInt16) -> None:
        """Average a strip of scene rows, after what was left of the one before it."""
        whole, rest = self._factor, self._rest.shape[1]
        begin = min(whole - rest, dn.shape[1]) if rest else 0
        if rest:
            self._rest = np.concatenate([self._rest, dn[:, :begin]], axis=1)
            if self._rest.shape[1] == whole:
                self._average(self._rest)
                self._rest = self._rest[:, :0]
        end = begin + (dn.shape[1] - begin) // whole * whole
        step = max(1, _CHUNK_ROWS // whole) * whole
        for row in range(begin, end, step):
            self._average(dn[:, row : min(row + step, end)])
        if end < dn.shape[1]:
            self._rest = dn[:, end:].copy()
        if self._next == self._height and self._rest.shape[1]:
            self._average(self._rest)  # the last row of working pixels, of fewer scene pixels

    def _average(self, dn: UInt16) -> None:
        observed = observed_pixels(dn)
        self._bits.append(np.packbits(observed, axis=1))
        means, seen = average_observed(dn, observed, self._factor)
        self._dn.append(means)
        self._observed.append(seen)


class _NewestRows:
    """The newest rows of a large array `(..., row, col)`, of which no more is kept than is needed."""

    def __init__(self) -> None:
        self._values: npt.NDArray[Any] | None = None
        self._first = self._end = 0

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Add rows below the newest."""
        used, more = self._end - self._first, rows.shape[-2]
        if self._values is None or used + more > self._values.shape[-2]:
            grown = np.empty((*rows.shape[:-2], max(used + more, 5 * used // 4), rows.shape[-1]), rows.dtype)
            if self._values is not None:
                grown[..., :used, :] = self._values[..., :used, :]
            self._values = grown
        self._values[..., used : used + more, :] = rows
        self._end += more

    def forget(self, row: int) -> None:
        """Drop the rows above one."""
        dropped = min(row, self._end) - self._first
        if dropped > 0 and self._values is not None:
            kept = self._end - self._first - dropped
            self._values[..., :kept, :] = self._values[..., dropped : dropped + kept, :]
            self._first += dropped

    def part(self, first: int, end: int) -> npt.NDArray[Any]:
        """Return a view of rows, by their number in the whole array."""
        if self._values is None or first < self._first or end > self._end:
            raise ValueError(f"rows {first} to {end} are not among {self._first} to {self._end}")
        return self._values[..., first - self._first : end - self._first, :]
