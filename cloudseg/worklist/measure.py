"""Read the published rasters of a scene window by window and count what the scores need.

Nothing is predicted here. Memory: one window of each raster and 3 x 251 counts for each window of a scene.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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

    @property
    def pixels(self) -> int:
        """Pixels of the window, observed or not."""
        return self.window.height * self.window.width


def count_scene(
    probability: GdalPath, threshold: float, *, labels: Sequence[GdalPath], other: GdalPath | None
) -> list[WindowCounts]:
    """Count the windows of a scene.

    Args:
        probability: its published probability raster.
        threshold: of its mask.
        labels: its accepted labels, oldest first; none: it is not labeled.
        other: its mask by other weights, if there is one.

    Raises:
        StoreError: a raster is missing or damaged, or the store does not deliver it.
        DataError: the rasters have different sizes.
    """
    with ExitStack() as stack:
        steps = stack.enter_context(open_raster(probability))
        overlaid = [stack.enter_context(open_raster(label)) for label in labels]
        masks = stack.enter_context(open_raster(other)) if other else None
        _check_sizes([steps, *overlaid, *([masks] if masks else [])])
        return [
            _count_window(
                window,
                read_label(steps, window),
                threshold,
                read_overlay(overlaid, window) if overlaid else None,
                read_label(masks, window) if masks else None,
            )
            for window in iter_windows(steps.height, steps.width, WINDOW)
        ]


def _count_window(
    window: Window, steps: UInt8, threshold: float, label: UInt8 | None, other: UInt8 | None
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
    )


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
