"""The bounds: deterministic, paired, drawn by place."""

import numpy as np
import pytest

from cloudseg.evaluate.bootstrap import Row, compare, seed_of, spread
from cloudseg.evaluate.metrics import Counts

WANTED = {"confidence": 0.95, "samples": 2000, "seed": 7}


def rows(difference: float, *, spread: float = 0.0, places: int = 30, scenes_a_place: int = 1) -> list[Row]:
    """Challenger and other, `difference` apart in IoU on average, the difference spread over places."""
    random = np.random.default_rng(1)
    found = []
    for place in range(places):
        base, extra = random.uniform(0.3, 0.6), random.normal(difference, spread)
        for _ in range(scenes_a_place):
            other, mine = round(1000 * base), round(1000 * min(max(base + extra, 0), 1))
            found.append(Row(f"p{place}", Counts(tp=mine, fn=1000 - mine), Counts(tp=other, fn=1000 - other)))
    return found


def test_the_same_seed_gives_the_same_bounds() -> None:
    first, again = compare(rows(0.05, spread=0.1), **WANTED), compare(rows(0.05, spread=0.1), **WANTED)
    assert first == again
    assert compare(rows(0.05, spread=0.1), **(WANTED | {"seed": 8})) != first


def test_seeds_come_from_ids() -> None:
    assert seed_of("a", "b") == seed_of("a", "b")
    assert len({seed_of("a", "b"), seed_of("b", "a"), seed_of("ab", "")}) == 3


def test_equal_masks_differ_by_nothing() -> None:
    found = compare(rows(0.0), **WANTED)["pooled"]
    assert (found.observed, found.lower, found.upper) == (0, 0, 0)


def test_a_constant_gain_has_narrow_bounds_however_different_the_places_are() -> None:
    found = compare(rows(0.05), **WANTED)
    for name in ("pooled", "scene_mean"):
        assert found[name].observed == pytest.approx(0.05, abs=0.001)
        assert found[name].lower == pytest.approx(0.05, abs=0.002)


def test_noise_widens_the_bounds() -> None:
    found = compare(rows(0.01, spread=0.1), **WANTED)["pooled"]
    assert found.lower < 0 < found.upper


def test_bounds_are_those_of_the_normal_approximation() -> None:
    sample = rows(0.05, spread=0.1, places=200)
    found = compare(sample, **WANTED)["scene_mean"]
    each = np.array([(row.challenger.tp - row.other.tp) / 1000 for row in sample])
    assert found.observed == pytest.approx(each.mean())
    distance = 1.645 * each.std() / 200**0.5
    assert (found.lower, found.upper) == pytest.approx((each.mean() - distance, each.mean() + distance), abs=0.002)


def test_scenes_of_one_place_are_drawn_together() -> None:
    """Ten copies of every scene at its place add no information: the bounds stay as wide."""
    one, ten = (compare(rows(0.05, spread=0.1, scenes_a_place=n), **WANTED)["pooled"] for n in (1, 10))
    assert (ten.lower, ten.upper) == pytest.approx((one.lower, one.upper))


def test_cloud_free_places_have_finite_bounds() -> None:
    clear = [Row("a", Counts(tn=10), Counts(tn=10)), Row("b", Counts(tn=9, fp=1), Counts(tn=10))]
    found = compare(clear, **WANTED)["pooled"]
    assert found.observed == -1
    assert -1 <= found.lower <= found.upper <= 0


def test_the_spread_holds_the_pooled_iou_and_narrows_with_places() -> None:
    few, many = ([(row.place, row.challenger) for row in rows(0.1, places=places)] for places in (5, 80))
    widths = []
    for scenes in (few, many):
        total = sum((counts for _, counts in scenes), Counts())
        low, high = spread(scenes, **WANTED)
        assert low < total.tp / (total.tp + total.fp + total.fn) < high
        widths.append(high - low)
    assert widths[1] < widths[0]
