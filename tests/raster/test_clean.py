"""Widened clouds against a search over all pairs of pixels; small areas against a flood fill."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from cloudseg.errors import InputError
from cloudseg.raster.clean import cleaned_classes, widen
from cloudseg.raster.cleaning import Cleaning
from cloudseg.raster.ground import Ground, measure_ground

UTM = Affine(10.0, 0, 500_000.0, 0, -10.0, 5_400_000.0)


def clouds(height: int, width: int, seed: int = 0, share: float = 0.02) -> np.ndarray:
    rng = np.random.default_rng(seed)
    classes = (rng.random((height, width)) < share).astype(np.uint8)
    classes[: height // 6, : width // 4] = 255
    return classes


def by_pairs(classes: np.ndarray, across: float, down: float, meters: float) -> np.ndarray:
    """Compare every pixel with every cloud pixel."""
    rows, cols = np.indices(classes.shape)
    out = classes.copy()
    for row, col in np.argwhere(classes == 1):
        near = ((rows - row) * down) ** 2 + ((cols - col) * across) ** 2 <= meters**2 * (1 + 1e-12)
        out[near & (classes == 0)] = 1
    return out


@pytest.mark.parametrize("block", [16, 33, 1000])
@pytest.mark.parametrize(
    ("across", "down", "meters"),
    [(10, 10, 50), (10, 10, 49.9), (10, 30, 100), (30, 10, 7), (1.5, 0.5, 6), (10, 10, 900)],
)
def test_widened_clouds_equal_a_search_over_pairs(across: float, down: float, meters: float, block: int) -> None:
    classes = clouds(70, 61)
    out = np.empty_like(classes)
    widen(classes, Ground(np.full(70, float(across)), np.full(70, float(down))), meters, out, block=block)
    assert np.array_equal(out, by_pairs(classes, across, down, meters))


@pytest.mark.parametrize("lat", [0.0, 60.0, -75.0])
def test_in_degrees_a_buffer_is_as_wide_on_the_ground(lat: float) -> None:
    classes = np.zeros((81, 201), np.uint8)
    classes[40, 100] = 1
    step = 0.0005
    transform = Affine(step, 0, 20 - 100.5 * step, 0, -step, lat + 40.5 * step)
    out = np.empty_like(classes)
    widen(classes, measure_ground(transform, "EPSG:4326", 81, 201), 1000, out)
    rows, cols = np.nonzero(out == 1)
    half = (np.ptp(rows) / 2, np.ptp(cols) / 2)
    meters = 111_195 * step  # a degree of the mean sphere; the ellipsoid differs by up to 0.6 %
    assert half[0] == pytest.approx(1000 / meters, abs=1)
    assert half[1] == pytest.approx(1000 / (meters * np.cos(np.radians(lat))), abs=1.5)


def test_pixels_of_projections_that_stretch_are_measured_on_the_ground() -> None:
    """Web Mercator at 60 degrees is stretched twice; UTM keeps its own meters."""
    (x,), (y,) = transform_points("EPSG:4326", "EPSG:3857", [10.0], [60.0])
    ground = measure_ground(Affine(20, 0, x, 0, -20, y), "EPSG:3857", 50, 50)
    assert ground.across_m == pytest.approx(10.0, rel=0.01)
    assert ground.down_m == pytest.approx(10.0, rel=0.01)
    flat = measure_ground(UTM, "EPSG:32631", 5, 7)
    assert set(flat.across_m) == set(flat.down_m) == {10.0}
    feet = measure_ground(Affine(100, 0, 980_000, 0, -100, 200_000), "EPSG:2263", 5, 7)
    assert feet.across_m == pytest.approx(30.48006, rel=1e-6)


def sources(folder: Path, classes: np.ndarray, steps: np.ndarray) -> dict[str, Path]:
    for name, pixels in (("mask", classes), ("probability", steps)):
        with rasterio.open(
            folder / f"{name}.tif",
            "w",
            driver="GTiff",
            height=classes.shape[0],
            width=classes.shape[1],
            count=1,
            dtype="uint8",
            crs="EPSG:32631",
            transform=UTM,
            nodata=255,
        ) as out:
            out.write(pixels, 1)
    return {name: folder / f"{name}.tif" for name in ("mask", "probability")}


def clean(folder: Path, source: Path, cleaning: Cleaning) -> np.ndarray:
    with rasterio.open(source) as dataset:
        height, width = dataset.shape
    done: list[int] = []
    found = np.array(
        cleaned_classes(source, measure_ground(UTM, "EPSG:32631", height, width), cleaning, folder, done.append)
    )
    assert sum(done) == cleaning.passes * height
    return found


def by_flood(classes: np.ndarray, value: int, to: int, least: int) -> np.ndarray:
    """Flip the areas of fewer pixels, found by walking from pixel to pixel."""
    out, seen = classes.copy(), np.zeros(classes.shape, bool)
    for start in map(tuple, np.argwhere(classes == value)):
        if seen[start]:
            continue
        area, stack = [], [start]
        seen[start] = True
        while stack:
            row, col = stack.pop()
            area.append((row, col))
            for at in ((row + 1, col), (row - 1, col), (row, col + 1), (row, col - 1)):
                inside = 0 <= at[0] < classes.shape[0] and 0 <= at[1] < classes.shape[1]
                if inside and classes[at] == value and not seen[at]:
                    seen[at] = True
                    stack.append(at)
        if len(area) < least:
            out[tuple(np.transpose(area))] = to
    return out


def test_small_clouds_and_gaps_go_as_a_flood_fill_finds_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    classes = (rng.random((600, 80)) < 0.5).astype(np.uint8)  # more rows than a strip has
    classes[30:50, 20:60] = 1
    classes[33:36, 25:29] = 0
    classes[:, 70:73] = 255
    source = sources(tmp_path, classes, classes)["mask"]
    found = clean(tmp_path, source, Cleaning(min_area_m2=700, min_hole_m2=1300))
    expected = by_flood(by_flood(classes, 1, 0, 7), 0, 1, 13)
    assert np.array_equal(found, expected)
    assert (found[33:36, 25:29] == 1).all()
    assert (found[:, 70:73] == 255).all()


def test_a_clear_island_in_no_data_is_no_gap_in_a_cloud(tmp_path: Path) -> None:
    classes = np.full((1030, 30), 255, np.uint8)
    classes[510:514, 4:6] = 0  # across the border of two strips
    classes[0, :8] = 0  # in a corner of the raster
    classes[900:910, 10:20] = 1
    classes[900:903, 20] = 0  # beside a cloud, and otherwise no data
    found = clean(tmp_path, sources(tmp_path, classes, classes)["mask"], Cleaning(min_hole_m2=1e5))
    expected = classes.copy()
    expected[900:903, 20] = 1
    assert np.array_equal(found, expected)


def test_another_threshold_is_applied_to_the_probability(tmp_path: Path) -> None:
    steps = np.random.default_rng(6).integers(0, 251, (40, 30)).astype(np.uint8)
    steps[:, :4] = 255
    source = sources(tmp_path, steps, steps)["probability"]
    found = clean(tmp_path, source, Cleaning(threshold=0.7))
    assert np.array_equal(found, np.where(steps == 255, 255, steps / 250 >= 0.7))


def test_everything_together_is_done_in_order(tmp_path: Path) -> None:
    classes = np.zeros((40, 40), np.uint8)
    classes[5, 5] = 1  # goes, so it is not widened
    classes[20:26, 20:26] = 1
    classes[22, 22] = 0
    found = clean(tmp_path, sources(tmp_path, classes, classes)["mask"], Cleaning(None, 500, 200, 20))
    expected = np.zeros_like(classes)
    expected[20:26, 20:26] = 1
    assert np.array_equal(found, by_pairs(expected, 10, 10, 20))


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0.0},
        {"threshold": 1.01},
        {"threshold": float("nan")},
        {"min_area_m2": -1.0},
        {"min_hole_m2": float("inf")},
        {"buffer_m": 1e6},
        {"buffer_m": float("nan")},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Cleaning(**wrong).check()
