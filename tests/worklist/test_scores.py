"""Scores of counts whose right values follow by hand."""

import numpy as np
import pytest

from cloudseg.raster.probability import STEPS
from cloudseg.worklist.scores import confidence, expected_always, label_error, uncertainty


def counts(**steps: int) -> np.ndarray:
    """Return counts from names like `p0_4=100`: 100 pixels of probability 0.4."""
    found = np.zeros(STEPS + 1, np.int64)
    for name, number in steps.items():
        found[round(float(name.removeprefix("p").replace("_", ".")) * STEPS)] += number
    return found


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.5, 0.9])
def test_a_pixel_at_the_threshold_has_one_bit_whatever_the_threshold_is(threshold: float):
    at = np.zeros(STEPS + 1, np.int64)
    at[round(threshold * STEPS)] = 10
    assert uncertainty(at, threshold).entropy == pytest.approx(1.0, abs=1e-6)
    assert uncertainty(at, threshold).near_fraction == 1.0


def test_a_sure_pixel_has_no_entropy():
    assert uncertainty(counts(p0=5, p1=5), 0.4).entropy == pytest.approx(0.0, abs=1e-9)


def test_at_threshold_one_half_the_entropy_is_shannons():
    expected = -(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1))
    assert uncertainty(counts(p0_1=3, p0_9=1), 0.5).entropy == pytest.approx(expected, rel=1e-6)


def test_entropy_and_share_are_means_over_the_pixels():
    found = uncertainty(counts(p0_4=25, p0=75), 0.4)
    assert found.entropy == pytest.approx(0.25, abs=1e-6)
    assert found.near_fraction == 0.25


def test_near_means_a_tenth_to_both_sides():
    assert uncertainty(counts(p0_3=1, p0_5=1, p0_296=1, p0_504=1), 0.4).near_fraction == 0.5


def test_nothing_counted_is_not_uncertain():
    assert uncertainty(counts(), 0.4).entropy == 0.0


def test_a_label_is_suspect_only_where_the_model_is_as_sure_as_on_average():
    # Labeled cloud: mean probability (9 x 0.9 + 1 x 0.1) / 10 = 0.82. Labeled clear: 1 - 0.1528 = 0.8472.
    clear, cloud = counts(p0_1=90, p0_6=9, p0_88=1), counts(p0_9=9, p0_1=1)
    sure = confidence(clear, cloud, 0.4)
    assert (sure.cloud, sure.clear) == (pytest.approx(0.82), pytest.approx(0.8472))
    error = label_error(clear, cloud, 0.4, sure)
    assert (error.clear, error.cloud, error.labeled) == (1, 1, 110)  # the nine at 0.6 are cloud, but not surely
    assert error.score == pytest.approx(2 / 110)


def test_a_suspect_label_always_differs_from_the_mask():
    clear, cloud = counts(p0_3=10), counts(p0_2=10)  # every mean is below the threshold
    error = label_error(clear, cloud, 0.4, confidence(clear, cloud, 0.4))
    assert error.clear == 0
    assert error.cloud == 10


def test_a_label_of_one_class_is_compared_with_the_threshold():
    clear = counts(p0_1=99, p0_4=1)
    error = label_error(clear, counts(), 0.4, confidence(clear, counts(), 0.4))
    assert (error.clear, error.cloud) == (1, 0)


def test_chance_is_the_tail_of_independent_dates():
    assert expected_always([0.5] * 5) == pytest.approx(0.5**5)
    assert expected_always([0.3, 0.1, 0.2, 0.4, 0.5]) == pytest.approx(0.3 * 0.1 * 0.2 * 0.4 * 0.5)
    # Nine or ten of ten dates at one half: (10 + 1) / 1024.
    assert expected_always([0.5] * 10) == pytest.approx(11 / 1024)
