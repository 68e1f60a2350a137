"""Synthetic scenes: the same bytes for the same seed, called synthetic, hard enough that brightness is not cloud."""

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform, transform_bounds

from cloudseg.bands import BAND_NAMES
from cloudseg.grid import mgrs_place
from cloudseg.raster.landscape import Ground, Sky, cloud_level, reflectance
from cloudseg.raster.noise import fractal, hashed, smoothstep, uniform
from cloudseg.raster.synthetic import make_large_scene, make_tiles


def digest(paths: list[Path]) -> str:
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in paths)).hexdigest()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def pixels(paths: list[Path]) -> np.ndarray:
    return np.stack([rasterio.open(path).read() for path in paths])


def places(paths: list[Path]) -> list[str]:
    found = []
    for path in paths:
        with rasterio.open(path) as dataset:
            (lon,), (lat,) = transform(
                dataset.crs, "EPSG:4326", *[[at] for at in dataset.xy(dataset.height // 2, dataset.width // 2)]
            )
        found.append(mgrs_place(lon, lat))
    return found


def split_of(place: str) -> str:
    """The rule of cloudseg.dataset.split, written out: the sites were chosen by it."""
    share = int.from_bytes(hashlib.sha256(f"cloudseg-split-v1:{place}".encode()).digest()[:8], "big") / 2**64
    return "held_out" if share < 0.20 else "validation" if share < 0.35 else "train"


@pytest.fixture(scope="module")
def images(synthetic_folder: Path) -> list[Path]:
    return sorted((synthetic_folder / "images").iterdir())


@pytest.fixture(scope="module")
def labels(synthetic_folder: Path) -> list[Path]:
    return sorted((synthetic_folder / "labels").iterdir())


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path):
    for name in ("one", "two"):
        make_tiles(tmp_path / name, count=3, size=64, unlabeled=1)
    assert digest(files(tmp_path / "one")) == digest(files(tmp_path / "two"))
    make_tiles(tmp_path / "other", count=3, size=64, unlabeled=1, seed=1)
    assert digest(files(tmp_path / "other")) != digest(files(tmp_path / "one"))


def test_the_pixels_are_those_of_every_machine(tmp_path: Path):
    """Pixels, not files.

    Another GDAL compresses otherwise, but arithmetic that IEEE 754 fixes gives the same numbers.
    """
    paths = make_tiles(tmp_path, count=12, size=48, unlabeled=0)
    assert hashlib.sha256(pixels(paths).tobytes()).hexdigest()[:16] == "22148942df0f2867"
    assert hashlib.sha256(pixels(files(tmp_path / "labels")).tobytes()).hexdigest()[:16] == "266f3d412c027d78"


def test_images_and_labels_are_pairs_by_name(tmp_path: Path):
    paths = make_tiles(tmp_path, count=3, size=32, unlabeled=2)
    assert [path.parent.name for path in paths] == ["images"] * 5
    assert all(path.name.startswith("synthetic_") for path in paths)
    assert {path.name for path in files(tmp_path / "labels")} == {path.name for path in paths[:3]}


def test_every_file_says_that_it_is_synthetic(images: list[Path], labels: list[Path]):
    for path in images + labels:
        with rasterio.open(path) as dataset:
            assert dataset.tags()["SYNTHETIC"] == "YES"
    with rasterio.open(labels[0]) as dataset:
        assert dataset.tags()["LABEL_SOURCE"] == "synthetic"


def test_images_describe_themselves(images: list[Path]):
    for path in images:
        with rasterio.open(path) as dataset:
            assert dataset.descriptions == ("red", "green", "blue", "nir")
            assert set(dataset.descriptions) <= set(BAND_NAMES)
            assert dataset.dtypes == ("uint16",) * 4
            assert dataset.nodata == 0
            assert dataset.scales == (1e-4,) * 4
            assert dataset.transform.is_rectilinear
            assert dataset.crs.is_projected


def test_labels_lie_on_the_grid_of_their_image(images: list[Path], labels: list[Path]):
    for label in labels:
        with rasterio.open(label) as below, rasterio.open(images[0].parent / label.name) as above:
            assert (below.crs, below.transform, below.shape) == (above.crs, above.transform, above.shape)
            assert set(np.unique(below.read())) <= {0, 1, 255}
            assert ((below.read(1) == 255) == (above.read(1) == 0)).all()


def test_every_split_has_two_places_and_both_classes(images: list[Path], labels: list[Path]):
    labeled = [path for path in images if "unlabelled" not in path.name]
    by_split: dict[str, list[int]] = {"train": [], "validation": [], "held_out": []}
    found = places(labeled)
    assert len(set(found)) == 12
    for number, place in enumerate(found):
        by_split[split_of(place)].append(number)
    for numbers in by_split.values():
        assert len(numbers) >= 2
        values = np.concatenate([rasterio.open(labels[number]).read().ravel() for number in numbers])
        assert 0.1 < (values == 1).mean() < 0.9


def test_a_place_stays_a_place_on_later_visits(tmp_path: Path):
    paths = make_tiles(tmp_path, count=60, size=16, unlabeled=0)
    found = places(paths)
    for site in range(12):
        assert len(set(found[site::12])) == 1
    times = [rasterio.open(path).tags()["TIFFTAG_DATETIME"] for path in paths]
    assert len(set(times)) == 60


def test_the_edges_of_the_world_are_there(images: list[Path]):
    bounds, codes, gaps = {}, set(), []
    for path in images:
        with rasterio.open(path) as dataset:
            bounds[path.name] = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
            codes.add(dataset.crs.to_epsg() // 100)
            if (dataset.read(1) == 0).any():
                gaps.append(path.name)
    assert codes == {326, 327}
    assert [name for name, (west, _, east, _) in bounds.items() if west > east] == ["synthetic_atoll_003.tif"]
    assert gaps == ["synthetic_marsh_007.tif"]


def test_brightness_alone_does_not_find_the_clouds(images: list[Path], labels: list[Path]):
    """The best single threshold over all scenes must leave something to learn."""
    red = np.concatenate([rasterio.open(images[0].parent / path.name).read(1).ravel() for path in labels])
    truth = np.concatenate([rasterio.open(path).read(1).ravel() for path in labels])
    red, truth = red[truth != 255], truth[truth != 255] == 1
    best = max(((red > level) & truth).sum() / ((red > level) | truth).sum() for level in range(500, 8000, 250))
    assert best < 0.85


def test_size_and_counts_are_checked(tmp_path: Path):
    for wrong in ({"count": -1}, {"count": 1, "size": 8}, {"count": 1, "unlabeled": -1}):
        with pytest.raises(ValueError, match="make no tiles"):
            make_tiles(tmp_path, **wrong)


def test_a_large_scene_has_no_seams_and_its_bands(tmp_path: Path):
    path = make_large_scene(tmp_path / "large.tif", size=1300, bands=3)
    with rasterio.open(path) as dataset:
        assert (dataset.height, dataset.width, dataset.count) == (1300, 1300, 3)
        assert dataset.descriptions == ("red", "green", "blue")
        data = dataset.read(1).astype(int)
    part = -(-1300 // 6)
    assert (data[:, part] == data[:, part - 1]).all(), "mirrored at the edge of the square"
    assert data.min() >= 1
    with pytest.raises(ValueError, match="5 bands"):
        make_large_scene(tmp_path / "x.tif", size=100, bands=5)


# --- the ground and the noise under it --------------------------------------------------------------------------------


def test_a_window_of_the_plane_is_the_plane_there():
    rows, cols = np.arange(-40, 60, dtype=np.int64), np.arange(30, 110, dtype=np.int64)
    ground, sky = Ground(5, snow=0.5, city=0.0), Sky(seed=3, thick=0.2, cirrus=0.5, shadow=(-11, -16))
    whole, cloud = reflectance(ground, sky, rows, cols)
    part, part_cloud = reflectance(ground, sky, rows[13:77], cols[5:41])
    assert (part == whole[:, 13:77, 5:41]).all()
    assert (part_cloud == cloud[13:77, 5:41]).all()


def test_shadows_are_dark_and_clear():
    rows = cols = np.arange(200, dtype=np.int64)
    ground, clear = Ground(5, city=9, water=-9), Sky(seed=3, thick=9.0, cirrus=9.0, shadow=(-11, -16))
    cloudy = Sky(seed=3, thick=cloud_level(3, rows, cols, 0.4), cirrus=9.0, shadow=(-19, -27))
    bare, _ = reflectance(ground, clear, rows, cols)
    seen, cloud = reflectance(ground, cloudy, rows, cols)
    shadow = ~cloud & (seen[3] < 0.7 * bare[3])
    assert shadow.mean() > 0.02
    assert 0.3 < cloud.mean() < 0.5


def test_noise_is_standard_smooth_and_continuous_over_windows():
    at = np.arange(1024, dtype=np.float32)
    noise = fractal(11, at, at, period=16, octaves=3)
    assert noise.dtype == np.float32
    assert abs(float(noise.mean())) < 0.1
    assert 0.8 < float(noise.std()) < 1.2
    coarse = fractal(11, at, at, period=64, octaves=1)
    assert max(float(np.abs(two - one).max()) for one, two in pairwise(coarse)) < 0.3
    assert (fractal(11, at[100:200], at[7:9], period=16, octaves=3) == noise[100:200, 7:9]).all()


def test_hashes_are_uniform_and_differ_by_seed():
    at = np.arange(300, dtype=np.int64)
    bits = hashed(1, at[:, None], at[None, :])
    assert len(np.unique(bits)) == bits.size
    for part in range(4):
        numbers = uniform(bits, part)
        assert numbers.min() >= 0
        assert numbers.max() < 1
        assert abs(float(numbers.mean()) - 0.5) < 0.01
    assert (hashed(2, at[:, None], at[None, :]) != bits).all()
    assert int(hashed(0, np.zeros(1, np.int64), np.zeros(1, np.int64))[0]) == int(
        hashed(2**64, np.zeros(1, np.int64), np.zeros(1, np.int64))[0]
    )


def test_smoothstep_is_clamped():
    values = smoothstep(np.array([-1, 0, 0.5, 1, 2], np.float32))
    assert values.tolist() == [0, 0, 0.5, 1, 1]
