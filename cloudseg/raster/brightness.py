"""The brightness of a scene: how it is counted, its percentiles, and whether training scenes had such ones.

Brightness is the mean of red, green and blue (of all bands where one is missing) of a pixel, in reflectance. A scene
whose scale, offset or stretch is another one than that of the training scenes has other percentiles of it, and a mask
of such a scene may be wrong although nothing failed (docs/decisions/0042_promise.md). Arithmetic only: no raster is
opened here.
"""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from cloudseg.bands import REFLECTANCE_SCALE, RGB
from cloudseg.records import BrightnessRange, Json, Record

STEP: Final = 50
"""Digital numbers in a bin: reflectance 0.005, about 3.6 steps of an 8-bit true-color image."""
BINS: Final = 65536 // STEP + 1
SAMPLE_STRIDE: Final = 4
"""The percentiles of a scene are those of every 4th row and column of the net's pixels: a sixteenth of them."""
PERCENTILES: Final = (1, 5, 25, 50)
"""Dark pixels first: an offset or a haze moves them most, and clouds, which fill the upper half of many scenes, hardly.
"""
MIN_SAMPLE: Final = 100
"""Pixels below which a scene has no percentiles: the 1st of fewer is just the darkest one."""
MIN_SCENES: Final = 50
"""Training scenes below which there is no range. Of exchangeable scenes, a new one is outside the extremes of `n` with
probability 2 / (n + 1) for each percentile: 4 % for 50, but 18 % for 10."""

UInt16 = npt.NDArray[np.uint16]
Histogram = npt.NDArray[np.int64]


class Radiometry(Record):
    """Whether the brightness of a scene is one that the training scenes had."""

    flag: Literal["inside", "outside", "unknown"]
    note: str = Field("", description="each percentile outside with what was found and expected, or why it is unknown")

    def tags(self) -> dict[str, str]:
        """Return it as tags of a file."""
        return {"CLOUDSEG_RADIOMETRY": self.flag} | ({"CLOUDSEG_RADIOMETRY_NOTE": self.note} if self.note else {})

    def properties(self) -> Json:
        """Return it as properties of a STAC item."""
        return {"cloudseg:radiometry": self.flag} | ({"cloudseg:radiometry_note": self.note} if self.note else {})


def visible(bands: Sequence[str]) -> list[int]:
    """Return the positions of red, green and blue, or of all bands where one of the three is missing."""
    return [bands.index(name) for name in RGB] if set(RGB) <= set(bands) else list(range(len(bands)))


def brightness(dn: UInt16, positions: Sequence[int]) -> npt.NDArray[np.intp]:
    """Return the brightness bin `(row, col)` of digital numbers `(band, row, col)`.

    The brightness is the mean of the bands at `positions`.
    """
    total = np.zeros(dn.shape[1:], np.uint32)
    for position in positions:
        total += dn[position]
    return (total // (len(positions) * STEP)).astype(np.intp)


def count_bins(dn: UInt16, positions: Sequence[int], valid: npt.NDArray[np.bool_]) -> Histogram:
    """Return the number of valid pixels by brightness bin, `(BINS,)`.

    Args:
        dn: uint16 `(band, row, col)`, canonical digital numbers.
        positions: of the bands that count.
        valid: bool `(row, col)`.
    """
    return np.bincount(brightness(dn, positions)[valid], minlength=BINS)


def percentiles_of(histogram: Histogram) -> tuple[float, ...] | None:
    """Return the reflectance at each of PERCENTILES: the middle of the bin in which it lies; None for a small sample.

    Args:
        histogram: pixels by brightness bin, `(BINS,)`.
    """
    total = int(histogram.sum())
    if total < MIN_SAMPLE:
        return None
    reached = np.cumsum(histogram)
    # Nearest rank: the smallest value that at least this share of the pixels does not exceed.
    bins = [int(np.searchsorted(reached, -(-percentile * total // 100))) for percentile in PERCENTILES]
    return tuple(round((found + 0.5) * STEP / REFLECTANCE_SCALE, 6) for found in bins)


def range_of(scenes: Sequence[tuple[float, ...]]) -> BrightnessRange | None:
    """Return the range that the 1st to the 99th of 100 scenes have of each percentile; None for too few scenes.

    Args:
        scenes: of each scene what `percentiles_of` returned.
    """
    if len(scenes) < MIN_SCENES:
        return None
    low, high = np.quantile(np.asarray(scenes, np.float64), (0.01, 0.99), axis=0)
    return BrightnessRange(
        scenes=len(scenes),
        percentiles=PERCENTILES,
        low=tuple(round(float(value), 4) for value in low),
        high=tuple(round(float(value), 4) for value in high),
    )


def compare_brightness(trained: BrightnessRange | None, found: Sequence[float] | None) -> Radiometry:
    """Return whether the percentiles of a scene are within the range of the training scenes.

    Args:
        trained: of the weights; None: they do not have it.
        found: of the scene; None: it has none.
    """
    if trained is None:
        return Radiometry(flag="unknown", note="the weights do not say how bright the training scenes were")
    if found is None:
        return Radiometry(
            flag="unknown",
            note=f"not measured: an older mask, or fewer than {MIN_SAMPLE} pixels of the scene sampled",
        )
    outside = [
        f"percentile {percentile} of brightness is {value:.4f}, in training {low:.4f} to {high:.4f}"
        for percentile, value, low, high in zip(trained.percentiles, found, trained.low, trained.high, strict=True)
        if not low <= value <= high
    ]
    return Radiometry(flag="outside" if outside else "inside", note="; ".join(outside))


def radiometry_of(metadata: Json, found: Sequence[float] | None) -> Radiometry:
    """Return the same for the metadata of weights (`Weights.metadata`)."""
    trained = metadata.get("brightness")
    return compare_brightness(BrightnessRange.model_validate(trained) if trained else None, found)
