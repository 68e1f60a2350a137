"""Pixel windows and places on the ground: arithmetic only."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import mgrs

EARTH_RADIUS_M: Final = 6_371_008.8
"""Mean radius R1 of the WGS 84 ellipsoid (Moritz 2000)."""


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of pixels: rows `row_off .. row_off + height`, columns likewise."""

    row_off: int
    col_off: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices for an array `(..., row, col)`."""
        return slice(self.row_off, self.row_off + self.height), slice(self.col_off, self.col_off + self.width)

    def within(self, outer: "Window") -> tuple[slice, slice]:
        """Return the slices that cut this window out of an array `(..., row, col)` that holds `outer`."""
        return Window(self.row_off - outer.row_off, self.col_off - outer.col_off, self.height, self.width).slices

    def overlap(self, other: "Window") -> "Window | None":
        """Return the pixels that both windows hold, None if there are none."""
        top, left = max(self.row_off, other.row_off), max(self.col_off, other.col_off)
        bottom = min(self.row_off + self.height, other.row_off + other.height)
        right = min(self.col_off + self.width, other.col_off + other.width)
        return Window(top, left, bottom - top, right - left) if bottom > top and right > left else None


def starts(length: int, size: int, overlap: int = 0) -> list[int]:
    """Return the first pixels of the spans that cover a length; the last span is shifted back to end at the edge.

    Args:
        length: pixels to cover; at most `size` of them need one span.
        size: of a span.
        overlap: least number of pixels that neighboring spans share.

    Raises:
        ValueError: length or size is below 1, or the overlap is not smaller than the size.
    """
    if length <= 0 or size <= 0 or not 0 <= overlap < size:
        raise ValueError(f"spans of size {size} with overlap {overlap} cannot cover a length of {length}")
    if length <= size:
        return [0]
    count = math.ceil((length - overlap) / (size - overlap))
    return [min(i * (size - overlap), length - size) for i in range(count)]


def iter_windows(height: int, width: int, size: int, overlap: int = 0) -> Iterator[Window]:
    """Yield windows of at most `size` × `size` that cover the grid exactly and stay inside it, row by row."""
    for row in starts(height, size, overlap):
        for col in starts(width, size, overlap):
            yield Window(row, col, min(size, height), min(size, width))


def iter_strips(window: Window, step: int) -> Iterator[Window]:
    """Cut a window at the rows that are multiples of `step`: at the rows of tiles, where `step` is their height."""
    row, end = window.row_off, window.row_off + window.height
    while row < end:
        stop = min(end, (row // step + 1) * step)
        yield Window(row, window.col_off, stop - row, window.width)
        row = stop


_COARSER: Final = 1 / 8
"""How much coarser than the working resolution a working pixel may be: sensors of 16 m are seen at 32, not at 16."""


def decimation(resolution_m: float | None, working_resolution_m: float | None) -> int:
    """Return how many scene pixels make one working pixel along an axis (at least 1).

    A scene that is finer than the working resolution of the model is downsampled by an integer factor before the
    forward pass; a coarser one is used as it is. The factor is the nearest, but none whose pixels are more than an
    eighth coarser than the working resolution: a net for 30 m sees scenes of 20 m as they are, because at 40 m its IoU
    was lower by 0.08 and 0.09 on two data sets (docs/decisions/0016_nightly.md).
    """
    if not resolution_m or not working_resolution_m:
        return 1
    factor = working_resolution_m / resolution_m
    return max(1, min(round(factor), math.floor((1 + _COARSER) * factor)))


def mgrs_place(lon: float, lat: float) -> str:
    """Return the place of a point: its MGRS 100 km square, such as `mgrs:31UDQ` (polar: `mgrs:ZAH`).

    Sentinel-2 tiles have the names of these squares, so scenes of all sensors share the same places.
    """
    return f"mgrs:{mgrs.MGRS().toMGRS(lat, wrap_lon(lon), MGRSPrecision=0)}"


def wrap_lon(lon: float) -> float:
    """Return the longitude in [-180, 180)."""
    return (lon + 180.0) % 360.0 - 180.0


def meters_per_degree(lat: float) -> tuple[float, float]:
    """Return meters per degree of latitude and of longitude on the mean sphere at a latitude."""
    one = math.radians(EARTH_RADIUS_M)
    return one, one * math.cos(math.radians(lat))
