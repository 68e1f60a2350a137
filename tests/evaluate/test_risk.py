"""The bound of missed and of false cloud holds on synthetic places, on average over draws; it says when it cannot."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from cloudseg.evaluate.risk import (
    LEVEL,
    Counts,
    Risks,
    bound,
    count_steps,
    false_cloud,
    largest_step,
    missed_cloud,
    promise_of,
    smallest_step,
)
from cloudseg.raster.probability import STEPS, classify

PIXELS, POPULATION, DRAWS = 100, 2000, 1500


def graded(random: np.random.Generator) -> list[npt.NDArray[np.float64]]:
    """Return probabilities of clear and cloud pixels at places where a net sees clouds well, less well or hardly."""
    seen, ground = random.beta(1.2, 0.5, (POPULATION, 1)), random.beta(0.5, 3, (POPULATION, 1))
    shape = (POPULATION, PIXELS)
    return [random.beta(1 + 9 * ground, 10 - 9 * ground, shape), random.beta(1 + 9 * seen, 2, shape)]


def all_or_nothing(random: np.random.Generator) -> list[npt.NDArray[np.float64]]:
    """Return the same for places each of which is found as a whole or missed as a whole: then the bound is tight."""
    return [np.repeat(random.random((POPULATION, 1)), 2, axis=1) for _ in range(2)]


Draw = Callable[[np.random.Generator], list[npt.NDArray[np.float64]]]
Choose = Callable[[Risks, float], int | None]


def mean_risk(draw: Draw, number: int, level: float, careful: Choose, generous: Choose) -> list[tuple[float, float]]:
    """Return mean and standard error, over draws, of missed and of false cloud at one more place than were measured."""
    random = np.random.default_rng(7)
    steps = [np.rint(p * STEPS).astype(int) for p in draw(random)]
    places = {
        f"p{n}": np.stack([np.bincount(kind[n], minlength=STEPS + 1) for kind in steps]) for n in range(POPULATION)
    }
    found = []
    for risks, choose in ((missed_cloud(places), careful), (false_cloud(places), generous)):
        values = np.zeros(DRAWS)
        for n in range(DRAWS):
            *known, new = random.integers(POPULATION, size=number + 1)
            step = choose(risks[known], level)
            # Where no threshold keeps the level nothing is promised, so nothing is broken either.
            values[n] = risks[new, step] if step is not None else 0
        found.append((float(values.mean()), float(values.std() / np.sqrt(DRAWS))))
    return found


@pytest.mark.parametrize(
    ("draw", "number", "level"), [(graded, 60, 0.1), (all_or_nothing, 20, 0.05), (all_or_nothing, 31, 0.05)]
)
def test_the_promise_holds_on_average_over_draws_of_places(draw: Draw, number: int, level: float) -> None:
    """The mean over draws of the risk at one more place is at most the level, and not far below it."""
    for mean, error in mean_risk(draw, number, level, largest_step, smallest_step):
        assert level / 3 < mean <= level + 2 * error


def test_without_the_place_to_come_it_would_not_hold() -> None:
    """The plain mean of 20 places in place of the bound: the expected risk is nearly twice the level."""

    def plain(missed: Risks, level: float) -> int | None:
        fits = np.flatnonzero(missed.mean(axis=0)[1:] <= level)
        return int(fits[-1]) + 1 if len(fits) else None

    mean, error = mean_risk(all_or_nothing, 20, 0.05, plain, smallest_step)[0]
    assert mean > 0.05 + 3 * error


def test_a_risk_is_that_of_the_published_mask() -> None:
    random = np.random.default_rng(1)
    steps = random.integers(0, STEPS + 1, (40, 40)).astype(np.uint8)
    label = random.choice(np.array([0, 1, 255], np.uint8), (40, 40))
    steps[:3], label[:2] = 255, 255
    places = {"a": count_steps(steps, label)}
    seen = steps != 255
    for step in (1, 77, 250):
        cloud = classify(steps, step / STEPS) == 1
        assert missed_cloud(places)[0, step] == pytest.approx(
            (~cloud & (label == 1) & seen).sum() / ((label == 1) & seen).sum()
        )
        assert false_cloud(places)[0, step] == pytest.approx((cloud & (label == 0)).sum() / ((label == 0) & seen).sum())


def test_the_bound_of_one_place_after_another() -> None:
    """(n * mean + 1) / (n + 1): 19 places without a miss allow 5 %, 18 do not."""
    assert bound(np.zeros((19, 1)))[0] == pytest.approx(0.05)
    assert bound(np.zeros((18, 1)))[0] > 0.05
    assert bound(np.full((9, 1), 0.2))[0] == pytest.approx(0.28)
    assert bound(np.zeros((0, 1)))[0] == 1


def place(clear: dict[int, int], cloud: dict[int, int]) -> Counts:
    """Return the counts of a place from pixels by step."""
    found = np.zeros((2, STEPS + 1), np.int64)
    for row, by_step in zip(found, (clear, cloud), strict=True):
        for step, pixels in by_step.items():
            row[step] = pixels
    return found


def test_careful_and_generous_lie_on_both_sides_of_balanced() -> None:
    places = {f"p{n}": place({10: 90, 150: 10}, {50: 10, 200: 90}) for n in range(99)}
    found = promise_of(places, threshold=0.5, evaluation_id="ev-1")
    assert found.careful is not None
    assert found.balanced is not None
    assert found.generous is not None
    assert (found.careful.threshold, found.balanced.threshold, found.generous.threshold) == (0.2, 0.5, 151 / STEPS)
    assert (found.careful.missed, found.careful.missed_at_most) == (0.0, LEVEL)
    assert (found.balanced.missed, found.balanced.missed_at_most) == (0.1, pytest.approx((99 * 0.1 + 1) / 100))
    assert (found.generous.false_cloud, found.generous.false_cloud_at_most) == (0.0, LEVEL)
    assert found.careful.false_cloud == found.balanced.false_cloud == 0.1
    assert "at most 5.0 % of the cloud of a place is missed" in found.sentences()["careful"]
    assert found.tags()["CLOUDSEG_THRESHOLD_CAREFUL"] == "0.2"


def test_a_net_that_is_good_enough_keeps_its_threshold() -> None:
    """Careful is never above the threshold of the weights, generous never below: both bounds stay."""
    places = {f"p{n}": place({0: 100}, {250: 100}) for n in range(99)}
    found = promise_of(places, threshold=0.5, evaluation_id="ev-1")
    assert found.careful is not None
    assert found.generous is not None
    assert found.careful.threshold == found.generous.threshold == 0.5


def test_a_place_without_cloud_says_nothing_about_missed_cloud() -> None:
    places = {f"p{n}": place({0: 100}, {250: 100} if n < 10 else {}) for n in range(30)}
    found = promise_of(places, threshold=0.5, evaluation_id="ev-1")
    assert (found.cloudy_places, found.clear_places) == (10, 30)
    assert found.careful is None
    assert found.reasons == {"careful": "10 held-out places with cloud, at least 19 are needed for 5 %"}
    assert found.sentences()["careful"].startswith("none: 10 held-out places")
    assert "CLOUDSEG_THRESHOLD_CAREFUL" not in found.tags()
    assert found.generous is not None


def test_cloud_that_is_missed_at_any_threshold_cannot_be_promised() -> None:
    places = {f"p{n}": place({250: 10, 0: 90}, {0: 10, 250: 90}) for n in range(99)}
    found = promise_of(places, threshold=0.5, evaluation_id="ev-1")
    assert found.careful is found.generous is None
    assert found.reasons == {
        "careful": "on average 10.0 % of the cloud is missed even from probability 0.004 on",
        "generous": "on average 10.0 % of the clear pixels are called cloud even from probability 1.0 on",
    }


def test_nothing_is_promised_without_a_place() -> None:
    found = promise_of({}, threshold=0.5, evaluation_id="ev-1")
    assert found.careful is found.generous is None
    assert found.balanced is not None
    assert found.balanced.missed_at_most == 1
