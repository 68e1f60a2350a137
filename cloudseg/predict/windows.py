"""Which windows of a scene to predict, and how far each must look beyond itself. Pure arithmetic.

A U-Net in evaluation mode sees a finite neighbourhood. A window whose core is `margin` pixels away from every edge that is
not an edge of the scene therefore gives, in its core, exactly what the whole scene in one piece would give: nothing has to
be blended and no seam can show. Offsets are whole pooling cells, so that windows and scene pool the same pixels together.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cloudseg.grid import Window

CORE_STEP: Final = 256
"""Cores are multiples of half a COG tile: most tiles of the output are then written once. A multiple of every pooling cell."""


@dataclass(frozen=True)
class Piece:
    """One forward pass. Everything in working pixels of the scene."""

    core: Window
    """The pixels whose probability is kept; the cores of a scene cover it exactly, without overlap."""
    read: Window
    """The pixels that the net sees: the core and its margin, cut at the edges of the scene."""


def margin_of(radius: int, multiple: int, halo: int = 0) -> int:
    """Give the margin around a core: receptive radius of the net and halo, rounded up to whole pooling cells of `multiple` pixels."""
    return math.ceil((radius + halo) / multiple) * multiple


def choose_core(width: int, *, bytes_per_value: int, budget_bytes: int, margin: int) -> int:
    """Give the side of the largest core whose forward pass stays within a memory budget; 256 at least.

    `width` is the number of channels at full resolution. A U-Net holds about six maps of that many channels at once: the
    skip, the upsampled map, the two joined, input and output of the running convolution (measured by benchmarks/predict.py).
    """
    side = math.isqrt(max(budget_bytes // (6 * width * bytes_per_value), 1))
    return max(CORE_STEP, (side - 2 * margin) // CORE_STEP * CORE_STEP)


def iter_pieces(height: int, width: int, *, core: int, margin: int) -> Iterator[Piece]:
    """Give the pieces of a scene of `height` x `width` working pixels, row by row.

    Core and margin are multiples of the net's pooling cell. Raises ValueError for a core below 1 or a negative margin.
    """
    if core < 1 or margin < 0:
        raise ValueError(f"core {core} and margin {margin} cannot cover anything")
    for row in range(0, height, core):
        for col in range(0, width, core):
            inner = Window(row, col, min(core, height - row), min(core, width - col))
            yield Piece(core=inner, read=grown(inner, margin, height, width))


def grown(window: Window, margin: int, height: int, width: int) -> Window:
    """Give the window with a margin on every side, cut at the edges of a `height` x `width` grid."""
    top, left = max(0, window.row_off - margin), max(0, window.col_off - margin)
    bottom = min(height, window.row_off + window.height + margin)
    right = min(width, window.col_off + window.width + margin)
    return Window(top, left, bottom - top, right - left)


def inside(inner: Window, outer: Window) -> tuple[slice, slice]:
    """Give the slices that cut `inner` out of an array `(..., row, col)` that holds `outer`."""
    return Window(inner.row_off - outer.row_off, inner.col_off - outer.col_off, inner.height, inner.width).slices
