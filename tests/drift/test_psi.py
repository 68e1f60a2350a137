"""The Population Stability Index against values computed by hand and a published example."""

import math

import numpy as np
import pytest

from cloudseg.drift.psi import count_in_bins, decile_edges, psi, psi_by_chance


def counts(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def test_a_value_computed_by_hand():
    # Shares 0.5, 0.3, 0.2 and 0.4, 0.4, 0.2: -0.1 ln(0.8) + 0.1 ln(4/3) + 0
    assert psi(counts(50, 30, 20), counts(40, 40, 20)) == pytest.approx(0.0223144 + 0.0287682, abs=1e-6)


def test_a_published_example():
    """The test of PSI in the package `strappy` 0.0.3: 6 and 5 of 11 against 5 and 4 of 9 are 0.00041."""
    assert round(psi(counts(6, 5), counts(5, 4)), 5) == 0.00041


def test_equal_shares_have_none_and_order_does_not_matter():
    assert psi(counts(10, 20, 30), counts(1, 2, 3)) == 0
    assert psi(counts(10, 20), counts(25, 5)) == pytest.approx(psi(counts(25, 5), counts(10, 20)))


def test_an_empty_bin_counts_half_a_value_and_one_empty_in_both_nothing():
    expected = (0.05 - 0.5) * math.log(0.05 / 0.5) + (1.0 - 0.5) * math.log(1.0 / 0.5)
    assert psi(counts(5, 5), counts(0, 10)) == pytest.approx(expected)
    assert psi(counts(5, 0, 5), counts(0, 0, 10)) == pytest.approx(expected)


def test_bins_are_the_deciles_of_the_reference_with_their_upper_edge():
    reference = list(range(1, 101))
    edges = decile_edges(reference)
    assert len(edges) == 9
    assert count_in_bins(reference, edges).tolist() == [10] * 10
    assert count_in_bins([-5, 1000, float(edges[0])], edges).tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 1]


def test_equal_values_make_fewer_bins():
    edges = decile_edges([0.0] * 8 + [0.5, 1.0])
    assert edges[0] == 0.0
    assert len(edges) < 9
    assert count_in_bins([0.0, 0.0, 0.9], edges)[0] == 2


def test_chance_is_the_quantile_of_chi_square_by_the_sizes_of_the_samples():
    # Ten bins: 9 degrees of freedom, 21.666 (NIST/SEMATECH e-Handbook, 1.3.6.7.4)
    assert psi_by_chance(counts(*[10] * 10), counts(*[5] * 10)) == pytest.approx(21.666 * (1 / 100 + 1 / 50))
    assert psi_by_chance(counts(100), counts(50)) == 0


def test_samples_of_one_distribution_seldom_exceed_it():
    rng, exceeded = np.random.default_rng(0), 0
    for _ in range(400):
        reference, sample = rng.normal(size=100), rng.normal(size=50)
        edges = decile_edges(reference)
        before, after = count_in_bins(reference, edges), count_in_bins(sample, edges)
        exceeded += psi(before, after) > psi_by_chance(before, after)
    assert exceeded <= 16, "1 % expected, up to 4 % tolerated: the deciles are those of the sample itself"
