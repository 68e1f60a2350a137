"""Scores of windows: how much a label there would teach. Arithmetic on counts only; no raster is opened here.

A probability is counted by its step (`cloudseg.raster.probability`): 251 counts describe a window of any size.

- Uncertainty sampling: the examples whose class is least certain teach most (Lewis and Gale 1994, "A sequential
  algorithm for training text classifiers"); the measure is the entropy of the probability (Shannon 1948; Settles 2009,
  "Active learning literature survey", section 2.1).
- Query by committee: the examples that several models classify differently (Seung, Opper and Sompolinsky 1992, "Query
  by committee"). Here the committee has two members, so the measure is the share of pixels that differ.
- Confident learning: a label is suspect where the model is at least as sure of the other class as it is on average of
  examples that are labeled so (Northcutt, Jiang and Chuang 2021, "Confident learning: estimating uncertainty in dataset
  labels", equation 2).
- Pixels that are cloud on nearly every date: clouds move and the ground does not, which separates them in a time series
  (Zhu and Woodcock 2014, "Automated cloud, cloud shadow, and snow detection in multitemporal Landsat data").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cloudseg.raster.probability import STEPS, first_cloud_step

Counts = npt.NDArray[np.int64]
"""Pixels by step of the probability, `(251,)`."""
Floats = npt.NDArray[np.float64]

NEAR: Final = 0.1
"""Probability: how near to the threshold a pixel counts as undecided in the words of a reason."""
ALWAYS: Final = 0.9
"""Share of the dates from which a pixel is cloud "nearly always"."""


@dataclass(frozen=True)
class Uncertainty:
    """How undecided the probabilities of a window are."""

    entropy: float
    """Mean entropy in bits, 0 to 1; 1 where every pixel is at the threshold."""
    near_fraction: float
    """Share of the pixels within `NEAR` of the threshold."""


def uncertainty(counts: Counts, threshold: float) -> Uncertainty:
    """Return the uncertainty of counted probabilities; zeros where nothing was counted.

    The entropy is that of the probability after a piecewise linear map that moves the threshold to 0.5: the mask
    changes there, and a threshold is rarely 0.5 (docs/decisions/0007_threshold.md). The map is this project's own.
    """
    total = int(counts.sum())
    if total == 0:
        return Uncertainty(0.0, 0.0)
    probability = np.arange(STEPS + 1) / STEPS
    near = np.abs(probability - threshold) <= NEAR + 1e-9
    entropy = float(counts @ _entropy_bits(_centered(probability, threshold))) / total
    return Uncertainty(entropy, float(counts[near].sum()) / total)


def _centered(probability: Floats, threshold: float) -> Floats:
    """Return the probability with the threshold moved to 0.5, and 0 and 1 where they are."""
    below = probability / max(2 * threshold, 1e-9)
    above = 1 - (1 - probability) / max(2 * (1 - threshold), 1e-9)
    return np.clip(np.where(probability < threshold, below, above), 0.0, 1.0)


def _entropy_bits(probability: Floats) -> Floats:
    """Return the binary entropy, 0 log 0 being 0."""
    inside = np.clip(probability, 1e-12, 1 - 1e-12)
    bits: Floats = -(inside * np.log2(inside) + (1 - inside) * np.log2(1 - inside))
    return bits


@dataclass(frozen=True)
class Confidence:
    """From which probability the model counts as sure of a class, in the sense of confident learning."""

    cloud: float
    """Least probability of cloud at a pixel labeled clear that makes its label suspect."""
    clear: float
    """Least probability of clear at a pixel labeled cloud that makes its label suspect."""


def confidence(clear: Counts, cloud: Counts, threshold: float) -> Confidence:
    """Return the limits: the mean probability of a class over the pixels that have its label.

    Never less than what the mask needs to show that class, so that a suspect label always differs from the mask; that
    is also the limit of a class that no pixel is labeled with.

    Args:
        clear: probabilities of the pixels labeled clear, of the whole scene.
        cloud: probabilities of the pixels labeled cloud.
        threshold: of the mask.
    """
    probability = np.arange(STEPS + 1) / STEPS
    mean_cloud = float(cloud @ probability) / max(1, int(cloud.sum()))
    mean_clear = float(clear @ (1 - probability)) / max(1, int(clear.sum()))
    return Confidence(max(mean_cloud, threshold), max(mean_clear, 1 - threshold))


@dataclass(frozen=True)
class LabelError:
    """Pixels of a window whose label is suspect."""

    clear: int
    """Pixels labeled clear where the model is sure of cloud."""
    cloud: int
    """Pixels labeled cloud where the model is sure of clear."""
    labeled: int

    @property
    def score(self) -> float:
        """Suspect share of the labeled pixels."""
        return (self.clear + self.cloud) / self.labeled if self.labeled else 0.0


def label_error(clear: Counts, cloud: Counts, threshold: float, sure: Confidence) -> LabelError:
    """Return the suspect pixels of a window.

    Args:
        clear: probabilities of its pixels labeled clear.
        cloud: probabilities of its pixels labeled cloud.
        threshold: of the mask.
        sure: the limits, from `confidence`.
    """
    steps = np.arange(STEPS + 1)
    is_cloud = steps >= max(first_cloud_step(threshold), math.ceil(sure.cloud * STEPS - 1e-9))
    is_clear = (steps < first_cloud_step(threshold)) & (steps <= math.floor((1 - sure.clear) * STEPS + 1e-9))
    labeled = int(clear.sum() + cloud.sum())
    return LabelError(int(clear[is_cloud].sum()), int(cloud[is_clear].sum()), labeled)


def expected_always(cloud_fractions: Sequence[float]) -> float:
    """Return the share of pixels that chance makes cloud on at least `ALWAYS` of the dates.

    The dates count as independent, each with the cloud fraction of its scene: the tail of the Poisson binomial
    distribution (Poisson 1837), computed by convolution.
    """
    distribution = np.ones(1)
    for fraction in cloud_fractions:
        distribution = np.convolve(distribution, [1 - fraction, fraction])
    return float(distribution[math.ceil(ALWAYS * len(cloud_fractions) - 1e-9) :].sum())
