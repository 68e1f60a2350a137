"""Counts of a mask against its label, and the rates that follow from them, defined for cloud-free scenes too.

Pixels of a scene are counted, counts of scenes are added up, and rates are computed from the sums. A rate of 0/0 is 1
("of no cloud, all was found"). So IoU and F1 of a cloud-free scene are 1 if no cloud was predicted
and 0 where some was. Balanced accuracy is the mean over the classes that occur, so false alarms lower it there too.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD
from cloudseg.metrics import share
from cloudseg.raster.probability import STEPS, classify
from cloudseg.records import Json, Record

RATES: Final = ("iou", "f1", "precision", "recall", "accuracy", "balanced_accuracy", "boundary_f1", "calibration_error")
BINS: Final = 15
"""Bins of equal width for the calibration error, as in Guo et al. 2017, "On calibration of modern neural networks"."""
BOUNDARY_TOLERANCE: Final = 2
"""Working pixels (Chebyshev) between an edge of the mask and an edge of the label that still count as the same edge."""


class Counts(Record):
    """Counts over the pixels of a mask and its label; only labeled, observed pixels are counted."""

    tp: int = Field(0, description="cloud in mask and label")
    fp: int = Field(0, description="cloud in the mask only")
    fn: int = Field(0, description="cloud in the label only")
    tn: int = Field(0, description="clear in both")
    edge_mask: int = Field(0, description="edge pixels of the mask")
    edge_mask_hit: int = Field(0, description="... of them near an edge of the label")
    edge_label: int = Field(0, description="edge pixels of the label")
    edge_label_hit: int = Field(0, description="... of them near an edge of the mask")
    bin_pixels: tuple[int, ...] = Field((0,) * BINS, description="pixels by probability, in bins of equal width")
    bin_cloud: tuple[int, ...] = Field((0,) * BINS, description="... of them cloud in the label")
    bin_probability: tuple[float, ...] = Field((0.0,) * BINS, description="sum of the probability in each bin")

    def __add__(self, other: "Counts") -> "Counts":
        return Counts.model_validate(
            {name: _plus(getattr(self, name), getattr(other, name)) for name in Counts.model_fields}
        )

    @property
    def pixels(self) -> int:
        """Labeled, observed pixels."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def cloud(self) -> int:
        """Pixels that are cloud in the label."""
        return self.tp + self.fn


def _plus(a: Any, b: Any) -> Any:
    return tuple(x + y for x, y in zip(a, b, strict=True)) if isinstance(a, tuple) else a + b


def count(
    steps: npt.NDArray[np.uint8],
    label: npt.NDArray[np.uint8],
    threshold: float,
    owned: tuple[slice, slice] = (slice(None), slice(None)),
) -> Counts:
    """Return the counts of a chip.

    Args:
        steps: uint8 `(row, col)`, the probability as it is published (`cloudseg.raster.probability`).
        label: uint8 `(row, col)`: 0 clear, 1 cloud, 255 none; 255 where `steps` is 255.
        threshold: cloud where the probability reaches it.
        owned: rows and columns to count; the pixels around them are used to find edges only.
    """
    mask = classify(steps, threshold) == MASK_CLOUD
    cloud, clear = label == MASK_CLOUD, label == MASK_CLEAR
    known = cloud | clear
    cells = {"tp": mask & cloud, "fp": mask & clear, "fn": ~mask & cloud, "tn": ~mask & clear}
    cells |= _edge_cells(mask & known, ~mask & known, cloud, clear)
    table = {name: int(np.count_nonzero(cell[owned])) for name, cell in cells.items()}
    return Counts.model_validate(table | _count_bins(steps[owned][known[owned]], cloud[owned][known[owned]]))


def _edge_cells(
    mask_cloud: npt.NDArray[np.bool_],
    mask_clear: npt.NDArray[np.bool_],
    label_cloud: npt.NDArray[np.bool_],
    label_clear: npt.NDArray[np.bool_],
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return edge pixels and hits (F-measure of boundaries: Csurka et al. 2013, Perazzi et al. 2016).

    An edge pixel is cloud next to clear; the border of the labeled area is not an edge.
    """
    of_mask, of_label = _edges(mask_cloud, mask_clear), _edges(label_cloud, label_clear)
    near_mask, near_label = _grow(of_mask, BOUNDARY_TOLERANCE), _grow(of_label, BOUNDARY_TOLERANCE)
    return {
        "edge_mask": of_mask,
        "edge_mask_hit": of_mask & near_label,
        "edge_label": of_label,
        "edge_label_hit": of_label & near_mask,
    }


def _edges(cloud: npt.NDArray[np.bool_], clear: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    adjacent = np.zeros_like(clear)
    adjacent[1:] |= clear[:-1]
    adjacent[:-1] |= clear[1:]
    adjacent[:, 1:] |= clear[:, :-1]
    adjacent[:, :-1] |= clear[:, 1:]
    return cloud & adjacent


def _grow(edges: npt.NDArray[np.bool_], reach: int) -> npt.NDArray[np.bool_]:
    """Return True within `reach` pixels of an edge, diagonals included."""
    rows = edges.copy()
    for step in range(1, reach + 1):
        rows[step:] |= edges[:-step]
        rows[:-step] |= edges[step:]
    grown = rows.copy()
    for step in range(1, reach + 1):
        grown[:, step:] |= rows[:, :-step]
        grown[:, :-step] |= rows[:, step:]
    return grown


def _count_bins(steps: npt.NDArray[np.uint8], cloud: npt.NDArray[np.bool_]) -> Json:
    which = np.minimum(steps.astype(np.intp) * BINS // STEPS, BINS - 1)
    sums = np.bincount(which, weights=steps / STEPS, minlength=BINS)
    return {
        "bin_pixels": np.bincount(which, minlength=BINS).tolist(),
        "bin_cloud": np.bincount(which[cloud], minlength=BINS).tolist(),
        "bin_probability": np.round(sums, 6).tolist(),
    }


def rates(counts: Counts) -> dict[str, float]:
    """Return every rate of counts, 0..1; higher is better except for the calibration error."""
    c = counts
    present = [part for part in ((c.tp, c.tp + c.fn), (c.tn, c.tn + c.fp)) if part[1]]
    edge_precision, edge_recall = share(c.edge_mask_hit, c.edge_mask), share(c.edge_label_hit, c.edge_label)
    return {
        "iou": share(c.tp, c.tp + c.fp + c.fn),
        "f1": share(2 * c.tp, 2 * c.tp + c.fp + c.fn),
        "precision": share(c.tp, c.tp + c.fp),
        "recall": share(c.tp, c.tp + c.fn),
        "accuracy": share(c.tp + c.tn, c.pixels),
        # Balanced overall accuracy (BOA): mean recall of the classes, as OmniCloudMask and PixBox report it.
        "balanced_accuracy": sum(hit / size for hit, size in present) / len(present) if present else 1.0,
        "boundary_f1": 2 * edge_precision * edge_recall / (edge_precision + edge_recall)
        if edge_precision + edge_recall
        else 0.0,
        "calibration_error": calibration_error(c),
    }


def calibration_error(counts: Counts) -> float:
    """Return the expected calibration error: |share of cloud - mean probability| over the bins, weighted by pixels."""
    if not counts.pixels:
        return 0.0
    off = (abs(cloud - total) for cloud, total in zip(counts.bin_cloud, counts.bin_probability, strict=True))
    return sum(off) / counts.pixels


def pool(scenes: Iterable[Counts]) -> Counts:
    """Return the sum of the counts of scenes."""
    return sum(scenes, Counts())


def mean_rates(scenes: Sequence[Counts]) -> dict[str, float]:
    """Return the mean of each rate over scenes, all with the same weight, however large (38-Cloud's protocol)."""
    each = [rates(scene) for scene in scenes]
    return {name: sum(one[name] for one in each) / len(each) if each else 1.0 for name in RATES}
