"""Values against the offset that was applied: measured limits, and bright scenes that must pass."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloudseg.bands import LANDSAT_L2, SENTINEL2, SENTINEL2_OFFSET, Radiometry
from cloudseg.errors import BadScene
from cloudseg.ingest.plausibility import find_wrong_offset
from cloudseg.ingest.radiometry import BandScale
from tests.ingest.decoding import decode
from tests.ingest.tiles import random_dn, write

GUESSED = replace(SENTINEL2, guessed=True)
GUESSED_OFFSET = replace(SENTINEL2_OFFSET, guessed=True)
GROUND = {"red": 0.05, "green": 0.08, "blue": 0.09, "nir": 0.3}


def check(
    reflectance: dict[str, float], radiometry: Radiometry, *, cloud: float = 0.0, cloud_value: float = 0.6
) -> str | None:
    """Return the verdict on ground of this reflectance as it reads with `radiometry`, partly under cloud."""
    rng = np.random.default_rng(0)
    counts = np.zeros((len(reflectance), 65536), np.int64)
    for band, value in enumerate(reflectance.values()):
        pixels = np.where(rng.random(10_000) < cloud, cloud_value, value) + rng.normal(0, 0.003, 10_000)
        counts[band] = np.bincount(np.clip(np.rint(pixels * 10_000), 1, 65535).astype(int), minlength=65536)
    return find_wrong_offset(counts, {name: BandScale(radiometry, (0.0,), assumed=False) for name in reflectance})


def shifted(by: float) -> dict[str, float]:
    return {name: value + by for name, value in GROUND.items()}


@pytest.mark.parametrize("cloud", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("radiometry", [SENTINEL2, SENTINEL2_OFFSET, GUESSED, GUESSED_OFFSET])
def test_true_reflectance_passes(radiometry: Radiometry, cloud: float) -> None:
    assert check(GROUND, radiometry, cloud=cloud) is None


@pytest.mark.parametrize("cloud", [0.0, 0.4, 0.8])
def test_an_offset_too_many_is_found_below_clouds(cloud: float) -> None:
    assert "not above 0" in str(check(shifted(-0.1), GUESSED_OFFSET, cloud=cloud, cloud_value=0.5))
    stated = check(shifted(-0.1), SENTINEL2_OFFSET, cloud=cloud, cloud_value=0.5)
    assert (stated is not None) == (cloud < 0.7)


@pytest.mark.parametrize("cloud", [0.0, 0.4])
def test_an_offset_too_few_is_found_only_where_it_was_guessed(cloud: float) -> None:
    assert "never below the offset" not in str(check(shifted(0.1), SENTINEL2, cloud=cloud, cloud_value=0.7))
    assert "ever below the offset of 1000" in str(check(shifted(0.1), GUESSED, cloud=cloud, cloud_value=0.7))


@pytest.mark.parametrize("value", [0.25, 0.4, 0.9])
def test_solid_cloud_snow_and_desert_pass(value: float) -> None:
    assert check(dict.fromkeys(GROUND, value), GUESSED) is None
    assert check({"red": 0.35, "green": 0.25, "blue": 0.21, "nir": 0.45}, GUESSED) is None


def test_dark_water_in_one_band_is_no_contradiction() -> None:
    """Surface reflectance of clear water falls below 0 in red, and in near infrared nearly everywhere."""
    water = {"red": -0.004, "green": 0.02, "blue": 0.03, "nir": -0.01}
    assert check(water, SENTINEL2_OFFSET) is None
    assert check(water, LANDSAT_L2) is None


@pytest.mark.parametrize(
    ("name", "tags"),
    [("20230802T105621_20230802T105937_T31UDQ.tif", {}), ("field.tif", {"PLATFORM": "Sentinel-2A"})],
)
def test_an_assumed_scale_of_sentinel2_is_a_guess_that_the_values_check(
    tmp_path: Path, name: str, tags: dict[str, str]
) -> None:
    """Earth Engine's exports of COPERNICUS/S2_SR have the offset, those of S2_SR_HARMONIZED do not."""
    names = ["B2", "B3", "B4", "B8"]
    shifted = random_dn(4, low=1200, high=2400)
    with pytest.raises(BadScene, match="ever below the offset of 1000") as error:
        decode(tmp_path, write(tmp_path / name, shifted, names=names, tags=tags))
    assert "gdal_edit.py" in str(error.value.next_step)
    harmonized = write(tmp_path / name, shifted - 1000, names=names, tags=tags)
    facts, _ = decode(tmp_path, harmonized)
    assert facts.tags["radiometry_guess"].startswith("assumed: reflectance x 10000")
    decode(tmp_path, write(tmp_path / name, shifted, names=names, tags=tags, scale=1e-4))  # stated, so not doubted
    decode(tmp_path, write(tmp_path / "drone.tif", shifted, names=["blue", "green", "red", "nir"]))
