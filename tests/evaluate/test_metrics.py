"""Every rate on arrays small enough to count by hand, 0/0 included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cloudseg.evaluate.metrics import BINS, Counts, count, mean_rates, pool, rates


def steps_of(probability: np.ndarray) -> np.ndarray:
    """As it is published: steps of 1/250."""
    return np.rint(probability * 250).astype(np.uint8)


def counted(probability: list[list[float]], label: list[list[int]], threshold: float = 0.5) -> Counts:
    return count(steps_of(np.array(probability)), np.array(label, np.uint8), threshold)


def test_confusion_by_hand() -> None:
    c = counted([[0.9, 0.9, 0.1], [0.1, 0.5, 0.9]], [[1, 0, 1], [0, 1, 255]])
    assert (c.tp, c.fp, c.fn, c.tn) == (2, 1, 1, 1)
    r = rates(c)
    assert r["iou"] == pytest.approx(2 / 4)
    assert r["f1"] == pytest.approx(4 / 6)
    assert r["precision"] == pytest.approx(2 / 3)
    assert r["recall"] == pytest.approx(2 / 3)
    assert r["accuracy"] == pytest.approx(3 / 5)
    assert r["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)


@pytest.mark.parametrize(("probability", "threshold", "cloud"), [(0.4, 0.4, 1), (0.3981, 0.4, 1), (0.3979, 0.4, 0)])
def test_the_mask_is_that_of_the_published_steps(probability: float, threshold: float, cloud: int) -> None:
    """0.3981 is published as 0.400, so its pixel is cloud in the mask."""
    assert counted([[probability]], [[1]], threshold).tp == cloud


def test_unlabeled_pixels_never_count() -> None:
    assert counted([[0.9, 0.1]], [[255, 255]]) == Counts()


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (Counts(tn=9), {"iou": 1, "f1": 1, "precision": 1, "recall": 1, "balanced_accuracy": 1}),
        (Counts(tn=8, fp=1), {"iou": 0, "f1": 0, "precision": 0, "recall": 1, "balanced_accuracy": 8 / 9}),
        (Counts(fn=9), {"iou": 0, "f1": 0, "precision": 1, "recall": 0, "balanced_accuracy": 0}),
        (Counts(tp=9), {"iou": 1, "f1": 1, "precision": 1, "recall": 1, "balanced_accuracy": 1}),
        (Counts(), {"iou": 1, "f1": 1, "precision": 1, "recall": 1, "balanced_accuracy": 1, "calibration_error": 0}),
    ],
    ids=[
        "cloud-free, none predicted",
        "cloud-free, false alarm",
        "overcast, all missed",
        "overcast, all found",
        "nothing",
    ],
)
def test_nothing_over_nothing_is_defined(counts: Counts, expected: dict[str, float]) -> None:
    found = rates(counts)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_edges_within_the_tolerance_are_the_same_edge() -> None:
    label = np.zeros((20, 20), np.uint8)
    label[:, :10] = 1
    for shift, expected in ((0, 1.0), (2, 1.0), (3, 0.0)):
        probability = np.zeros((20, 20), np.float32)
        probability[:, : 10 + shift] = 1
        assert rates(count(steps_of(probability), label, 0.5))["boundary_f1"] == expected


def test_one_edge_too_many_costs_precision_only() -> None:
    label = np.zeros((20, 40), np.uint8)
    label[:, :10] = 1
    probability = label.astype(np.float32)
    probability[:, 30:] = 1
    c = count(steps_of(probability), label, 0.5)
    assert (c.edge_mask, c.edge_mask_hit, c.edge_label, c.edge_label_hit) == (40, 20, 20, 20)
    assert rates(c)["boundary_f1"] == pytest.approx(2 * 0.5 / 1.5)


def test_the_border_of_the_labeled_area_is_no_edge() -> None:
    label = np.ones((8, 8), np.uint8)
    label[:, 4:] = 255
    c = count(np.full((8, 8), 250, np.uint8), label, 0.5)
    assert (c.edge_mask, c.edge_label) == (0, 0)
    assert rates(c)["boundary_f1"] == 1


def test_calibration_error_by_hand() -> None:
    # Ten pixels at 0.82, six of them cloud: |0.6 - 0.82|; ten at 0.1, one of them cloud: 0.
    probability = np.repeat(np.array([0.82, 0.1], np.float32), 10)[np.newaxis]
    label = np.array([[1] * 6 + [0] * 4 + [1] + [0] * 9], np.uint8)
    assert rates(count(steps_of(probability), label, 0.5))["calibration_error"] == pytest.approx(0.22 / 2, abs=1e-6)


def test_a_probability_of_one_falls_into_the_last_bin() -> None:
    assert counted([[1.0]], [[1]]).bin_pixels == (0,) * (BINS - 1) + (1,)


@given(st.data())
def test_pooled_from_parts_equals_direct(data: st.DataObject) -> None:
    """Counts of disjoint parts add up to those of the whole."""
    steps = data.draw(arrays(np.uint8, (6, 9), elements=st.integers(0, 250)))
    label = data.draw(arrays(np.uint8, (6, 9), elements=st.sampled_from([0, 1, 255])))
    cut = data.draw(st.integers(1, 8))
    whole = count(steps, label, 0.4)
    left = count(steps, label, 0.4, (slice(None), slice(0, cut)))
    right = count(steps, label, 0.4, (slice(None), slice(cut, None)))
    added = pool([left, right])
    exact = {"bin_probability"}
    assert added.model_dump(exclude=exact) == whole.model_dump(exclude=exact)
    assert added.bin_probability == pytest.approx(whole.bin_probability, abs=1e-4)
    assert all(0 <= value <= 1 for value in rates(added).values())


def test_scene_mean_counts_every_scene_the_same() -> None:
    large, small = Counts(tp=900, fn=100), Counts(tp=1, fp=3)
    assert mean_rates([large, small])["iou"] == pytest.approx((0.9 + 0.25) / 2)
    assert rates(pool([large, small]))["iou"] == pytest.approx(901 / 1004)
