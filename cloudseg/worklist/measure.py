"""Read the published rasters of a scene window by window and count what the scores need.

Nothing is predicted here. Memory: one window of each raster and 3 x 251 counts for each window of a scene.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from typing import Final

import numpy as np
import rasterio

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA
from cloudseg.errors import DataError
from cloudseg.grid import Window, iter_windows
from cloudseg.raster.probability import STEPS, classify
from cloudseg.raster.read import UInt8, open_raster, read_label, read_overlay
from cloudseg.records import GdalPath
from cloudseg.worklist.scores import ALWAYS, Counts

WINDOW: Final = 256
"""Side in pixels of a proposed window: small enough to be labeled in minutes."""


@dataclass(frozen=True)
class WindowCounts:
    """What was counted in a window."""

    window: Window
    clear: Counts
    """Probability steps of the pixels labeled clear."""
    cloud: Counts
    """Probability steps of the pixels labeled cloud."""
    unlabeled: Counts
    """Probability steps of the other observed pixels."""
    compared: int
    """Observed pixels that another mask covers, too."""
    differing: int
    """Those of them whose class is another one there."""
    second: "SecondOpinion | None" = None
    """What a second opinion says here; None: it was not asked."""

    @property
    def pixels(self) -> int:
        """Pixels of the window, observed or not."""
        return self.window.height * self.window.width


@dataclass(frozen=True)
class SecondOpinion:
    """Pixels of a window by mask, label and the mask of a model of others, where both masks have data."""

    against_clear: int = 0
    """Labeled clear, cloud in the mask and in the second opinion."""
    against_cloud: int = 0
    """Labeled cloud, clear in both."""
    labeled: int = 0
    mask_both: int = 0
    """Cloud in the mask and in the second opinion, labeled or not."""
    mask_either: int = 0
    label_both: int = 0
    """Cloud in the label and in the second opinion."""
    label_either: int = 0

    def __add__(self, other: "SecondOpinion") -> "SecondOpinion":
        return SecondOpinion(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def count_scene(
    probability: GdalPath,
    threshold: float,
    *,
    labels: Sequence[GdalPath],
    other: GdalPath | None,
    second: Callable[[], UInt8] | None = None,
) -> list[WindowCounts]:
    """Count the windows of a scene.

    Args:
        probability: its published probability raster.
        threshold: of its mask.
        labels: its accepted labels, oldest first; none: it is not labeled.
        other: its mask by other weights, if there is one.
        second: makes the mask of the whole scene by a model of others, for a labeled scene.

    Raises:
        StoreError: a raster is missing or damaged, or the store does not deliver it.
        DataError: the rasters have different sizes.
    """
    with ExitStack() as stack:
        steps = stack.enter_context(open_raster(probability))
        overlaid = [stack.enter_context(open_raster(label)) for label in labels]
        masks = stack.enter_context(open_raster(other)) if other else None
        _check_sizes([steps, *overlaid, *([masks] if masks else [])])
        opinion = second() if second is not None and overlaid else None
        return [
            _count_window(
                window,
                read_label(steps, window),
                threshold,
                read_overlay(overlaid, window) if overlaid else None,
                read_label(masks, window) if masks else None,
                opinion[window.slices] if opinion is not None else None,
            )
            for window in iter_windows(steps.height, steps.width, WINDOW)
        ]


def _count_window(
    window: Window, steps: UInt8, threshold: float, label: UInt8 | None, other: UInt8 | None, second: UInt8 | None
) -> WindowCounts:
    observed = steps != MASK_NO_DATA
    classes = label if label is not None else np.full_like(steps, MASK_NO_DATA)
    compared = observed & (other != MASK_NO_DATA) if other is not None else np.zeros_like(observed)
    differing = compared & (classify(steps, threshold) != other) if other is not None else compared
    unlabeled = observed & (classes != MASK_CLEAR) & (classes != MASK_CLOUD)
    return WindowCounts(
        window=window,
        clear=_steps(steps[observed & (classes == MASK_CLEAR)]),
        cloud=_steps(steps[observed & (classes == MASK_CLOUD)]),
        unlabeled=_steps(steps[unlabeled]),
        compared=int(np.count_nonzero(compared)),
        differing=int(np.count_nonzero(differing)),
        second=None if second is None else _compare_second(classify(steps, threshold), classes, second),
    )


def _compare_second(mask: UInt8, label: UInt8, second: UInt8) -> SecondOpinion:
    known = (mask != MASK_NO_DATA) & (second != MASK_NO_DATA)
    labeled = known & ((label == MASK_CLEAR) | (label == MASK_CLOUD))
    by_mask, by_label, by_second = (classes == MASK_CLOUD for classes in (mask, label, second))
    agreed = labeled & (by_mask == by_second)
    counted = (
        agreed & by_mask & ~by_label,
        agreed & ~by_mask & by_label,
        labeled,
        known & by_mask & by_second,
        known & (by_mask | by_second),
        labeled & by_label & by_second,
        labeled & (by_label | by_second),
    )
    return SecondOpinion(*(int(np.count_nonzero(cells)) for cells in counted))


def _steps(values: UInt8) -> Counts:
    counts: Counts = np.bincount(values, minlength=256)[: STEPS + 1].astype(np.int64)
    return counts


@dataclass(frozen=True)
class AlwaysCloud:
    """Pixels of a window that are cloud on nearly every date."""

    window: Window
    always: int
    observed: int
    """Pixels that were observed on enough dates."""

    @property
    def fraction(self) -> float:
        """Share of the pixels that were observed on enough dates."""
        return self.always / self.observed if self.observed else 0.0


def count_always_cloud(probabilities: Sequence[tuple[GdalPath, float]], *, least: int) -> list[AlwaysCloud]:
    """Count the pixels of every window that are cloud on at least `ALWAYS` of the dates on which they were observed.

    Args:
        probabilities: for each date a probability raster and the threshold of its mask, all on one grid.
        least: dates on which a pixel must have been observed to count.

    Raises:
        StoreError: a raster is missing or damaged, or the store does not deliver it.
        DataError: the rasters have different sizes.
    """
    with ExitStack() as stack:
        rasters = [stack.enter_context(open_raster(path)) for path, _ in probabilities]
        thresholds = [threshold for _, threshold in probabilities]
        _check_sizes(rasters)
        return [
            _always_in(window, rasters, thresholds, least)
            for window in iter_windows(rasters[0].height, rasters[0].width, WINDOW)
        ]


def _always_in(
    window: Window, rasters: Sequence[rasterio.DatasetReader], thresholds: Sequence[float], least: int
) -> AlwaysCloud:
    observed = np.zeros((window.height, window.width), np.uint16)
    cloud = np.zeros_like(observed)
    for raster, threshold in zip(rasters, thresholds, strict=True):
        classes = classify(read_label(raster, window), threshold)
        observed += classes != MASK_NO_DATA
        cloud += classes == MASK_CLOUD
    often = observed >= least
    always = often & (cloud >= np.ceil(ALWAYS * observed - 1e-9))
    return AlwaysCloud(window, int(np.count_nonzero(always)), int(np.count_nonzero(often)))


def _check_sizes(rasters: Sequence[rasterio.DatasetReader]) -> None:
    sizes = {(raster.height, raster.width) for raster in rasters}
    if len(sizes) > 1:
        raise DataError(
            "the rasters of a scene have different sizes",
            subject=rasters[0].name,
            found=", ".join(f"{height} x {width}" for height, width in sorted(sizes)),
            expected="one size",
            next_step="Run `cloudseg maintain --verify`.",
        )
