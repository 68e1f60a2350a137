"""The windows of a scene that a net predicts, and the margin that each needs.

Evaluation and prediction cut a scene with the same function, so that both compute bit-identical values: a
forward pass over another window may round differently.

A U-Net in evaluation mode sees a finite neighborhood. A window whose core is `margin` pixels away from every edge that
is not an edge of the scene therefore yields, in its core, exactly what one pass over the whole scene would yield:
nothing has to be blended and there is no seam. Offsets are whole pooling cells, so that windows and scene pool the same
pixels together.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cloudseg.grid import Window
from cloudseg.model.predictor import Predictor
from cloudseg.raster.resample import Bools, Floats, upsample

BUDGET_BYTES: Final = 512 << 20
"""Memory for one forward pass. In addition, torch uses about 200 MB where it is imported, GDAL's cache 64 MB, and the
queues some."""
_BYTES_PER_VALUE: Final = {"fp32": 4, "bf16": 2, "int8": 2}
"""Of an activation. In int8 the first and the last layers are float32: 115 to 132 bytes a pixel were measured where a
pass in float32 holds 64 to 80 values. By the arithmetic alone, so that any CPU cuts a scene in the same way."""
CORE_STEP: Final = 128
"""Cores are multiples of a quarter of a COG tile: a multiple of every pooling cell (nets have at most eight levels)."""
CORE_PIXELS: Final = 48_000_000
"""Scene pixels under one core at most.

If a working pixel is many scene pixels, these dominate the memory, not the forward pass:
a scene of 10 980 x 10 980 at 9 x 9 pixels per working pixel peaked at 1 141 MiB with cores of 45.8 million."""


@dataclass(frozen=True)
class PaddedWindow:
    """One forward pass, in working pixels of the scene."""

    core: Window
    """The pixels whose probability is kept; the cores of a scene cover it exactly, without overlap."""
    padded: Window
    """The pixels that the net sees: the core and its margin, cut at the edges of the scene."""

    @property
    def near(self) -> "PaddedWindow":
        """The same core with one working pixel around it, where the padded window has one: what `upsample` uses."""
        rows, cols = self.core.within(self.padded)
        top, left = max(rows.start - 1, 0), max(cols.start - 1, 0)
        bottom, right = min(rows.stop + 1, self.padded.height), min(cols.stop + 1, self.padded.width)
        near = Window(self.padded.row_off + top, self.padded.col_off + left, bottom - top, right - left)
        return PaddedWindow(self.core, near)

    def upsample(self, probability: Floats, observed: Bools, target: Window, factor: int) -> Floats:
        """Return the probability at scene pixels of the core.

        Only the core and one working pixel around it are used: further out the net has seen the edge of the window.

        Args:
            probability: `(row, col)` over `padded`.
            observed: `(row, col)` over `padded`.
            target: window of scene pixels inside the core.
            factor: scene pixels per working pixel, along an axis.

        Returns:
            float32 `(target.height, target.width)`.
        """
        near = self.near.padded
        kept = near.within(self.padded)
        return upsample(probability[kept], observed[kept], (near.row_off, near.col_off), target, factor)


def margin_of(radius: int, multiple: int, halo: int = 0) -> int:
    """Return the margin around a core.

    Receptive radius of the net and halo, rounded up to whole pooling cells of `multiple` pixels.
    """
    return math.ceil((radius + halo) / multiple) * multiple


def choose_core(values: int, *, bytes_per_value: int, budget_bytes: int, margin: int, factor: int = 1) -> int:
    """Return the side of the largest core whose forward pass and scene pixels stay within a memory budget.

    128 at least.

    `values` is how many values a forward pass holds at once for each pixel of its input
    (`WeightsMeta.values_per_pixel`). `factor` is how many scene pixels a working pixel spans along an axis; a core at
    an edge of the scene includes the margin.
    """
    side = math.isqrt(max(budget_bytes // (values * bytes_per_value), 1)) - 2 * margin
    side = min(side, math.isqrt(CORE_PIXELS) // factor - margin)
    return max(CORE_STEP, side // CORE_STEP * CORE_STEP)


def plan_windows(
    predictor: Predictor,
    height: int,
    width: int,
    factor: int,
    *,
    budget_bytes: int = BUDGET_BYTES,
    core: int | None = None,
) -> list[PaddedWindow]:
    """Return the windows in which a scene is predicted, row by row.

    Args:
        predictor: holds the net and the arithmetic that it computes in.
        height: rows of the scene in working pixels.
        width: columns of the scene in working pixels.
        factor: scene pixels per working pixel, along an axis.
        budget_bytes: memory for one forward pass; the windows are as large as it allows.
        core: side of the core in working pixels, instead of the largest that the memory allows.
    """
    meta = predictor.meta
    # Bilinear upsampling uses one working pixel beyond the core.
    margin = margin_of(meta.receptive_radius, meta.multiple, halo=1 if factor > 1 else 0)
    side = core or choose_core(
        meta.values_per_pixel,
        bytes_per_value=_BYTES_PER_VALUE[predictor.arithmetic],
        budget_bytes=budget_bytes,
        margin=margin,
        factor=factor,
    )
    return list(iter_padded_windows(height, width, core=side, margin=margin, multiple=meta.multiple))


def iter_padded_windows(height: int, width: int, *, core: int, margin: int, multiple: int) -> Iterator[PaddedWindow]:
    """Yield the windows of a scene of `height` x `width` working pixels, row by row.

    As few as cores of `core` pixels per side allow, and as small as that number allows. All padded windows have one
    size, at most `core + 2 * margin` per side, or the scene's if that is smaller (at its far edge up to `multiple - 1`
    less, which the predictor pads): equal activations fit into each other's memory, one after the other. Core and
    margin are multiples of `multiple`, the net's pooling cell.

    Raises:
        ValueError: core or margin is not a multiple of `multiple`.
    """
    if core < 1 or margin < 0 or core % multiple or margin % multiple:
        raise ValueError(f"core {core} and margin {margin} must be multiples of {multiple}, at least {multiple} and 0")
    rows, cols = (_spans(length, core, margin, multiple) for length in (height, width))
    for inner_row, row in rows:
        for inner_col, col in cols:
            yield PaddedWindow(
                core=Window(inner_row.start, inner_col.start, len(inner_row), len(inner_col)),
                padded=Window(row.start, col.start, len(row), len(col)),
            )


def _spans(length: int, core: int, margin: int, multiple: int) -> list[tuple[range, range]]:
    """Return core and padded window along one axis.

    At an edge of the scene no margin is needed: the core extends to the edge.
    """
    inner = max(length - 2 * margin, 1)
    count = math.ceil(inner / core)
    # Equal ones: a pass costs the same however small the part of the scene in its core is.
    core = math.ceil(inner / (count * multiple)) * multiple
    size = core + 2 * margin
    last = max(0, math.ceil((length - size) / multiple) * multiple)
    spans = []
    for number in range(count):
        start = margin + number * core if number > 0 else 0
        stop = margin + (number + 1) * core if number < count - 1 else length
        offset = min(number * core, last)
        spans.append((range(start, stop), range(offset, min(offset + size, length))))
    return spans
