"""Brightness of pixels: a trivial mask that is cloud where it is bright, the reflectance of the ground, saturation."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, REFLECTANCE_SCALE
from cloudseg.dataset.chips import ChipSet
from cloudseg.raster.brightness import BINS, STEP, Histogram, UInt16, brightness
from cloudseg.raster.brightness import visible as visible
from cloudseg.records import Chip

_STRIDE: Final = 4
"""The threshold is tuned on every 4th row and column of the training chips: a sixteenth of the pixels."""
_BRIGHT_DN: Final = 0.3 * REFLECTANCE_SCALE
"""A scene whose maximum is below this is dark, not saturated (8-bit true color saturates at 0.3558)."""
_PLATEAU: Final = 0.98
"""Share of the scene's maximum from which on a pixel counts as saturated."""


def histograms(dn: UInt16, label: npt.NDArray[np.uint8], positions: Sequence[int]) -> tuple[Histogram, Histogram]:
    """Return the number of pixels by brightness bin: of clear ground, and of cloud."""
    bins = brightness(dn, positions)
    clear, cloud = (np.bincount(bins[label == value], minlength=BINS) for value in (MASK_CLEAR, MASK_CLOUD))
    return clear, cloud


def median_reflectance(histogram: Histogram) -> float | None:
    """Return the median reflectance of a histogram by brightness bin, None for an empty one."""
    total = int(histogram.sum())
    if not total:
        return None
    middle = int(np.searchsorted(np.cumsum(histogram), (total + 1) // 2))
    return (middle + 0.5) * STEP / REFLECTANCE_SCALE


def tune_threshold(chips: ChipSet) -> int | None:
    """Return the threshold of the brightness mask, tuned on the training places.

    Returns:
        The brightness bin from which on the mask is cloud, so that its pooled IoU is highest; None without training
        pixels.
    """
    positions = visible(chips.bands)
    clear, cloud = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    for chip in chips.of("train"):
        dn, label = chips.pixels(chip)[:, ::_STRIDE, ::_STRIDE], chips.label(chip)[::_STRIDE, ::_STRIDE]
        for total, part in zip((clear, cloud), histograms(dn, label, positions), strict=True):
            total += part
    if not clear.any() and not cloud.any():
        return None
    # Pixels at or above each bin.
    fp, tp = clear[::-1].cumsum()[::-1], cloud[::-1].cumsum()[::-1]
    iou = tp / np.maximum(cloud.sum() + fp, 1)
    return int(np.argmax(iou))


def above(clear: Histogram, cloud: Histogram, threshold: int) -> dict[str, int]:
    """Return tp, fp, fn and tn of the mask that is cloud from this brightness bin on."""
    return {
        "tp": int(cloud[threshold:].sum()),
        "fp": int(clear[threshold:].sum()),
        "fn": int(cloud[:threshold].sum()),
        "tn": int(clear[:threshold].sum()),
    }


class Saturation:
    """Counter of the labeled pixels of a scene that are near the scene's maximum in every visible band.

    An unsaturated scene has few such pixels, so no table of sensors is needed. A scene with a low maximum is dark and
    has no saturated pixels. Near, not equal, because lossy compression spreads a plateau: 250 of 255 in an 8-bit image.
    """

    def __init__(self, chips: ChipSet, of_scene: Iterable[Chip], positions: Sequence[int]) -> None:
        tops = [chips.pixels(chip)[list(positions)].max(axis=(1, 2)) for chip in of_scene]
        self._positions = list(positions)
        top = np.max(tops, axis=0)
        self._bright = bool((top >= _BRIGHT_DN).all())
        self._near_top = (top * _PLATEAU)[:, np.newaxis, np.newaxis]

    def count(self, dn: UInt16, labeled: npt.NDArray[np.bool_]) -> int:
        """Return the number of saturated labeled pixels of a chip."""
        if not self._bright:
            return 0
        at_top = (dn[self._positions] >= self._near_top).all(axis=0)
        return int(np.count_nonzero(at_top & labeled))
