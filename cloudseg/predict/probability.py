"""From the net's probability to the numbers in the two rasters. No raster is opened here.

The probability raster holds `round(probability * 250)` as uint8 (GDAL scale 1/250) and 255 where nothing was observed.
The mask is made of that raster, not of the float before it: a mask pixel is cloud exactly where the published
probability is at least the threshold, so that anybody can make the mask again.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA
from cloudseg.grid import Window

STEPS: Final = 250
"""Probability 1 in the raster: steps of 0.004, and 251 .. 254 stay free."""

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]


def encode_probability(probability: Floats, valid: Bools) -> Bytes:
    """Return uint8 `(row, col)`: 0 .. 250, and 255 where `valid` is False. Half steps round to even, as numpy does."""
    steps: Bytes = np.rint(np.clip(probability, 0.0, 1.0) * np.float32(STEPS)).astype(np.uint8)
    steps[~valid] = MASK_NO_DATA
    return steps


def classify(steps: Bytes, threshold: float) -> Bytes:
    """Return the mask of a quantised probability.

    1 where `steps / 250 >= threshold`, else 0, and 255 where it is 255.
    """
    lowest = first_cloud_step(threshold)
    mask = np.where(steps >= lowest, np.uint8(MASK_CLOUD), np.uint8(MASK_CLEAR))
    return np.where(steps == MASK_NO_DATA, np.uint8(MASK_NO_DATA), mask)


def first_cloud_step(threshold: float) -> int:
    """Return the lowest step that counts as cloud; 1e-9 keeps a threshold that is a whole step on its side."""
    return math.ceil(threshold * STEPS - 1e-9)


def core_in_scene(core: Window, factor: int, height: int, width: int) -> Window:
    """Return the scene pixels under a window of working pixels; the last working pixels may reach beyond the scene."""
    top, left = core.row_off * factor, core.col_off * factor
    bottom = min((core.row_off + core.height) * factor, height)
    right = min((core.col_off + core.width) * factor, width)
    return Window(top, left, bottom - top, right - left)


def upsample(probability: Floats, observed: Bools, origin: tuple[int, int], target: Window, factor: int) -> Floats:
    """Return the probability at scene pixels: bilinear between the centres of working pixels, observed ones only.

    Args:
        probability: `(row, col)` of working pixels, beginning at `origin`.
        observed: same shape; working pixels without observation have no say.
        origin: row and column of `probability[0, 0]` in the working grid.
        target: window of scene pixels. The array must hold its working pixels and, where the scene goes on, one more
            around: then neighbouring windows give the same numbers as one window over both, and no seam shows.
        factor: scene pixels a working pixel, along an axis.

    Returns:
        float32 `(target.height, target.width)`; 0 where nothing around was observed.
    """
    if factor == 1:
        rows, cols = Window(target.row_off - origin[0], target.col_off - origin[1], target.height, target.width).slices
        return probability[rows, cols]
    row = _neighbours(target.row_off, target.height, origin[0], probability.shape[0], factor)
    col = _neighbours(target.col_off, target.width, origin[1], probability.shape[1], factor)
    share = observed.astype(np.float32)
    weight = _between(share, row, col)
    total = _between(np.where(observed, probability, np.float32(0.0)), row, col)
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)


_Axis = tuple[NDArray[np.intp], NDArray[np.intp], Floats]


def _neighbours(start: int, count: int, origin: int, length: int, factor: int) -> _Axis:
    """Return the two working pixels around every scene pixel of an axis and the share of the second, from global positions."""
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
