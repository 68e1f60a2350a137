"""Counts over validation chips: pooled IoU, loss, and the threshold that is published with the weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA
from cloudseg.dataset.chips import ChipSet
from cloudseg.errors import TrainingDiverged
from cloudseg.model.normalize import observed
from cloudseg.model.predictor import Predictor
from cloudseg.records import Chip, Json
from cloudseg.train.group import Group

BINS: Final = 256
_HALF: Final = BINS // 2
_SMALLEST: Final = 1e-7
"""Probabilities are kept this far from 0 and 1 in the log loss: float32 cannot tell closer ones apart from them."""

_GIVEN_UP: Final = 0.01
"""IoU on validation places; about the standard error of the difference between two thresholds on 50 scenes."""


@dataclass(frozen=True)
class Tally:
    """Labelled pixels by class and probability: `counts[class, bin]` int64, bin = floor(256 probability)."""

    counts: npt.NDArray[np.int64]
    loss_sum: float

    @property
    def loss(self) -> float:
        """Mean binary cross-entropy of the labelled pixels."""
        return self.loss_sum / max(1, int(self.counts.sum()))

    def confusion(self, threshold_bin: int) -> dict[str, int]:
        """Return tp, fp, fn, tn where cloud is a probability of at least `threshold_bin` / 256."""
        clear, cloud = self.counts
        return {
            "tp": int(cloud[threshold_bin:].sum()),
            "fp": int(clear[threshold_bin:].sum()),
            "fn": int(cloud[:threshold_bin].sum()),
            "tn": int(clear[:threshold_bin].sum()),
        }

    def iou(self, threshold_bin: int = _HALF) -> float:
        """Return the pooled IoU of cloud (1 where there is neither cloud nor a false alarm)."""
        c = self.confusion(threshold_bin)
        union = c["tp"] + c["fp"] + c["fn"]
        return c["tp"] / union if union else 1.0


def tally(predictor: Predictor, chip_set: ChipSet, chips: Sequence[Chip], *, batch_size: int, group: Group) -> Tally:
    """Count over chips; the processes of the group share them and all get the same counts.

    Chips and labels are in the net's working pixels, so nothing is resampled; each chip is predicted alone, without its
    surroundings, and overlaps of chips count twice. It is quick enough for every epoch. What a mask is worth is measured
    by `cloudseg.evaluate`, on what is published.

    Raises TrainingDiverged where the net gives something else than numbers: the last step may have broken it, unseen by
    any loss.
    """
    mine = list(chips)[group.rank :: group.world]
    counts, loss_sum = np.zeros((2, BINS), np.int64), 0.0
    for first in range(0, len(mine), batch_size):
        some = mine[first : first + batch_size]
        dn = np.stack([chip_set.pixels(chip) for chip in some])
        label = np.stack([chip_set.label(chip) for chip in some])
        probability = predictor.probability(dn, observed(dn))
        if not np.isfinite(probability).all():
            raise TrainingDiverged(
                "the net's probability is not finite",
                subject=some[0].chip_id,
                expected="numbers between 0 and 1",
                next_step="Lower optimizer.lr or set optimizer.clip_norm in the recipe.",
            )
        added, loss = _count(probability[label != MASK_NO_DATA], label[label != MASK_NO_DATA] == MASK_CLOUD)
        counts += added
        loss_sum += loss
    counts_of_all = group.sum(torch.from_numpy(counts)).numpy()
    return Tally(counts_of_all, float(group.sum(torch.tensor([loss_sum], dtype=torch.float64))[0]))


def _count(probability: npt.NDArray[np.float32], cloud: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], float]:
    bins = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins + BINS * cloud, minlength=2 * BINS).reshape(2, BINS)
    right = np.where(cloud, probability, 1 - probability).astype(np.float64)
    return counts, float(-np.log(np.clip(right, _SMALLEST, 1.0)).sum())


def choose_threshold(counted: Tally) -> float:
    """Return the threshold of the published mask, one of 1/256 ... 255/256.

    The published mask is made of steps of 1/250 (`cloudseg.raster.probability`): near the threshold a pixel's
    probability was rounded by up to 0.002.

    Half way from the threshold with the highest pooled IoU on these pixels to IoU / (1 + IoU), which is the best one of
    a calibrated net (half of its F1: Lipton, Elkan and Naryanaswamy 2014, "Optimal thresholding of classifiers to
    maximize F1 measure"). The first alone follows the few scenes that happen to be in validation: chosen on one half of
    100 scenes and judged on the other, half way was better by 0.004 to 0.007 IoU (docs/log.md, 2026-11-22). No more
    than 0.01 IoU of these pixels is given up for it.
    """
    best = max(sorted(range(1, BINS), key=lambda k: (abs(k - _HALF), k)), key=counted.iou)
    highest = counted.iou(best)
    half_way = (best + BINS * highest / (1 + highest)) / 2
    between = range(min(best, round(half_way)), max(best, round(half_way)) + 1)
    good = [k for k in between if counted.iou(k) >= highest - _GIVEN_UP]
    return min(good, key=lambda k: abs(k - half_way)) / BINS


def describe(counted: Tally, threshold: float) -> Json:
    """Return the figures that travel in the weights' metadata."""
    c = counted.confusion(round(threshold * BINS))
    precision, recall = c["tp"] / max(1, c["tp"] + c["fp"]), c["tp"] / max(1, c["tp"] + c["fn"])
    return {
        "validation_iou": round(counted.iou(round(threshold * BINS)), 6),
        "validation_iou_at_half": round(counted.iou(), 6),
        "validation_precision": round(precision, 6),
        "validation_recall": round(recall, 6),
        "validation_loss": round(counted.loss, 6),
        "validation_pixels": int(counted.counts.sum()),
    }
