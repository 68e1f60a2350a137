"""Connected areas: the same whether drawn at once or in strips, and as large as their pixels."""

import itertools
from typing import Any

import numpy as np
import pytest
import shapely
from rasterio.features import shapes
from shapely.geometry import shape

from cloudseg.raster.components import Component, iter_components, paint, polygon_of
from cloudseg.raster.ground import Ground


def square(height: int, side: float = 10.0) -> Ground:
    return Ground(np.full(height, side), np.full(height, side))


def components(*arguments: Any, **how: Any) -> list[Component]:
    return list(itertools.chain.from_iterable(iter_components(*arguments, **how)))


def blobs(height: int, width: int, share: float, seed: int) -> np.ndarray:
    """Clouds of blocks and of single pixels, with holes, specks and corners that touch."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((height // 3 + 1, width // 3 + 1)).repeat(3, 0).repeat(3, 1)[:height, :width] < share
    classes = (coarse ^ (rng.random((height, width)) < 0.08)).astype(np.uint8)
    classes[rng.random((height, width)) < 0.03] = 255
    return classes


@pytest.mark.parametrize("strip", [1, 2, 7, 16, 50])
@pytest.mark.parametrize(("share", "seed"), [(0.3, 0), (0.5, 1), (0.6, 2), (0.9, 3)])
def test_strips_equal_the_whole(strip: int, share: float, seed: int) -> None:
    classes = blobs(50, 41, share, seed)
    whole = [shape(geometry) for geometry, _ in shapes(classes, mask=classes == 1, connectivity=4)]
    found = [polygon_of(component) for component in components(classes, 1, square(50), strip=strip)]
    assert len(found) == len(whole)
    assert {shapely.normalize(polygon).wkb for polygon in found} == {shapely.normalize(each).wkb for each in whole}
    assert all(polygon.is_valid for polygon in found)


@pytest.mark.parametrize("strip", [3, 100])
def test_areas_equal_the_pixels(strip: int) -> None:
    classes = blobs(60, 50, 0.5, 4)
    across = np.linspace(5, 12, 60)
    found = components(classes, 1, Ground(across, np.full(60, 20.0)), strip=strip)
    pixels = ((classes == 1) * (across * 20)[:, np.newaxis]).sum()
    assert sum(component.area_m2 for component in found) == pytest.approx(pixels, rel=1e-12)
    assert sum(polygon_of(component).area for component in found) == (classes == 1).sum()


def test_only_small_ones_are_kept_and_the_limit_itself_is_large() -> None:
    classes = np.zeros((40, 40), np.uint8)
    classes[:, 3] = 1  # 40 pixels through every strip
    classes[6:9, 10] = 1  # 3 pixels across a border of strips
    classes[20:22, 20:22] = 1  # 4 pixels
    found = components(classes, 1, square(40, 0.6), below_m2=4 * 0.36, strip=7)
    assert [polygon_of(component).bounds for component in found] == [(10, 6, 11, 9)]


def test_corners_do_not_connect() -> None:
    classes = np.eye(9, dtype=np.uint8)
    assert len(components(classes, 1, square(9), strip=4)) == 9


def test_rings_within_rings() -> None:
    rows, cols = np.indices((41, 41))
    classes = (np.maximum(abs(rows - 20), abs(cols - 20)) % 4 < 2).astype(np.uint8)
    found = [polygon_of(component) for component in components(classes, 1, square(41), strip=5)]
    assert sorted(len(polygon.interiors) for polygon in found) == [0, 1, 1, 1, 1, 1]
    assert sum(polygon.area for polygon in found) == classes.sum()


def test_painted_pixels_are_those_that_were_drawn() -> None:
    classes = blobs(40, 37, 0.5, 7)
    pieces = [polygon_of(component) for component in components(classes, 1, square(40))]
    again = np.zeros_like(classes)
    paint(again, pieces, 1)
    assert np.array_equal(again, classes == 1)
