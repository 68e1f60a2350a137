"""Counting, and the threshold that follows from it."""

import numpy as np
import pytest

from cloudseg.train.validate import BINS, Tally, _count, choose_threshold, validation_metrics


def tally_of(probability: list[float], cloud: list[bool]) -> Tally:
    return Tally(*_count(np.array(probability, np.float32), np.array(cloud)))


def test_counts_and_iou() -> None:
    counted = tally_of([0.9, 0.8, 0.3, 0.2, 0.6], [True, True, True, False, False])
    assert counted.confusion(BINS // 2) == {"tp": 2, "fp": 1, "fn": 1, "tn": 1}
    assert counted.iou() == pytest.approx(0.5)
    assert counted.loss == pytest.approx(-np.mean(np.log([0.9, 0.8, 0.3, 0.8, 0.4])), rel=1e-5)


def test_threshold_separates_the_classes_nearest_to_one_half() -> None:
    counted = tally_of([0.30, 0.35, 0.10, 0.20], [True, True, False, False])
    threshold = choose_threshold(counted)
    assert 0.20 < threshold <= 0.30
    assert threshold == pytest.approx(76 / 256), "the highest of the equal ones, because it is nearest to one half"
    assert validation_metrics(counted, threshold)["validation_iou"] == 1.0


def test_threshold_is_drawn_towards_that_of_a_calibrated_net() -> None:
    rng = np.random.default_rng(0)
    probability = rng.uniform(0, 1, 200_000).astype(np.float32)
    calibrated = Tally(*_count(probability, rng.uniform(0, 1, probability.size) < probability))
    iou = max(calibrated.iou(k) for k in range(1, BINS))
    assert choose_threshold(calibrated) == pytest.approx(iou / (1 + iou), abs=0.02), (
        "the two agree where the net is calibrated"
    )
    timid = Tally(*_count(probability * np.float32(0.5), rng.uniform(0, 1, probability.size) < probability))
    best = max(range(1, BINS), key=timid.iou) / BINS
    assert best < choose_threshold(timid) < iou / (1 + iou)
    assert timid.iou(round(choose_threshold(timid) * BINS)) >= timid.iou(round(best * BINS)) - 0.01


def test_a_threshold_far_away_that_is_hardly_better_is_not_followed() -> None:
    """A few pixels of one validation scene would move it; a net that separates so well is calibrated at one half."""
    counted = tally_of([0.9] * 1000 + [0.1] * 900 + [0.75] * 5, [True] * 1000 + [False] * 905)
    assert max(range(1, BINS), key=counted.iou) > 0.75 * BINS
    assert choose_threshold(counted) == 0.5


def test_a_clear_split_has_iou_1_without_false_alarm() -> None:
    assert tally_of([0.1, 0.2], [False, False]).iou() == 1.0
    assert tally_of([0.1, 0.9], [False, False]).iou() == 0.0


def test_the_rates_of_a_clear_split_follow_the_rule_of_the_evaluation() -> None:
    """A share of nothing is 1, as in `cloudseg.evaluate.metrics.rates`."""
    found = validation_metrics(tally_of([0.1, 0.2], [False, False]), 0.5)
    assert (found["validation_iou"], found["validation_precision"], found["validation_recall"]) == (1.0, 1.0, 1.0)
    found = validation_metrics(tally_of([0.1, 0.9], [False, False]), 0.5)
    assert (found["validation_iou"], found["validation_precision"], found["validation_recall"]) == (0.0, 0.0, 1.0)


def test_extreme_probabilities_stay_finite() -> None:
    assert np.isfinite(tally_of([0.0, 1.0], [True, False]).loss)
