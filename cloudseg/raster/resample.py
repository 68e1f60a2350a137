"""The one rule between scene pixels and the coarser working pixels of a net: only observed pixels contribute.

Snapshots, evaluation and prediction average with `downsample` on the way to the net. Evaluation and prediction
interpolate with `upsample` on the way back. No raster is opened here.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudseg.bands import NO_DATA
from cloudseg.grid import Window

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
UInt16 = NDArray[np.uint16]


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
    observed: Bools = np.all(dn != NO_DATA, axis=0)
    if factor == 1:
        return dn * observed, observed
    counts = block_sums(observed[np.newaxis], factor)[0]
    sums = block_sums(np.where(observed, dn, NO_DATA), factor)
    divisor = np.maximum(counts, 1)
    means: UInt16 = ((sums + divisor // 2) // divisor).astype(np.uint16)
    return means, counts > 0


def block_sums(values: NDArray[Any], factor: int) -> NDArray[np.uint32]:
    """Sum blocks of `factor` x `factor` of `(band, row, col)`; pixels that the last blocks lack count as 0."""
    bands, rows, cols = values.shape
    height, width = working_shape(rows, cols, factor)
    padding = ((0, 0), (0, height * factor - rows), (0, width * factor - cols))
    padded = np.pad(values, padding) if padding != ((0, 0), (0, 0), (0, 0)) else values
    sums: NDArray[np.uint32] = padded.reshape(bands, height, factor, width, factor).sum(axis=(2, 4), dtype=np.uint32)
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
    lines = values[upper] + (values[lower] - values[upper]) * down[:, None]
    between: Floats = lines[:, left] + (lines[:, right] - lines[:, left]) * across
    return between
