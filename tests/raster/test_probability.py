"""The published probability: steps of 1/250, and the mask that anybody can make of them again."""

import numpy as np
import pytest

from cloudseg.errors import BadWeights
from cloudseg.raster.probability import classify, encode_probability, first_cloud_step


@pytest.mark.parametrize(("threshold", "step"), [(0.5, 125), (0.0, 0), (1.0, 250), (0.1, 25), (0.501, 126), (0.3, 75)])
def test_mask_can_be_made_again_from_the_published_probability(threshold: float, step: int) -> None:
    assert first_cloud_step(threshold) == step
    steps = np.array([[0, 24, 25, 74, 75, 125, 126, 250, 255]], np.uint8)
    mask = classify(steps, threshold)
    assert mask[0, -1] == 255
    assert (mask[0, :-1] == (steps[0, :-1] >= step)).all()


def test_encoded_steps_and_no_data() -> None:
    probability = np.array([[0.0, 0.002, 0.0021, 0.5, 1.0, 1.5, 0.7]], np.float32)
    valid = np.array([[True] * 6 + [False]])
    assert encode_probability(probability, valid).tolist() == [[0, 0, 1, 125, 250, 250, 255]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_never_a_probability_of_zero(value: float) -> None:
    probability = np.full((2, 3), value, np.float32)
    probability[0] = 0.5
    valid = np.array([[True] * 3, [True, False, False]])
    with pytest.raises(BadWeights, match=r"w-1 on sc-1: the net's output is not a finite number .*1 of 4 pixels"):
        encode_probability(probability, valid, subject="w-1 on sc-1")
    valid[1, 0] = False  # at a pixel that was not observed it has no meaning
    assert encode_probability(probability, valid).tolist() == [[125] * 3, [255] * 3]
