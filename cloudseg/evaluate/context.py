"""What lies around a chip.

A chip is judged with the ground that its net would see when the whole scene is predicted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cloudseg.dataset.chips import ChipSet
from cloudseg.evaluate.windows import inside, window_of
from cloudseg.grid import Window
from cloudseg.records import Chip


@dataclass(frozen=True)
class View:
    """A chip with its surroundings."""

    dn: npt.NDArray[np.uint16]
    """`(band, row, col)`, 0 where no chip of the scene lies."""
    chip: tuple[slice, slice]
    """Where the chip itself lies in it."""


def look_around(
    chips: ChipSet, of_scene: Sequence[Chip], chip: Chip, *, bands: Sequence[int], margin: int, step: int
) -> View:
    """Return a chip with up to `margin` pixels on every side, put together from the other chips of its scene.

    It begins at a multiple of `step` where the scene's other chips reach that far, so that the net averages and pools
    the same pixels together as in the whole scene. Memory: at most nine chips, as the margin is cut at the size of a
    chip.
    """
    margin = min(margin, chips.chip_size)
    wanted = _wanted(window_of(chip), margin, step)
    near = [(other, part) for other in of_scene if (part := _overlap(window_of(other), wanted)) is not None]
    frame = _frame([part for _, part in near])
    dn = np.zeros((len(bands), frame.height, frame.width), np.uint16)
    for other, part in near:
        dn[:, *inside(part, frame)] = chips.pixels(other)[list(bands)][:, *inside(part, window_of(other))]
    return View(dn, inside(window_of(chip), frame))


def _wanted(window: Window, margin: int, step: int) -> Window:
    top, left = (max(0, (start - margin) // step * step) for start in (window.row_off, window.col_off))
    return Window(
        top, left, window.row_off + window.height + margin - top, window.col_off + window.width + margin - left
    )


def _overlap(one: Window, other: Window) -> Window | None:
    top, left = max(one.row_off, other.row_off), max(one.col_off, other.col_off)
    bottom = min(one.row_off + one.height, other.row_off + other.height)
    right = min(one.col_off + one.width, other.col_off + other.width)
    return Window(top, left, bottom - top, right - left) if bottom > top and right > left else None


def _frame(parts: Sequence[Window]) -> Window:
    top, left = min(part.row_off for part in parts), min(part.col_off for part in parts)
    bottom, right = max(part.row_off + part.height for part in parts), max(part.col_off + part.width for part in parts)
    return Window(top, left, bottom - top, right - left)
