"""The picture of what a label changes, and its counts."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cloudseg.grid import Window
from cloudseg.raster.label_diff import SIDE, draw_label_diff
from cloudseg.raster.thumbnail import OUTLINE
from cloudseg.records import GdalPath
from tests.ingest.tiles import random_dn, write

CAPTIONS = ("a scene with a name that is much too long for the panel of its picture, really", "before", "after")


def classes(folder: Path, name: str, pixels: np.ndarray) -> GdalPath:
    return GdalPath(str(write(folder / name, pixels[np.newaxis], names=["label"], nodata=255)))


@pytest.fixture
def scene(tmp_path: Path) -> GdalPath:
    return GdalPath(str(write(tmp_path / "scene.tif", random_dn(size=1200))))


def test_counts_are_exact_and_the_window_is_where_the_change_is(tmp_path: Path, scene: GdalPath) -> None:
    old = np.zeros((1200, 1200), np.uint8)
    old[:, :600] = 1
    new = np.full((1200, 1200), 255, np.uint8)
    new[505:525, 590:610] = 0  # across a border of strips: 20 x 10 were cloud
    new[530, 700] = 1
    new[531, 701] = 1
    old[532:534, 702] = 255
    new[532, 702], new[533, 702] = 0, 1
    before, after = classes(tmp_path, "old.tif", old), classes(tmp_path, "new.tif", new)
    found = draw_label_diff(scene, [before], [before, after], CAPTIONS)
    assert found.changed == {"cloud to clear": 200, "clear to cloud": 2, "none to clear": 1, "none to cloud": 1}
    box = (505, 590, 533, 702)  # first row and column, last row and column of what changed
    assert found.window.row_off < box[0]
    assert found.window.col_off < box[1]
    assert found.window.row_off + found.window.height > box[2]
    assert found.window.col_off + found.window.width > box[3]
    assert found.window.width < 200, "enlarged"
    picture = Image.open(io.BytesIO(found.png))
    assert picture.width > 3 * SIDE
    assert OUTLINE in {color for _, color in picture.getcolors(1 << 24) or []}


def test_without_a_label_before_everything_is_new(tmp_path: Path, scene: GdalPath) -> None:
    new = np.full((1200, 1200), 255, np.uint8)
    new[:3], new[3] = 1, 0
    found = draw_label_diff(scene, [], [classes(tmp_path, "new.tif", new)], CAPTIONS)
    assert found.changed == {"none to cloud": 3600, "none to clear": 1200}


def test_without_a_change_the_whole_scene_is_drawn(tmp_path: Path, scene: GdalPath) -> None:
    label = classes(tmp_path, "label.tif", np.zeros((1200, 1200), np.uint8))
    found = draw_label_diff(scene, [label], [label], CAPTIONS)
    assert (found.changed, found.window) == ({}, Window(0, 0, 1200, 1200))
    assert OUTLINE not in {
        color for _, color in Image.open(io.BytesIO(found.png)).crop((0, 0, 9999, SIDE)).getcolors(1 << 24) or []
    }


def test_single_pixels_stay_visible_in_a_large_window(tmp_path: Path, scene: GdalPath) -> None:
    old, new = np.zeros((1200, 1200), np.uint8), np.full((1200, 1200), 255, np.uint8)
    new[1, 1] = new[1198, 1197] = 1  # neither row nor column is a multiple of the step
    before, after = classes(tmp_path, "old.tif", old), classes(tmp_path, "new.tif", new)
    found = draw_label_diff(scene, [before], [before, after], CAPTIONS)
    assert found.changed == {"clear to cloud": 2}
    panel = np.asarray(Image.open(io.BytesIO(found.png)))
    outlined = np.argwhere((panel == OUTLINE).all(axis=2))
    rows = sorted({int(row) for row, _ in outlined if row < SIDE + 30})
    assert rows[0] < 60
    assert rows[-1] > SIDE - 30


def test_a_narrow_scene_is_drawn(tmp_path: Path) -> None:
    pixels = random_dn(bands=1, size=600)[:, :5]
    scene = GdalPath(str(write(tmp_path / "narrow.tif", pixels, names=("nir",))))
    new = np.full((5, 600), 255, np.uint8)
    new[2, 300] = 1
    found = draw_label_diff(scene, [], [classes(tmp_path, "new.tif", new)], CAPTIONS)
    assert found.window.height == 5
    assert Image.open(io.BytesIO(found.png)).height > 40
