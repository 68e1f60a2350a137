"""A second opinion on labels: what it is fed, and which windows it puts on the list."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from cloudseg.errors import SettingsError
from cloudseg.raster.synthetic import make_tiles
from cloudseg.teacher import Teacher, open_teacher
from cloudseg.worklist import Worklist, build_worklist
from tests.bright_model import BRIGHT, Bright
from tests.worklist.conftest import SIZE, World, part, sure


@dataclass
class Raster:
    """A canonical scene in memory."""

    pixels: np.ndarray
    bands: tuple[str, ...] = ("red", "green", "blue")

    def mask(self, resolution_m: float | None = 30.0) -> np.ndarray:
        Bright.seen.clear()
        count, height, width = self.pixels.shape
        grid = {"crs": "EPSG:32631", "transform": from_origin(4e5, 5e6, 30, 30)}
        with rasterio.MemoryFile() as memory:
            with memory.open(
                driver="GTiff", dtype="uint16", count=count, height=height, width=width, nodata=0, **grid
            ) as out:
                out.write(self.pixels.astype(np.uint16))
                out.descriptions = self.bands
            with memory.open() as dataset:
                return BRIGHT.mask(dataset, list(self.bands), resolution_m)


def build(world: World, teacher: Teacher | None) -> Worklist:
    return build_worklist(
        world.store, world.catalog, weights_id=world.champion, count=20, megapixels=100, teacher=teacher
    )


def labeled_scene(world: World) -> str:
    """Add a scene labeled clear, with cloud in the mask in two quarters, of which one is bright."""
    pixels = np.full((3, SIZE, SIZE), 1500, np.uint16)
    pixels[:, :256, :256] = 8000
    scene_id = world.scene("block:a", pixels=pixels)
    world.mask(scene_id, sure(part(slice(0, 256), slice(0, SIZE))))
    world.label(scene_id, np.zeros((SIZE, SIZE)))
    return scene_id


def test_a_label_that_both_models_contradict_comes_first(world: World):
    scene_id = labeled_scene(world)
    made = build(world, BRIGHT)
    (item,) = made.items
    assert (item.scene_id, item.reason, item.score) == (scene_id, "label_audit", 1.0)
    assert [(window.row_off, window.col_off) for window in item.windows] == [(0, 0)]
    assert item.words == (
        "the mask and bright 1.0 agree, and contradict the label (newest version 1, test) in 100% of the labeled "
        "pixels: 65536 labeled clear, 0 labeled cloud"
    )
    # Of the two quarters that the mask calls cloud the second model calls one cloud; the label has none.
    expected = {"model": "bright 1.0", "scenes": 1, "iou_with_masks": 0.5, "iou_with_labels": 0.0}
    assert made.second_opinion == expected


def test_without_it_the_list_is_as_before(world: World):
    labeled_scene(world)
    made = build(world, None)
    assert [item.reason for item in made.items] == ["label_error"]
    assert made.second_opinion is None


def test_scenes_without_a_label_are_not_shown_to_it(world: World):
    Bright.seen.clear()
    world.mask(world.scene("block:a"), sure(part(slice(0, 256), slice(0, 256))))
    made = build(world, BRIGHT)
    assert Bright.seen == []
    assert made.second_opinion == {"model": "bright 1.0", "scenes": 0, "iou_with_masks": 1.0, "iou_with_labels": 1.0}


def test_it_gets_reflectance_of_four_bands_and_red_for_a_missing_nir():
    pixels = np.stack([np.full((300, 260), value) for value in (1000, 2000, 3000, 4000)])
    Raster(pixels, ("red", "green", "blue", "nir")).mask()
    (call,) = Bright.seen
    assert call.bands == ["blue", "green", "red", "nir"]
    assert call.image[0, 0].tolist() == pytest.approx([0.3, 0.2, 0.1, 0.4])
    assert call.options == {"product_level": "l1c", "nodata_value": 0, "intra_op_num_threads": 1}
    Raster(pixels[:3]).mask()
    assert Bright.seen[0].image[0, 0].tolist() == pytest.approx([0.3, 0.2, 0.1, 0.1])


def test_finer_scenes_are_averaged_and_shadow_and_no_data_are_no_cloud():
    pixels = np.full((3, 30, 31), 9000)
    pixels[:, :6, :6] = 50  # what it calls shadow
    pixels[:, 6, 6:9] = 1  # three of the nine pixels of a working pixel: its mean stays bright
    pixels[:, 29] = 0
    found = Raster(pixels).mask(resolution_m=10.0)
    expected = np.ones((30, 31), np.uint8)
    expected[:6, :6] = 0
    expected[29] = 255
    assert np.array_equal(found, expected)
    assert Bright.seen[0].image.shape == (256, 256, 4)  # 10 x 11 working pixels, mirrored to its tile


def test_a_large_scene_is_masked_by_windows_without_a_gap():
    pixels = np.full((3, 1100, 1100), 2000)
    pixels[:, ::2] = 9000
    assert np.array_equal(Raster(pixels).mask(None), np.arange(1100)[:, None] % 2 == np.zeros(1100))
    assert len(Bright.seen) == 4


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ukis_csmask.mask", None)
    with pytest.raises(SettingsError, match=r"pip install 'cloudseg\[teacher\]'"):
        open_teacher()


def test_nothing_imports_it_before_it_is_asked():
    code = "import sys, cloudseg.cli, cloudseg.stages, cloudseg.worklist, cloudseg.teacher; "
    code += "print('ukis_csmask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_real_model_finds_the_clouds_of_a_synthetic_scene(tmp_path: Path):
    pytest.importorskip("ukis_csmask", reason="the extra teacher is not installed (158 MB): pip install '.[teacher]'")
    (image,) = make_tiles(tmp_path, count=1, size=256, unlabeled=0)
    with rasterio.open(tmp_path / "labels" / image.name) as dataset:
        cloud = dataset.read(1) == 1
    teacher = open_teacher(threads=1)
    with rasterio.open(image) as dataset:
        found = teacher.mask(dataset, ["red", "green", "blue", "nir"], 30.0)
    assert teacher.name.startswith("ukis-csmask 1.")
    assert set(np.unique(found)) == {0, 1}
    assert np.sum((found == 1) & cloud) / np.sum((found == 1) | cloud) > 0.7  # 0.83 with version 1.0.0
