"""Read a scene from its chips, and assign every pixel of it to one chip: chips overlap, but a pixel counts once."""

from collections.abc import Sequence

import numpy as np

from cloudseg.dataset.chips import ChipSet
from cloudseg.grid import Window
from cloudseg.raster.resample import UInt16
from cloudseg.records import Chip


def window_of(chip: Chip) -> Window:
    """Return the window of a chip in the snapshot's pixels of its scene, without padding."""
    return Window(chip.row_off, chip.col_off, chip.height, chip.width)


def read_mosaic(chips: ChipSet, of_scene: Sequence[Chip], window: Window, bands: Sequence[int]) -> UInt16:
    """Return the digital numbers `(band, row, col)` of a window of a scene, from all chips that it touches.

    Args:
        chips: the snapshot.
        of_scene: chips of the scene.
        window: in the snapshot's pixels; it may be larger than a chip. Pixels outside every chip are 0, no data.
        bands: positions of the bands to read.
    """
    dn = np.zeros((len(bands), window.height, window.width), np.uint16)
    for chip in of_scene:
        part = window_of(chip).overlap(window)
        if part is not None:
            dn[:, *part.within(window)] = chips.pixels(chip)[:, *part.within(window_of(chip))][list(bands)]
    return dn


def owned_windows(windows: Sequence[Window]) -> list[Window]:
    """Return the part of each window that it owns, in pixels of the scene.

    The overlap of neighbors is divided in the middle. The windows are those of a grid (`cloudseg.grid.iter_windows`),
    some may be missing; the parts are disjoint and together cover all that any two neighbors cover.
    """
    rows = _cuts(sorted({(window.row_off, window.height) for window in windows}))
    cols = _cuts(sorted({(window.col_off, window.width) for window in windows}))
    return [_own(rows[window.row_off], cols[window.col_off]) for window in windows]


def _cuts(spans: list[tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """Return first and last-plus-one owned pixel of every span `(start, size)` along one axis, by start."""
    firsts, lasts = [start for start, _ in spans], [start + size for start, size in spans]
    for left in range(len(spans) - 1):
        if firsts[left + 1] < lasts[left]:
            cut = (firsts[left + 1] + lasts[left]) // 2
            lasts[left], firsts[left + 1] = cut, cut
    return {start: (first, last) for (start, _), first, last in zip(spans, firsts, lasts, strict=True)}


def _own(rows: tuple[int, int], cols: tuple[int, int]) -> Window:
    return Window(rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0])
