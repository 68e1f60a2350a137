"""Thresholds with a bound of what they get wrong, by conformal risk control over held-out places.

Conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster 2022, "Conformal Risk Control", arXiv:2208.02814,
theorem 1): let a risk in 0..1 grow with a threshold, and let it be measured at `n` places. The largest threshold with

    (n * mean risk + 1) / (n + 1) <= level

has an expected risk of at most `level` at one more place, if that place and the `n` are exchangeable: drawn from the
same places in any order. The 1 stands for the new place, at which everything may be wrong. So fewer than
`1 / level - 1` places promise nothing: 19 are needed for 5 %.

The risk of a place is its share of cloud pixels that the mask misses, or of clear pixels that it calls cloud; a place
without any cloud, or any clear pixel, does not count for that risk. The expectation is over places: at half of them it
may be more. It holds on average over the draws of held-out places, not for each draw.
"""

from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD
from cloudseg.raster.probability import STEPS, first_cloud_step
from cloudseg.records import Promise, PromisedThreshold, ThresholdName

LEVEL: Final = 0.05
"""Of missed cloud by the careful threshold, of false cloud by the generous one; can be promised from 19 places on."""

Counts = npt.NDArray[np.int64]
Risks = npt.NDArray[np.float64]


def count_steps(steps: npt.NDArray[np.uint8], label: npt.NDArray[np.uint8]) -> Counts:
    """Return the labeled pixels `(2, STEPS + 1)` by class (clear, cloud) and step of the published probability.

    Args:
        steps: uint8 `(row, col)`, the probability as it is published (`cloudseg.raster.probability`).
        label: uint8 `(row, col)`: 0 clear, 1 cloud, 255 none.
    """
    seen = steps <= STEPS
    return np.stack([np.bincount(steps[seen & (label == v)], minlength=STEPS + 1) for v in (MASK_CLEAR, MASK_CLOUD)])


def missed_cloud(places: Mapping[str, Counts]) -> Risks:
    """Return the share of missed cloud `(place, STEPS + 1)` of each place with cloud, by the first step that is cloud.

    It grows from column to column: column 0 calls everything cloud.

    Args:
        places: by name what `count_steps` counted, `(2, STEPS + 1)`.
    """
    cloud = np.array([counts[MASK_CLOUD] for _, counts in sorted(places.items()) if counts[MASK_CLOUD].any()])
    cloud = cloud.reshape(-1, STEPS + 1)
    below = np.cumsum(cloud, axis=1) - cloud
    risks: Risks = below / np.maximum(cloud.sum(axis=1, keepdims=True), 1)
    return risks


def false_cloud(places: Mapping[str, Counts]) -> Risks:
    """Return the share of clear pixels that are called cloud `(place, STEPS + 1)` of each place with clear ground.

    It falls from column to column.
    """
    clear = np.array([counts[MASK_CLEAR] for _, counts in sorted(places.items()) if counts[MASK_CLEAR].any()])
    clear = clear.reshape(-1, STEPS + 1)
    from_here_on = np.cumsum(clear[:, ::-1], axis=1)[:, ::-1]
    risks: Risks = from_here_on / np.maximum(clear.sum(axis=1, keepdims=True), 1)
    return risks


def bound(risks: Risks) -> npt.NDArray[np.float64]:
    """Return (n * mean risk + 1) / (n + 1) of each column of `(place, column)`: 1 without a place."""
    found: npt.NDArray[np.float64] = (risks.sum(axis=0) + 1) / (len(risks) + 1)
    return found


def largest_step(missed: Risks, level: float) -> int | None:
    """Return the largest first cloud step whose expected share of missed cloud is at most `level`; None: no step.

    Step 0, which calls everything cloud, is no threshold.
    """
    fits = np.flatnonzero(bound(missed)[1:] <= level)
    return int(fits[-1]) + 1 if len(fits) else None


def smallest_step(false: Risks, level: float) -> int | None:
    """Return the smallest first cloud step whose expected share of false cloud is at most `level`; None: no step."""
    fits = np.flatnonzero(bound(false)[1:] <= level)
    return int(fits[0]) + 1 if len(fits) else None


def promise_of(places: Mapping[str, Counts], *, threshold: float, evaluation_id: str, level: float = LEVEL) -> Promise:
    """Return the three thresholds of weights.

    balanced is the threshold of the weights, which was not chosen on these places. careful misses little cloud: it is
    never above balanced, for a lower threshold misses less and keeps the bound. generous calls little clear ground
    cloud: it is never below balanced, by the same argument.

    Args:
        places: labeled pixels of each held-out place (`count_steps`).
        threshold: of the weights.
        evaluation_id: in which they were counted.
        level: bound of the expected share of missed cloud (careful) and of false cloud (generous).
    """
    missed, false, own = missed_cloud(places), false_cloud(places), first_cloud_step(threshold)
    careful, generous = largest_step(missed, level), smallest_step(false, level)
    reasons: dict[ThresholdName, str] = {}
    if careful is None:
        reasons["careful"] = _why("missed", missed, level)
    if generous is None:
        reasons["generous"] = _why("false", false, level)
    return Promise(
        evaluation_id=evaluation_id,
        cloudy_places=len(missed),
        clear_places=len(false),
        level=level,
        careful=None if careful is None else _threshold(missed, false, min(careful, own), missed_at_most=level),
        balanced=_threshold(missed, false, own, exact=threshold),
        generous=None if generous is None else _threshold(missed, false, max(generous, own), false_at_most=level),
        reasons=reasons,
    )


def _threshold(
    missed: Risks,
    false: Risks,
    step: int,
    *,
    exact: float | None = None,
    missed_at_most: float | None = None,
    false_at_most: float | None = None,
) -> PromisedThreshold:
    """Return a threshold; a bound that was asked for is stated as such, the other as what its step comes to."""
    return PromisedThreshold(
        threshold=step / STEPS if exact is None else exact,
        missed=_mean(missed, step),
        false_cloud=_mean(false, step),
        missed_at_most=round(float(bound(missed)[step]), 6) if missed_at_most is None else missed_at_most,
        false_cloud_at_most=round(float(bound(false)[step]), 6) if false_at_most is None else false_at_most,
    )


def _mean(risks: Risks, step: int) -> float:
    return round(float(risks[:, step].mean()), 6) if len(risks) else 0.0


def _why(what: Literal["missed", "false"], risks: Risks, level: float) -> str:
    """Return why no threshold keeps a level."""
    cloud = "with cloud" if what == "missed" else "with clear ground"
    needed = int(np.ceil(1 / level - 1 - 1e-9))
    if len(risks) < needed:
        return f"{len(risks)} held-out places {cloud}, at least {needed} are needed for {100 * level:g} %"
    words = "of the cloud is missed even from" if what == "missed" else "of the clear pixels are called cloud even from"
    step = 1 if what == "missed" else STEPS
    return f"on average {100 * _mean(risks, step):.1f} % {words} probability {step / STEPS} on"
