"""Windows of canonical rasters, at full resolution and downsampled."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine, from_origin

from cloudseg.errors import DataError, ObjectCorrupt
from cloudseg.grid import Window
from cloudseg.raster.cog import create_tiled, write_cog
from cloudseg.raster.read import open_raster, read_label, read_scene
from cloudseg.raster.resample import working_shape

HEIGHT, WIDTH = 30, 41


def _write(path: Path, pixels: np.ndarray, descriptions: tuple[str, ...], nodata: int) -> Path:
    count, height, width = pixels.shape
    tiled = path.with_suffix(".tiled.tif")
    with create_tiled(
        tiled,
        height=height,
        width=width,
        count=count,
        dtype=str(pixels.dtype),
        crs="EPSG:32631",
        transform=from_origin(500000, 5600000, 10, 10),
        nodata=nodata,
        descriptions=descriptions,
    ) as dataset:
        dataset.write(pixels)
    write_cog(path, tiled, resampling="average" if count > 1 else "mode", tags={})
    return path


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    random = np.random.default_rng(0)
    pixels = random.integers(1, 12_000, (3, HEIGHT, WIDTH), dtype=np.uint16)
    pixels[:, :9, :7] = 0
    pixels[1, 20, 20] = 0
    return _write(tmp_path_factory.mktemp("scene") / "scene.tif", pixels, ("red", "green", "blue"), 0), pixels


@pytest.fixture(scope="module")
def label(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    classes = np.random.default_rng(1).choice(np.array([0, 1, 255], dtype=np.uint8), (1, HEIGHT, WIDTH))
    classes[:, :8, :8] = 255
    return _write(tmp_path_factory.mktemp("label") / "label.tif", classes, ("label",), 255), classes[0]


def test_full_resolution_gives_the_pixels_in_the_order_asked_for(scene: tuple[Path, np.ndarray]) -> None:
    path, pixels = scene
    with open_raster(str(path)) as dataset:
        numbers, valid = read_scene(dataset, Window(5, 3, 20, 30), ("blue", "red"))
    assert numbers.dtype == np.uint16
    expected_valid = (pixels[[2, 0], 5:25, 3:33] != 0).all(axis=0)
    assert np.array_equal(valid, expected_valid)
    assert np.array_equal(numbers, pixels[[2, 0], 5:25, 3:33] * expected_valid)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), factor=st.integers(2, 5))
def test_a_working_pixel_is_the_mean_of_its_valid_pixels(
    scene: tuple[Path, np.ndarray], data: st.DataObject, factor: int
) -> None:
    path, pixels = scene
    rows, cols = working_shape(HEIGHT, WIDTH, factor)
    row, col = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    height, width = data.draw(st.integers(1, rows - row)), data.draw(st.integers(1, cols - col))
    with open_raster(str(path)) as dataset:
        numbers, valid = read_scene(dataset, Window(row, col, height, width), ("red", "green", "blue"), factor)
    i, j = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    block = pixels[:, (row + i) * factor : (row + i + 1) * factor, (col + j) * factor : (col + j + 1) * factor]
    seen = (block != 0).all(axis=0)
    assert valid[i, j] == seen.any()
    if seen.any():
        assert np.abs(numbers[:, i, j] - block[:, seen].mean(axis=1)).max() <= 0.5
    else:
        assert (numbers[:, i, j] == 0).all()


@settings(max_examples=40, deadline=None)
@given(data=st.data(), factor=st.integers(1, 5))
def test_a_working_label_is_the_majority_of_labelled_pixels(
    label: tuple[Path, np.ndarray], data: st.DataObject, factor: int
) -> None:
    path, classes = label
    rows, cols = working_shape(HEIGHT, WIDTH, factor)
    with open_raster(str(path)) as dataset:
        found = read_label(dataset, Window(0, 0, rows, cols), factor)
    assert found.shape == (rows, cols)
    i, j = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    block = classes[i * factor : (i + 1) * factor, j * factor : (j + 1) * factor]
    labeled = block[block != 255]
    assert found[i, j] == (255 if labeled.size == 0 else int(2 * (labeled == 1).sum() >= labeled.size))


def test_windows_put_together_are_the_whole(scene: tuple[Path, np.ndarray]) -> None:
    path, _ = scene
    rows, cols = working_shape(HEIGHT, WIDTH, 4)
    with open_raster(str(path)) as dataset:
        whole, _ = read_scene(dataset, Window(0, 0, rows, cols), ("red",), 4)
        parts = [read_scene(dataset, Window(row, 0, 1, cols), ("red",), 4)[0] for row in range(rows)]
    assert np.array_equal(whole, np.concatenate(parts, axis=1))


def test_a_missing_band_is_named(scene: tuple[Path, np.ndarray]) -> None:
    with open_raster(str(scene[0])) as dataset, pytest.raises(DataError, match=r"lacks nir.*red, green, blue"):
        read_scene(dataset, Window(0, 0, 4, 4), ("red", "nir"))


@pytest.mark.parametrize(
    "window", [Window(-1, 0, 4, 4), Window(0, 0, HEIGHT + 1, 4), Window(0, 0, 0, 4), Window(28, 0, 3, 4)]
)
def test_a_window_outside_is_refused(scene: tuple[Path, np.ndarray], window: Window) -> None:
    with open_raster(str(scene[0])) as dataset, pytest.raises(ValueError, match="is not inside"):
        read_scene(dataset, window, ("red",))


def test_what_is_no_geotiff_is_a_corrupt_object(tmp_path: Path) -> None:
    vrt = tmp_path / "scene.tif"
    vrt.write_text('<VRTDataset rasterXSize="1" rasterYSize="1"/>')
    with pytest.raises(ObjectCorrupt), open_raster(str(vrt)):
        pass


def test_sidecar_files_are_not_read(scene: tuple[Path, np.ndarray]) -> None:
    path, _ = scene
    path.with_name(path.name + ".aux.xml").write_text("<PAMDataset><SRS>EPSG:4326</SRS></PAMDataset>")
    with open_raster(str(path)) as dataset:
        assert dataset.crs.to_epsg() == 32631


def test_a_scene_without_a_place_on_the_ground_opens_quietly(tmp_path: Path) -> None:
    with create_tiled(
        tmp_path / "tiled.tif",
        height=8,
        width=8,
        count=1,
        dtype="uint8",
        crs=None,
        transform=Affine.identity(),
        nodata=255,
        descriptions=["label"],
    ) as dataset:
        dataset.write(np.ones((1, 8, 8), np.uint8))
    write_cog(tmp_path / "label.tif", tmp_path / "tiled.tif", resampling="mode", tags={})
    with open_raster(str(tmp_path / "label.tif")) as dataset:
        assert dataset.crs is None
        assert read_label(dataset, Window(0, 0, 4, 4), 2).all()


def test_blocks_are_decoded_once(tmp_path: Path) -> None:
    """They stay in GDAL's cache, whose size rasterio takes in bytes where GDAL takes megabytes."""
    pixels = np.random.default_rng(0).integers(1, 12_000, (3, 600, 1100), dtype=np.uint16)
    path = _write(tmp_path / "scene.tif", pixels, ("red", "green", "blue"), 0)
    with open_raster(str(path)) as dataset:
        first = dataset.read(1)
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
        np.testing.assert_array_equal(dataset.read(1), first)
