"""Counts over validation chips: pooled IoU, loss, and the threshold that is published with the weights."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA
from cloudseg.errors import TrainingDiverged
from cloudseg.metrics import iou, precision, recall
from cloudseg.model.pixels import observed
from cloudseg.model.predictor import Predictor
from cloudseg.records import Chip, Json
from cloudseg.train.data import TrainingData
from cloudseg.train.distributed import DistributedContext

BINS: Final = 256
_HALF: Final = BINS // 2
_SMALLEST: Final = 1e-7
"""Probabilities are kept this far from 0 and 1 in the log loss: float32 cannot distinguish closer ones from them."""
_MAX_IOU_LOSS: Final = 0.01
"""IoU on validation places; about the standard error of the difference between two thresholds on 50 scenes."""
_MIN_WATCHED_CHIPS: Final = 16
"""At the end of an epoch at least, however short the epoch is."""


@dataclass(frozen=True)
class Tally:
    """Labeled pixels by class and probability: `counts[class, bin]` int64, bin = floor(256 probability)."""

    counts: npt.NDArray[np.int64]
    loss_sum: float

    @property
    def loss(self) -> float:
        """Mean binary cross-entropy of the labeled pixels."""
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
        """Return the pooled IoU of cloud."""
        c = self.confusion(threshold_bin)
        return iou(c["tp"], c["fp"], c["fn"])


class Validator:
    """Counts over the validation chips of a run; the processes share the chips and all get the same counts.

    Chips and labels are in the net's working pixels, so nothing is resampled; each chip is predicted alone, without its
    surroundings, and overlaps of chips count twice. That is quick enough for every epoch; the quality of a mask is
    measured by `cloudseg.evaluate`, on what is published.

    Args:
        data: the chips; only the validation chips are read here.
        batch_size: chips of a forward pass.
        dist: this process among those that validate together.
    """

    def __init__(self, data: TrainingData, batch_size: int, dist: DistributedContext) -> None:
        self._chip_set, self._chips = data.chip_set, data.validation
        self._batch_size, self._dist = batch_size, dist

    @property
    def chip_count(self) -> int:
        """Total number of validation chips."""
        return len(self._chips)

    def watched(self, epoch_steps: int) -> int:
        """Return how many validation chips the end of an epoch uses: at most a quarter of its training chips.

        So validation stays cheap for large snapshots. Chips are in the order of their ids, which are hashes, so
        the first ones are a fair draw.
        """
        seen = epoch_steps * self._batch_size * self._dist.world_size
        return min(len(self._chips), max(_MIN_WATCHED_CHIPS, seen // 4))

    def count(self, predictor: Predictor, limit: int | None = None) -> Tally:
        """Count over the first `limit` chips (None: all of them); all processes call it together.

        Raises:
            TrainingDiverged: the net's probability is not finite after the last step, for which no loss was computed.
        """
        own = self._chips[:limit][self._dist.rank :: self._dist.world_size]
        counts, loss_sum = np.zeros((2, BINS), np.int64), 0.0
        for first in range(0, len(own), self._batch_size):
            added, loss = self._count_batch(predictor, own[first : first + self._batch_size])
            counts += added
            loss_sum += loss
        all_counts = self._dist.all_reduce_sum(torch.from_numpy(counts)).numpy()
        return Tally(all_counts, float(self._dist.all_reduce_sum(torch.tensor([loss_sum], dtype=torch.float64))[0]))

    def time_one_batch(self, predictor: Predictor) -> float:
        """Count over one batch of each process and return the seconds per chip of all processes together."""
        chips = min(len(self._chips), self._batch_size * self._dist.world_size)
        began = time.monotonic()
        self.count(predictor, chips)
        return (time.monotonic() - began) / chips

    def _count_batch(self, predictor: Predictor, chips: Sequence[Chip]) -> tuple[npt.NDArray[np.int64], float]:
        dn = np.stack([self._chip_set.pixels(chip) for chip in chips])
        label = np.stack([self._chip_set.label(chip) for chip in chips])
        probability = predictor.probability(dn, observed(dn))
        if not np.isfinite(probability).all():
            raise TrainingDiverged(
                "the net's probability is not finite",
                subject=chips[0].chip_id,
                expected="values between 0 and 1",
                next_step="Lower optimizer.lr or set optimizer.clip_norm in the recipe.",
            )
        known = label != MASK_NO_DATA
        return _count(probability[known], label[known] == MASK_CLOUD)


def _count(probability: npt.NDArray[np.float32], cloud: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], float]:
    bins = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins + BINS * cloud, minlength=2 * BINS).reshape(2, BINS)
    right = np.where(cloud, probability, 1 - probability).astype(np.float64)
    return counts, float(-np.log(np.clip(right, _SMALLEST, 1.0)).sum())


def choose_threshold(counted: Tally) -> float:
    """Return the threshold of the published mask, one of 1/256 ... 255/256.

    The published mask is computed in steps of 1/250 (`cloudseg.raster.probability`): near the threshold a pixel's
    probability was rounded by up to 0.002.

    That of a calibrated net, IoU / (1 + IoU) (half of its F1: Lipton, Elkan and Naryanaswamy 2014, "Optimal
    thresholding of classifiers to maximize F1 measure"), moved towards the one with the highest pooled IoU on these
    pixels as far as it costs more than 0.01 IoU there. The highest alone follows the few scenes that happen to be in
    validation: over seven nets it lay between 0.21 and 0.74, and the worst variant of brightness of four data sets,
    three of which no net was trained on, was lower by 0.017 IoU on average; half way to it, by 0.003
    (docs/decisions/0016_nightly.md).
    """
    best = max(sorted(range(1, BINS), key=lambda k: (abs(k - _HALF), k)), key=counted.iou)
    highest = counted.iou(best)
    calibrated = round(BINS * highest / (1 + highest))
    between = range(min(best, calibrated), max(best, calibrated) + 1)
    good = [k for k in between if counted.iou(k) >= highest - _MAX_IOU_LOSS]
    return min(good, key=lambda k: abs(k - calibrated)) / BINS


def validation_metrics(counted: Tally, threshold: float) -> Json:
    """Return the metrics that are stored in the weights' metadata."""
    threshold_bin = round(threshold * BINS)
    c = counted.confusion(threshold_bin)
    return {
        "validation_iou": round(counted.iou(threshold_bin), 6),
        "validation_iou_at_half": round(counted.iou(), 6),
        "validation_precision": round(precision(c["tp"], c["fp"]), 6),
        "validation_recall": round(recall(c["tp"], c["fn"]), 6),
        "validation_loss": round(counted.loss, 6),
        "validation_pixels": int(counted.counts.sum()),
    }
