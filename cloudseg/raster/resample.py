"""The one rule between scene pixels and the coarser working pixels of a net: only observed pixels contribute.

Snapshots, evaluation and prediction average with `downsample` on the way to the net. Evaluation and prediction
interpolate with `upsample` on the way back. No raster is opened here.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cloudseg.bands import NO_DATA
from cloudseg.grid import Window

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
UInt16 = NDArray[np.uint16]
_ROWS_AT_ONCE: Final = 8
"""Rows of blocks that are summed together: with 3 x 3 pixels, 24 rows of 16 384 pixels are a megabyte."""


def working_shape(height: int, width: int, factor: int) -> tuple[int, int]:
    """Return height and width in working pixels: every scene pixel belongs to one."""
    return -(-height // factor), -(-width // factor)


def scene_window(window: Window, factor: int, height: int, width: int) -> Window:
    """Return the scene pixels under a window of working pixels, cut at the edge of a scene of `height` x `width`."""
    top, left = window.row_off * factor, window.col_off * factor
    bottom = min((window.row_off + window.height) * factor, height)
    right = min((window.col_off + window.width) * factor, width)
    return Window(top, left, bottom - top, right - left)


def downsample(dn: UInt16, factor: int) -> tuple[UInt16, Bools]:
    """Average scene pixels to working pixels.

    Args:
        dn: canonical digital numbers `(band, row, col)`; observed where no band is 0. The first pixel is the first of a
            block; the last block of a row or column may be smaller.
        factor: scene pixels per working pixel, along an axis.

    Returns:
        uint16 `(band, row, col)`, the rounded mean of the observed pixels of each block, 0 in every band where there is
        none; and bool `(row, col)`, True where there is one.
    """
    return average_observed(dn, observed_pixels(dn), factor)


def observed_pixels(dn: UInt16) -> Bools:
    """Return where no band of `(band, row, col)` is 0: bool `(row, col)`."""
    observed: Bools = dn[0] != NO_DATA
    for band in dn[1:]:  # a third faster than np.all over the first axis
        observed &= band != NO_DATA
    return observed


def average_observed(dn: UInt16, observed: Bools, factor: int) -> tuple[UInt16, Bools]:
    """Do what `downsample` does, where somebody already knows which pixels were observed, bool `(row, col)`."""
    whole = bool(observed.all())
    if factor == 1:
        return (dn if whole else dn * observed), observed
    sums = block_sums(dn if whole else np.where(observed, dn, NO_DATA), factor)
    full = np.uint32(factor * factor)
    means: UInt16 = ((sums + full // 2) // full).astype(np.uint16)
    rows, cols = observed.shape
    if whole and rows % factor == cols % factor == 0:
        return means, np.ones(means.shape[1:], np.bool_)
    counts = block_sums(observed[np.newaxis], factor)[0]
    # Dividing by one number is several times as fast as by an array of numbers, which only these pixels need.
    partial = counts != full
    divisor = np.maximum(counts[partial], 1)
    means[:, partial] = (sums[:, partial] + divisor // 2) // divisor
    return means, counts > 0


def block_sums(values: NDArray[Any], factor: int) -> NDArray[np.uint32]:
    """Sum blocks of `factor` x `factor` of `(band, row, col)`; pixels that the last blocks lack count as 0.

    Row by row of a block, then column by column, a few rows at a time, which stay in the processor's cache: a tenth of
    the time that numpy takes for the sum of an array `(band, row, factor, col, factor)` (measured for 3 x 3).
    """
    bands, rows, cols = values.shape
    height, width = working_shape(rows, cols, factor)
    sums = np.zeros((bands, height, width), np.uint32)
    for band in range(bands):
        for first in range(0, height, _ROWS_AT_ONCE):
            part = values[band, first * factor : (first + _ROWS_AT_ONCE) * factor]
            lines = part[::factor].astype(np.uint32)
            for offset in range(1, factor):
                more = part[offset::factor]
                lines[: len(more)] += more
            out = sums[band, first : first + len(lines)]
            for offset in range(factor):
                more = lines[:, offset::factor]
                out[:, : more.shape[1]] += more
    return sums


def upsample(probability: Floats, observed: Bools, origin: tuple[int, int], target: Window, factor: int) -> Floats:
    """Return the probability at scene pixels: bilinear between the centers of working pixels, observed ones only.

    Args:
        probability: `(row, col)` of working pixels, beginning at `origin`.
        observed: same shape; unobserved working pixels do not contribute.
        origin: row and column of `probability[0, 0]` in the working grid.
        target: window of scene pixels. The array must hold its working pixels and, where the scene continues, one more
            around: then neighboring windows yield the same values as one window over both, without a seam.
        factor: scene pixels per working pixel, along an axis.

    Returns:
        float32 `(target.height, target.width)`; 0 where nothing around was observed.
    """
    if factor == 1:
        rows, cols = Window(target.row_off - origin[0], target.col_off - origin[1], target.height, target.width).slices
        return probability[rows, cols]
    row = _neighbors(target.row_off, target.height, origin[0], probability.shape[0], factor)
    col = _neighbors(target.col_off, target.width, origin[1], probability.shape[1], factor)
    if observed[row[0][0] : row[1][-1] + 1, col[0][0] : col[1][-1] + 1].all():
        return _between(probability, row, col)  # every weight is exactly 1
    share = observed.astype(np.float32)
    weight = _between(share, row, col)
    total = _between(np.where(observed, probability, np.float32(0.0)), row, col)
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)


_Axis = tuple[NDArray[np.intp], NDArray[np.intp], Floats]


def _neighbors(start: int, count: int, origin: int, length: int, factor: int) -> _Axis:
    """Return the two working pixels around every scene pixel of an axis, and the share of the second.

    Computed from positions in the scene, so that neighboring windows yield the same values.
    """
    position = np.maximum((np.arange(start, start + count) + 0.5) / factor - 0.5, 0.0)
    first = np.floor(position)
    share = (position - first).astype(np.float32)
    index = first.astype(np.intp) - origin
    return np.clip(index, 0, length - 1), np.clip(index + 1, 0, length - 1), share


def _between(values: Floats, row: _Axis, col: _Axis) -> Floats:
    upper, lower, down = row
    left, right, across = col
    lines = values[upper]
    lines += (values[lower] - lines) * down[:, None]
    between: Floats = np.take(lines, left, axis=1)
    rise = np.take(lines, right, axis=1)
    rise -= between
    rise *= across
    between += rise
    return between
