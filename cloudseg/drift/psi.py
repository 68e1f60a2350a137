"""The Population Stability Index (PSI), and how large it gets by chance.

    PSI = sum over bins of (a - e) * ln(a / e)

with `e` the share of the reference and `a` the share of the new sample in a bin: the symmetric Kullback-Leibler
divergence of Kullback and Leibler (1951). Bins are the deciles of the reference. The usual reading is: below 0.1 little
change, up to 0.25 a moderate one, above that a change that asks for action (Siddiqi 2006, Credit Risk Scorecards;
Yurdakul and Naranjo 2020, Journal of Risk Model Validation 14(4), who note that it ignores the sizes of the samples).

Where both samples have the same distribution, `PSI / (1/n + 1/m)` follows a chi-square distribution with one degree of
freedom less than there are bins (Yurdakul 2018, Statistical Properties of Population Stability Index, dissertation,
Western Michigan University). So 50 scenes beside 100 have a PSI near 0.27 on average although nothing changed: a PSI
counts here only if it also exceeds the 99 % quantile of that distribution.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

LITTLE: Final = 0.1
"""Below: little change (Siddiqi 2006)."""
LIMIT: Final = 0.25
"""Above: a change that asks for action (Siddiqi 2006)."""
BINS: Final = 10
_CHI_SQUARE_99: Final = (6.635, 9.210, 11.345, 13.277, 15.086, 16.812, 18.475, 20.090, 21.666, 23.209)
"""99 % quantile of the chi-square distribution with 1, 2 ... 10 degrees of freedom (NIST/SEMATECH e-Handbook of
Statistical Methods, 1.3.6.7.4)."""
_EMPTY: Final = 0.5
"""Scenes that an empty bin counts as: the logarithm of 0 is not defined. Half a count is the usual continuity
correction."""

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def decile_edges(reference: Sequence[float]) -> Floats:
    """Return the inner edges of the bins: the 10th, 20th ... 90th percentile of the reference, each once.

    Equal values of the reference (a cloud fraction of exactly 0) make fewer edges.
    """
    return np.unique(np.quantile(np.asarray(reference, np.float64), np.arange(1, BINS) / BINS))


def count_in_bins(values: Sequence[float], edges: Floats) -> Counts:
    """Return how many values are in each bin; a bin includes its upper edge, the last one has none."""
    bins = np.searchsorted(edges, np.asarray(values, np.float64), side="left")
    return np.bincount(bins, minlength=len(edges) + 1).astype(np.int64)


def psi(reference: Counts, sample: Counts) -> float:
    """Return the PSI of two samples from their counts by bin (module docstring).

    A bin that is empty in one of them counts as half a value there; one that is empty in both adds nothing.

    Args:
        reference: counts by bin, at least one value.
        sample: counts in the same bins, at least one value.
    """
    used = (reference > 0) | (sample > 0)
    expected, actual = (np.maximum(counts[used], _EMPTY) / counts.sum() for counts in (reference, sample))
    return float(np.sum((actual - expected) * np.log(actual / expected)))


def psi_by_chance(reference: Counts, sample: Counts) -> float:
    """Return the PSI that two samples of these sizes exceed in 1 of 100 cases if nothing changed (module docstring).

    Args:
        reference: counts by bin, at most 11 of them used.
        sample: counts in the same bins.
    """
    used = int(np.count_nonzero((reference > 0) | (sample > 0)))
    if used < 2:
        return 0.0
    return _CHI_SQUARE_99[used - 2] * (1 / int(reference.sum()) + 1 / int(sample.sum()))
