"""The derived band: one number for a scene, made from where it lies."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import Affine, from_origin

from cloudseg.bands import NO_DATA, POLAR, polar_number, recorded_bands
from cloudseg.grid import Window
from cloudseg.raster.cog import create_tiled, write_cog
from cloudseg.raster.read import open_raster, read_scene

POLAR_STEREOGRAPHIC = Affine(1000, 0, 0.0, 0, -1000, 1000e3)
"""South: 1000 km from the pole, at about 81 degrees."""


@given(a=st.floats(-90, 90), b=st.floats(-90, 90))
def test_the_number_rises_from_pole_to_pole(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 100 <= polar_number(low) <= polar_number(high) <= 2100
    assert polar_number(-a) + polar_number(a) == 2200
    assert (polar_number(a) - 100) % 200 == 0


@pytest.mark.parametrize(
    ("latitude", "number"),
    [(None, 1100), (float("inf"), 1100), (0, 1100), (55, 1100), (60, 1300), (-70, 500), (80, 2100), (-90, 100)],
)
def test_the_number_of_a_latitude(latitude: float | None, number: int) -> None:
    assert polar_number(latitude) == number


@pytest.mark.parametrize(
    ("crs", "transform", "number"),
    [
        ("EPSG:32631", from_origin(500_000, 5_600_000, 10, 10), 1100),
        ("EPSG:32631", from_origin(500_000, 7_760_000, 10, 10), 1700),  # 69.95 degrees north
        ("EPSG:32731", from_origin(500_000, 2_200_000, 10, 10), 500),  # 70 degrees south, as UTM south counts
        ("EPSG:3031", POLAR_STEREOGRAPHIC, 100),
        (None, from_origin(0, 0, 1, 1), 1100),
    ],
)
def test_every_valid_pixel_of_a_scene_has_the_same(
    tmp_path: Path, crs: str | None, transform: Affine, number: int
) -> None:
    pixels = np.random.default_rng(0).integers(1, 9000, (2, 20, 31), dtype=np.uint16)
    pixels[:, :5, :4] = NO_DATA
    with create_tiled(
        tmp_path / "tiled.tif",
        height=20,
        width=31,
        count=2,
        dtype="uint16",
        crs=crs,
        transform=transform,
        nodata=0,
        descriptions=("red", "nir"),
    ) as out:
        out.write(pixels)
    write_cog(tmp_path / "scene.tif", tmp_path / "tiled.tif", resampling="average", tags={})
    with open_raster(str(tmp_path / "scene.tif")) as dataset:
        numbers, valid = read_scene(dataset, Window(0, 0, 20, 31), ("nir", "red", POLAR))
        part, _ = read_scene(dataset, Window(1, 1, 3, 5), ("nir", "red", POLAR), 3)
    assert numbers.dtype == np.uint16
    assert np.array_equal(numbers[:2], pixels[::-1])
    assert (numbers[2] == np.where(valid, number, NO_DATA)).all()
    assert set(np.unique(part[2])) <= {NO_DATA, number}


def test_a_scene_need_not_hold_it() -> None:
    assert recorded_bands(("red", POLAR, "nir")) == ["red", "nir"]
