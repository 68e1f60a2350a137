"""How a probability is stored in 8 bits, and the mask that follows from it. No raster is opened here.

The probability raster holds `round(probability * 250)` as uint8 (GDAL scale 1/250) and 255 where nothing was observed.
The mask is computed from that raster, not from the float before it: a mask pixel is cloud exactly where the published
probability is at least the threshold, so that every user can reproduce the mask. Evaluation counts these values too:
what is evaluated is what is published.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA
from cloudseg.errors import BadWeights

STEPS: Final = 250
"""Probability 1 in the raster: steps of 0.004, and 251 .. 254 are unused."""

UInt8 = NDArray[np.uint8]


def encode_probability(
    probability: NDArray[np.float32], valid: NDArray[np.bool_], *, subject: str = "probability"
) -> UInt8:
    """Return uint8 `(row, col)`: 0 .. 250, and 255 where `valid` is False. Half steps round to even, as numpy does.

    Args:
        probability: float32 `(row, col)`, meaningless where `valid` is False.
        valid: bool `(row, col)`, where the scene was observed.
        subject: names weights and scene in the error.

    Raises:
        BadWeights: a probability at an observed pixel is NaN or infinite. As a number of 8 bits it would be 0, and the
            scene would be published as clear.
    """
    whole = bool(valid.all())
    values = probability if whole else np.where(valid, probability, np.float32(0.0))
    finite = np.isfinite(values)
    if not finite.all():
        raise BadWeights(
            "the net's output is not a finite number where the scene was observed",
            subject=subject,
            found=f"{finite.size - np.count_nonzero(finite)} of {np.count_nonzero(valid)} pixels",
            expected="a probability between 0 and 1",
            next_step="Use other weights: --weights, or `cloudseg rollback` if these are the champion.",
        )
    scaled = np.clip(values, 0.0, 1.0)
    scaled *= np.float32(STEPS)
    steps: UInt8 = np.rint(scaled, out=scaled).astype(np.uint8)
    if not whole:
        steps[~valid] = MASK_NO_DATA
    return steps


def classify(steps: UInt8, threshold: float) -> UInt8:
    """Return the mask of an encoded probability.

    1 where `steps / 250 >= threshold`, else 0, and 255 where it is 255.
    """
    lowest = first_cloud_step(threshold)
    mask = np.where(steps >= lowest, np.uint8(MASK_CLOUD), np.uint8(MASK_CLEAR))
    mask[steps == MASK_NO_DATA] = MASK_NO_DATA
    return mask


def first_cloud_step(threshold: float) -> int:
    """Return the lowest step that counts as cloud; 1e-9 absorbs the rounding error of a whole step."""
    return math.ceil(threshold * STEPS - 1e-9)
