"""Fractal noise that is bit-identical on every machine, evaluated at any pixels of an infinite plane.

Only additions, multiplications and integer hashes are used: IEEE 754 rounds these alike on every processor, while
`exp`, `sin` and BLAS products differ with the vector unit. The synthetic scenes use it.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Hashes = NDArray[np.uint64]

_SPLINE_GAIN: Final = np.float32(3.62)
"""Factor by which one octave gets a standard deviation near 1: uniform numbers in [-1, 1] have a variance of 1/3, of
which a bicubic B-spline keeps 0.23."""


def hashed(seed: int, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Hashes:
    """Return 64-bit hashes of integer coordinates (arrays that broadcast), mixed as in SplitMix64.

    G. Steele, D. Lea and C. Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
    """
    start = np.full(1, seed % 2**64, np.uint64)
    return _mixed(_mixed(_mixed(start) ^ rows.astype(np.uint64)) ^ cols.astype(np.uint64))


def _mixed(bits: Hashes) -> Hashes:
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def uniform(bits: Hashes, part: int = 0) -> Floats:
    """Return values in [0, 1) from 16 bits of the hashes; `part` 0..3 chooses which."""
    return ((bits >> np.uint64(16 * part)) & np.uint64(0xFFFF)).astype(np.float32) / np.float32(65536)


def smoothstep(values: Floats) -> Floats:
    """Return 0 below 0, 1 above 1 and a smooth ramp between."""
    ramp = np.clip(values, np.float32(0), np.float32(1))
    return ramp * ramp * (np.float32(3) - np.float32(2) * ramp)


def fractal(seed: int, rows: Floats, cols: Floats, *, period: float, octaves: int, gain: float = 0.55) -> Floats:
    """Return float32 noise `(len(rows), len(cols))` of mean near 0 and standard deviation near 1.

    It takes about 5 ns per pixel and octave.

    Args:
        seed: of the noise.
        rows: pixel coordinates.
        cols: pixel coordinates.
        period: size in pixels of the coarsest features.
        octaves: how many; each halves the size of the features.
        gain: by which each octave multiplies the amplitude.
    """
    total = np.zeros((len(rows), len(cols)), np.float32)
    strength, power = 1.0, 0.0
    for octave in range(octaves):
        step = np.float32(period / 2**octave)
        total += np.float32(strength) * _octave(seed + 1_000_003 * octave, rows / step, cols / step)
        power += strength * strength
        strength *= gain
    return total * np.float32(1.0 / math.sqrt(power))


def _octave(seed: int, rows: Floats, cols: Floats) -> Floats:
    """Return random numbers at whole coordinates interpolated by a bicubic B-spline, which is smooth."""
    first_row, row_at, row_weights = _taps(rows)
    first_col, col_at, col_weights = _taps(cols)
    grid_rows = np.arange(first_row, first_row + int(row_at.max()) + 4, dtype=np.int64)[:, None]
    grid_cols = np.arange(first_col, first_col + int(col_at.max()) + 4, dtype=np.int64)[None, :]
    grid = (np.float32(2) * uniform(hashed(seed, grid_rows, grid_cols)) - np.float32(1)) * _SPLINE_GAIN
    narrow = row_weights[0][:, None] * grid[row_at]
    for tap in (1, 2, 3):
        narrow += row_weights[tap][:, None] * grid[row_at + tap]
    wide = col_weights[0] * narrow[:, col_at]
    for tap in (1, 2, 3):
        wide += col_weights[tap] * narrow[:, col_at + tap]
    return wide


def _taps(at: Floats) -> tuple[int, NDArray[np.int64], list[Floats]]:
    """Return the first grid coordinate, the index of each position from there, and the four cubic B-spline weights."""
    whole = np.floor(at)
    part = (at - whole).astype(np.float32)
    rest = np.float32(1) - part
    sixth = np.float32(1 / 6)
    weights = [
        rest * rest * rest * sixth,
        (np.float32(3) * part * part * part - np.float32(6) * part * part + np.float32(4)) * sixth,
        (np.float32(3) * rest * rest * rest - np.float32(6) * rest * rest + np.float32(4)) * sixth,
        part * part * part * sixth,
    ]
    index = whole.astype(np.int64) - 1
    first = int(index.min())
    return first, index - first, weights
