"""Weeks and sensors beside the training scenes, and places that stand out of their region."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from cloudseg.catalog.drift_rows import PlaceFigures, SceneFigures
from cloudseg.drift.places import list_suspects
from cloudseg.drift.weeks import (
    MIN_REFERENCE,
    MIN_SCENES,
    list_current,
    list_weeks,
    monday_of,
    sentence_of,
    week_of,
)

W09 = datetime(2026, 2, 23, tzinfo=UTC)
"""A Monday."""


def scenes(count: int, *, at: datetime = W09, sensor: str = "s2", shift: float = 0.0) -> list[SceneFigures]:
    """Return scenes whose brightness is spread evenly over 0.1 .. 0.3, plus a shift."""
    return [
        SceneFigures(f"sc-{sensor}-{at:%m%d}-{n}", sensor, at, 0.1 + 0.2 * (n + 0.5) / count + shift, n % 10 / 10)
        for n in range(count)
    ]


def brightness(found: list) -> list:
    return [week for week in found if week.measure == "brightness"]


def test_iso_weeks_are_of_utc():
    assert week_of(datetime(2027, 1, 3, 23, 59, tzinfo=UTC)) == "2026-W53"
    assert monday_of("2026-W53") == datetime(2026, 12, 28, tzinfo=UTC)
    assert week_of(monday_of("2026-W09")) == "2026-W09"
    late = timezone(timedelta(hours=-5))
    assert week_of(datetime(2026, 3, 1, 20, tzinfo=late)) == "2026-W10", "Monday, 01:00 UTC"


def test_the_same_scenes_have_not_drifted_and_brighter_ones_have():
    (same,) = brightness(list_weeks(scenes(100), scenes(50)))
    assert (same.week, same.scenes, same.reference_scenes, same.past) == ("2026-W09", 50, 100, False)
    assert same.psi == pytest.approx(0, abs=0.01)
    (brighter,) = brightness(list_weeks(scenes(100), scenes(50, shift=0.1)))
    assert brighter.past
    assert brighter.psi > brighter.psi_limit >= 0.25
    assert sentence_of(brighter).startswith(
        "brightness of the scenes of s2 in 2026-W09 is higher than in training: median 0.30, in training 0.20 (PSI "
    )
    assert (brighter.low, brighter.reference_low) == (pytest.approx(0.22, abs=0.01), pytest.approx(0.12, abs=0.01))


def test_nothing_is_said_about_too_few_scenes():
    (few,) = brightness(list_weeks(scenes(100), scenes(MIN_SCENES - 1, shift=1)))
    assert (few.psi, few.past, few.reference_median is None) == (None, False, False)
    (unknown,) = brightness(list_weeks(scenes(MIN_REFERENCE - 1), scenes(50, shift=1)))
    assert (unknown.psi, unknown.past) == (None, False)
    assert brightness(list_weeks(scenes(MIN_REFERENCE), scenes(MIN_SCENES, shift=1)))[0].past


def test_sensors_are_compared_with_their_own_training_scenes():
    reference = scenes(100) + scenes(100, sensor="l8", shift=0.5)
    found = brightness(list_weeks(reference, scenes(50) + scenes(50, sensor="l8", shift=0.5)))
    assert [(week.sensor, week.past) for week in found] == [("l8", False), ("s2", False)]
    (other,) = brightness(list_weeks(reference, scenes(50, sensor="planet")))
    assert (other.reference_scenes, other.reference_median, other.psi) == (0, None, None)


def test_a_small_week_needs_a_larger_shift_than_a_large_one():
    reference = scenes(100)
    small, large = (brightness(list_weeks(reference, scenes(n, shift=0.03)))[0] for n in (MIN_SCENES, 200))
    assert large.past
    assert not small.past
    assert small.psi_limit > large.psi_limit


def test_a_small_shift_of_many_scenes_is_below_the_limit():
    (found,) = brightness(list_weeks(scenes(1000), scenes(1000, shift=0.015)))
    assert found.psi > 0.05, "more than chance"
    assert (found.psi_limit, found.past) == (0.25, False)
    (strict,) = brightness(list_weeks(scenes(1000), scenes(1000, shift=0.015), limit=0.05))
    assert strict.past


def test_only_the_newest_week_counts_as_current_and_only_if_it_is_recent():
    reference, later = scenes(100), W09 + timedelta(weeks=1)
    weeks = list_weeks(reference, scenes(50, shift=0.1) + scenes(50, at=later))
    assert [week.week for week in brightness(weeks)] == ["2026-W10", "2026-W09"]
    assert [week.week for week in brightness(list_current(weeks, later))] == ["2026-W10"]
    assert not any(week.past for week in list_current(weeks, later)), "last week's drift is over"
    few = list_weeks(reference, scenes(50, shift=0.1) + scenes(3, at=later))
    assert [week.past for week in brightness(list_current(few, later))] == [True], "three scenes say nothing"
    assert list_current(few, W09 + timedelta(weeks=4)) == []


def place(name: str, masks: int, *, mean: float, overcast: int = 0, clear: int = 0, lon: float = 5) -> PlaceFigures:
    return PlaceFigures(name, masks, mean, overcast, clear, lon, 45)


def test_a_place_that_is_always_cloudy_in_a_region_that_is_not():
    rest = [place("a", 15, mean=0.4, overcast=3, clear=4), place("b", 15, mean=0.5, overcast=4, clear=3)]
    snow = place("snow", 12, mean=0.95, overcast=11)
    (found,) = list_suspects([*rest, snow])
    assert (found.place, found.kind, found.masks, found.region_masks) == ("snow", "always cloud", 12, 30)
    assert (found.share, found.region_mean) == (pytest.approx(11 / 12), pytest.approx(0.45))
    (clear,) = list_suspects([*rest, place("desert", 10, mean=0.01, clear=9)])
    assert (clear.place, clear.kind) == ("desert", "never cloud")


def test_a_place_does_not_stand_out_with_few_masks_or_like_its_region():
    rest = [place("a", 15, mean=0.4), place("b", 15, mean=0.5)]
    assert list_suspects([*rest, place("snow", 9, mean=0.95, overcast=9)]) == []
    assert list_suspects([*rest, place("snow", 12, mean=0.8, overcast=10)]) == [], "10 of 12 is not nearly always"
    assert list_suspects([place("a", 30, mean=0.9), place("fog", 12, mean=0.95, overcast=12)]) == []
    few = [place("a", 10, mean=0.4), place("b", 9, mean=0.4)]
    assert list_suspects([*few, place("snow", 12, mean=0.95, overcast=12)]) == [], "19 masks are too few of a region"
    dry = [place("a", 15, mean=0.1), place("b", 15, mean=0.3)]
    assert list_suspects([*dry, place("desert", 12, mean=0.01, clear=12)]) == [], "its region is clear as well"
    assert list_suspects([place("a", 30, mean=0.4, lon=25), place("snow", 12, mean=0.95, overcast=12)]) == []
    assert list_suspects([]) == []
