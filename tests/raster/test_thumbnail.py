"""A picture that shows where the cloud is, whatever the scene."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rasterio.transform import Affine

from cloudseg.raster.cog import create_tiled, write_cog
from cloudseg.raster.thumbnail import MAX_SIDE, NO_DATA_GRAY, OUTLINE, encode, make_thumbnail, render, small_shape

RNG = np.random.default_rng(0)


def picture_of(numbers: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return render(numbers.astype(np.uint16), mask.astype(np.uint8))


def outlined(picture: np.ndarray) -> np.ndarray:
    return (picture == OUTLINE).all(axis=-1)


def test_cloud_is_outlined_and_its_inside_is_left_alone() -> None:
    mask = np.zeros((40, 60))
    mask[10:20, 30:50] = 1
    edge = outlined(picture_of(RNG.integers(500, 5000, (3, 40, 60)), mask))
    assert edge[10, 30:50].all()
    assert edge[19, 30:50].all()
    assert edge[10:20, [30, 49]].all()
    assert edge.sum() == 2 * 20 + 2 * 8


def test_neither_the_border_nor_no_data_is_the_edge_of_a_cloud() -> None:
    numbers = RNG.integers(500, 5000, (3, 20, 20))
    assert outlined(picture_of(numbers, np.ones((20, 20)))).sum() == 0
    assert outlined(picture_of(numbers, np.zeros((20, 20)))).sum() == 0
    mask = np.ones((20, 20))
    mask[:, 15:] = 255
    assert outlined(picture_of(numbers, mask)).sum() == 0
    mask[:, :5] = 0
    edge = outlined(picture_of(numbers, mask))
    assert edge[:, 5].all()
    assert edge.sum() == 20


@pytest.mark.parametrize("most", [40_000, 5_000, 300])
def test_a_picture_fits_however_noisy_it_is(most: int) -> None:
    noise = RNG.integers(0, 256, (512, 400, 3), dtype=np.uint8)
    data = encode(noise, most)
    assert len(data) <= most
    found = Image.open(io.BytesIO(data))
    assert found.format == "WEBP"
    assert found.width / found.height == pytest.approx(400 / 512, abs=0.05)
    assert data == encode(noise, most), "the same bytes again"


@pytest.mark.parametrize("level", [1, 3000, 65535])
def test_a_constant_scene_and_one_without_pixels_are_drawn(level: int) -> None:
    assert picture_of(np.full((3, 8, 8), level), np.zeros((8, 8))).shape == (8, 8, 3)
    assert (picture_of(np.zeros((3, 8, 8)), np.full((8, 8), 255)) == NO_DATA_GRAY).all()


@pytest.mark.parametrize(
    ("shape", "small"),
    [((10_980, 10_980), (512, 512)), ((100, 50), (100, 50)), ((4, 100_000), (1, 512)), ((600, 700), (439, 512))],
)
def test_size(shape: tuple[int, int], small: tuple[int, int]) -> None:
    assert small_shape(*shape) == small
    assert max(small) <= MAX_SIDE


def test_a_scene_without_color_bands_is_gray(tmp_path: Path) -> None:
    paths = {}
    for name, dtype, count, value in (
        ("scene", "uint16", 2, RNG.integers(500, 5000, (2, 64, 64))),
        ("mask", "uint8", 1, np.zeros((1, 64, 64))),
    ):
        with create_tiled(
            tmp_path / "drawn.tif",
            height=64,
            width=64,
            count=count,
            dtype=dtype,
            crs="EPSG:32631",
            transform=Affine(10, 0, 5e5, 0, -10, 5e6),
            nodata=0 if count == 2 else 255,
            descriptions=["nir", "swir16"][:count],
        ) as out:
            out.write(value.astype(dtype))
        paths[name] = tmp_path / f"{name}.tif"
        write_cog(paths[name], tmp_path / "drawn.tif", resampling="nearest", tags={})
        (tmp_path / "drawn.tif").unlink()
    picture = np.asarray(Image.open(io.BytesIO(make_thumbnail(str(paths["scene"]), paths["mask"]))))
    assert (picture[..., 0] == picture[..., 2]).all()
    assert picture.std() > 10
