"""The protocol of 38-Cloud on a made scene whose figures are computed by hand."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning

from benchmarks import cloud38
from cloudseg.errors import InputError
from cloudseg.model.nets import build_model
from cloudseg.model.weights import pack_weights
from cloudseg.raster.read import open_raster
from cloudseg.recipe import load_recipe
from cloudseg.records import GdalPath
from cloudseg.train.trainer import describe_net

SCENE = "LC08_L1TP_002053_20160520_20170324_01_T1"
OTHER = "LC08_L1TP_032030_20160420_20170223_01_T1"
SIDE = 4


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "height": pixels.shape[0], "width": pixels.shape[1], "count": 1}
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path, "w", **profile, dtype=pixels.dtype) as out:
        out.write(pixels, 1)


def write_scene(folder: Path, scene: str, padded: np.ndarray, truth: np.ndarray) -> None:
    """Write patches of 4 x 4 pixels, numbered as published: row by row, from 1."""
    rows, cols = (length // SIDE for length in padded.shape)
    for row in range(rows):
        for col in range(cols):
            part = padded[row * SIDE : (row + 1) * SIDE, col * SIDE : (col + 1) * SIDE]
            name = f"patch_{row * cols + col + 1}_{row + 1}_by_{col + 1}_{scene}.TIF"
            for band in ("red", "green", "blue", "nir"):
                write(folder / f"test_{band}" / f"{band}_{name}", part.astype(np.uint16))
    write(folder / "Entire_scene_gts" / f"edited_corrected_gts_{scene}.TIF", truth.astype(np.uint8))


def read_255(patch: cloud38.Patch) -> np.ndarray:
    """Return the red band as a probability in 1/255; 0 is a black margin, where nothing is known."""
    with open_raster(GdalPath(str(patch.bands["red"]))) as dataset:
        red = dataset.read(1)
    return np.where(red == 0, np.float32(np.nan), red.astype(np.float32) / np.float32(255))


OFFICIAL = {"official": lambda probability: cloud38.above(probability, cloud38.OFFICIAL)}


def counts_of(folder: Path) -> dict[str, cloud38.Counts]:
    return {scene: found["official"] for scene, found in cloud38.evaluate(folder, read_255, OFFICIAL)}


def test_patches_go_to_their_row_and_column_and_the_padding_is_cut_off_at_both_sides(tmp_path: Path) -> None:
    # 44 columns in 12 patches of 4 are 48: 2 on each side. 5 rows in 2 patches are 8: 1 at the top, 2 at the bottom.
    # With 12 columns, `1_by_10` is before `1_by_2` in the order of names, and number 13 is the first of the second row.
    truth = np.zeros((5, 44), bool)
    truth[0, :10] = truth[4, 30:] = truth[2, 21] = True
    padded = np.full((8, 48), 255)  # cloud everywhere in the padding: nothing of it may be counted
    padded[1:6, 2:46] = np.where(truth, 200, 1)
    write_scene(tmp_path, SCENE, padded, truth * 255)
    assert counts_of(tmp_path) == {SCENE: cloud38.Counts(tp=10 + 14 + 1, fp=0, fn=0, tn=5 * 44 - 25)}


def test_cloud_is_above_12_of_255_and_black_margins_are_clear(tmp_path: Path) -> None:
    # By hand, one patch without padding:   12 is clear, 13 is cloud, 0 is a margin.
    padded = np.array([[13, 13, 12, 12], [13, 12, 12, 255], [0, 0, 0, 0], [0, 0, 0, 0]])
    truth = np.array([[1, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]])
    write_scene(tmp_path, SCENE, padded, truth)
    counts = counts_of(tmp_path)[SCENE]
    # tp: two 13 and the 255. fp: the 13 of the second row. fn: the first 12 and one margin. tn: 3 of 12, 7 of margin.
    assert counts == cloud38.Counts(tp=3, fp=1, fn=2, tn=10)
    expected = {"precision": 3 / 4, "recall": 3 / 5, "specificity": 10 / 11, "jaccard": 3 / 6, "accuracy": 13 / 16}
    assert cloud38.rates(counts) == pytest.approx(expected)


def test_the_weights_own_threshold_is_reached_not_exceeded() -> None:
    probability = np.array([[0.4, 0.396, np.nan]], np.float32)
    assert cloud38.reaches(probability, 0.4).tolist() == [[True, False, False]]
    assert cloud38.above(probability, 0.4).tolist() == [[False, False, False]]


def test_the_figure_is_the_mean_of_the_scenes_and_nothing_of_nothing_is_all(tmp_path: Path) -> None:
    half = np.zeros((4, 8), int)
    half[:, :4] = 1
    write_scene(tmp_path, SCENE, np.where(half, 255, 1), half)  # all right: every rate is 1
    write_scene(tmp_path, OTHER, np.array([[255] + [1] * 3] + [[1] * 4] * 3), np.zeros((4, 4)))  # one false pixel
    found = counts_of(tmp_path)
    assert cloud38.undefined(found[OTHER]) == ["recall"]  # 0 of 0 cloud pixels were found: counted as 1
    scenes = [found[SCENE], found[OTHER]]
    mean = {"precision": 0.5, "recall": 1.0, "specificity": (1 + 15 / 16) / 2, "jaccard": 0.5, "accuracy": 31 / 32}
    assert cloud38.scene_mean(scenes) == pytest.approx(mean)
    pooled = {"precision": 16 / 17, "recall": 1.0, "specificity": 31 / 32, "jaccard": 16 / 17, "accuracy": 47 / 48}
    assert cloud38.pooled(scenes) == pytest.approx(pooled)
    clear = cloud38.Counts(tp=0, fp=0, fn=0, tn=9)
    assert cloud38.undefined(clear) == ["precision", "recall", "jaccard"]
    assert set(cloud38.rates(clear).values()) == {1.0}


def test_a_missing_patch_and_a_missing_mask_are_named(tmp_path: Path) -> None:
    write_scene(tmp_path, SCENE, np.ones((8, 8)), np.zeros((8, 8)))
    for path in tmp_path.rglob("*_patch_3_2_by_1_*"):
        path.unlink()
    with pytest.raises(InputError, match="none at row 2, column 1"):
        cloud38.find_patches(tmp_path)
    next(tmp_path.rglob("edited_*")).unlink()
    with pytest.raises(InputError, match="not one mask of the whole scene"):
        cloud38.find_truth(tmp_path, SCENE)
    with pytest.raises(InputError, match="no patches"):
        cloud38.find_patches(tmp_path / "none")


def test_the_command_evaluates_a_weights_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(5)
    truth = np.zeros((24, 24), np.uint8)
    truth[:, 12:] = 255
    patches = np.where(truth, 30_000, 7_000) + rng.integers(0, 500, truth.shape)
    patches[:4] = 0  # the black margin, which is clear in mask and label
    truth[:4] = 0
    write_scene(tmp_path / "data", SCENE, patches, truth)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(tiny_weights())
    arguments = ["cloud38", str(tmp_path / "data"), "--weights", str(weights), "--json", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", arguments)
    assert cloud38.main() == 0
    printed = capsys.readouterr().out
    assert "1 of 20 scenes, 36 of 9201 patches" in printed
    assert "not the whole test part" in printed
    found = json.loads((tmp_path / "found.json").read_text())[SCENE]
    # 0.5 everywhere but in the margin: all cloud by the official threshold, all clear by its own of 0.6.
    assert found["official"] == {"tp": 20 * 12, "fp": 20 * 12, "fn": 0, "tn": 4 * 24}
    assert found["own"] == {"tp": 0, "fp": 0, "fn": 20 * 12, "tn": 20 * 12 + 4 * 24}


def tiny_weights() -> bytes:
    """Return the bytes of a net whose last layer is zero: the probability is 0.5 everywhere."""
    recipe = load_recipe("baseline")
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"widths": (4, 8)})})
    net = build_model(recipe.model)
    torch.nn.init.zeros_(net.final.weight)
    torch.nn.init.zeros_(net.final.bias)
    return pack_weights(net, describe_net(recipe, net).model_copy(update={"threshold": 0.6}))
