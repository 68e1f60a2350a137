"""Percentiles of the brightness of a scene, the range of the training scenes, and what is outside of it."""

import numpy as np
import pytest

from cloudseg.raster.brightness import (
    BINS,
    MIN_SAMPLE,
    MIN_SCENES,
    PERCENTILES,
    STEP,
    compare_brightness,
    count_bins,
    percentiles_of,
    radiometry_of,
    range_of,
)
from cloudseg.records import BrightnessRange


def scenes(gain: float = 1.0, offset: float = 0.0, number: int = 60) -> list[tuple[float, ...]]:
    """Return percentiles of scenes of dark ground and bright cloud, which differ in brightness and in cloud."""
    random, found = np.random.default_rng(3), []
    for _ in range(number):
        ground = random.normal(random.uniform(0.06, 0.12), 0.01, (3, 50, 50))
        cloud = random.random((50, 50)) < random.uniform(0, 0.9)
        dn = np.clip((np.where(cloud, 0.6, ground) * gain + offset) * 10_000, 1, 65_535).astype(np.uint16)
        found.append(percentiles_of(count_bins(dn, [0, 1, 2], np.ones((50, 50), np.bool_))))
    return [one for one in found if one is not None]


def test_percentiles_are_those_of_numpy_to_half_a_bin() -> None:
    random = np.random.default_rng(0)
    dn, valid = random.integers(1, 9000, (4, 80, 80)).astype(np.uint16), random.random((80, 80)) < 0.7
    found = percentiles_of(count_bins(dn, [0, 1, 2], valid))
    brightness = dn[:3].mean(axis=0)[valid] / 10_000
    expected = np.percentile(brightness, PERCENTILES, method="inverted_cdf")
    assert found == pytest.approx(expected, abs=0.51 * STEP / 10_000)


def test_few_pixels_and_few_scenes_say_nothing() -> None:
    few = np.zeros(BINS, np.int64)
    few[3] = MIN_SAMPLE - 1
    assert percentiles_of(few) is None
    assert range_of(scenes(number=MIN_SCENES - 1)) is None
    assert range_of(scenes(number=MIN_SCENES)) is not None


def test_training_scenes_are_inside_and_another_scale_or_offset_is_outside() -> None:
    trained = range_of(scenes())
    own = [compare_brightness(trained, one).flag for one in scenes()]
    assert own.count("outside") <= 8, "each percentile leaves out one scene at each end"
    for gain, offset in ((0.5, 0.0), (2.0, 0.0), (1.0, 0.1)):
        changed = [compare_brightness(trained, one).flag for one in scenes(gain, offset)]
        assert changed.count("outside") > 50, (gain, offset)


def test_it_says_which_percentile_is_outside_and_by_how_much() -> None:
    trained = BrightnessRange(scenes=60, percentiles=(1, 50), low=(0.02, 0.05), high=(0.08, 0.6))
    found = compare_brightness(trained, (0.1225, 0.3))
    assert (found.flag, found.note) == ("outside", "percentile 1 of brightness is 0.1225, in training 0.0200 to 0.0800")
    assert found.tags() == {"CLOUDSEG_RADIOMETRY": "outside", "CLOUDSEG_RADIOMETRY_NOTE": found.note}
    assert compare_brightness(trained, (0.02, 0.6)).properties() == {"cloudseg:radiometry": "inside"}


def test_what_is_not_known_is_not_guessed() -> None:
    """Weights of an earlier release have no range, masks of one no percentiles."""
    assert radiometry_of({"threshold": 0.5}, (0.1, 0.1, 0.1, 0.1)).flag == "unknown"
    trained = range_of(scenes())
    assert trained is not None
    assert radiometry_of({"brightness": trained.as_json()}, None).flag == "unknown"
    assert radiometry_of({"brightness": trained.as_json()}, scenes()[0]).flag != "unknown"
