"""A fixed net on a fixed scene gives the stored mask.

A second, plain numpy U-Net says that the stored mask is right.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cloudseg.model.device import Device
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.weights import LoadedModel
from cloudseg.predict.draw import draw_rasters, plan_scene
from cloudseg.raster.read import open_raster

SIZE = 20
FINAL_BIAS = 1.0
GOLDEN = """
#######.#.##########
##.###.#############
...######.#.#..#####
....###########..###
##..#.#.###....##.#.
#.#####.#..###.#.#.#
#.........#####.#.#.
.##....##.#.##..##..
#.######..#.#.##....
.###..##.##....#####
#..####.#....#.....#
.#####..###.#.###...
#.#######.###.....#.
.##.##....#.........
###.#.###.##....###.
      ...##.#...#...
      .####.####..#.
      #.##.##.#....#
      ..#########...
      ###.##.#....#.
"""
"""'#' cloud, '.' clear, ' ' no data. Made by `reference` below, not by the code under test."""


def scene_numbers() -> np.ndarray:
    row, col = np.mgrid[0:SIZE, 0:SIZE]
    bands = [3000 + 2500 * np.sin(row / 3 + band) * np.cos(col / (4 + band)) for band in range(3)]
    numbers = np.rint(bands).astype(np.uint16)
    numbers[:, 15:, :6] = 0
    return numbers


def parameters_of(net: torch.nn.Module) -> dict[str, np.ndarray]:
    """Numbers from a formula: independent of any random generator."""
    found = {}
    for index, (name, tensor) in enumerate(net.state_dict().items()):
        mixed = (np.arange(1, tensor.numel() + 1) * 7919 + index * 104729) * 2654435761 % 2**32
        wave = (mixed / 2**31 - 1).reshape(tuple(tensor.shape))  # in -1 .. 1
        if name.endswith("num_batches_tracked"):
            found[name] = np.zeros((), np.int64)
        elif name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
            found[name] = 1.0 + 0.5 * wave
        else:
            found[name] = wave * (0.9 if tensor.ndim == 4 else 0.3)
    found["final.weight"] *= 0.1
    found["final.bias"] = np.array([FINAL_BIAS])
    return found


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    pad = weight.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    out = np.zeros((weight.shape[0], *x.shape[1:])) + bias[:, None, None]
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            out += np.einsum("oc,chw->ohw", weight[:, :, i, j], padded[:, i : i + x.shape[1], j : j + x.shape[2]])
    return out


def double_conv(x: np.ndarray, p: dict[str, np.ndarray], name: str) -> np.ndarray:
    for layer in (0, 3):
        x = convolve(x, p[f"{name}.conv.{layer}.weight"], p[f"{name}.conv.{layer}.bias"])
        norm = f"{name}.conv.{layer + 1}"
        mean, var = p[f"{norm}.running_mean"][:, None, None], p[f"{norm}.running_var"][:, None, None]
        x = (x - mean) / np.sqrt(var + 1e-5) * p[f"{norm}.weight"][:, None, None] + p[f"{norm}.bias"][:, None, None]
        x = np.maximum(x, 0)
    return x


def reference(numbers: np.ndarray, p: dict[str, np.ndarray]) -> np.ndarray:
    """The probability of a two-level U-Net, in float64, written without torch."""
    valid = (numbers != 0).all(axis=0)
    x = np.where(valid, (np.minimum(numbers / 10_000, 0.5) - 0.3) / 0.2, 0.0)
    skip = double_conv(x, p, "enc1")
    pooled = skip.reshape(skip.shape[0], SIZE // 2, 2, SIZE // 2, 2).max(axis=(2, 4))
    deep = double_conv(pooled, p, "bottleneck")
    up = np.einsum("chw,coij->ohiwj", deep, p["up1.weight"]).reshape(-1, SIZE, SIZE) + p["up1.bias"][:, None, None]
    logits = convolve(double_conv(np.concatenate([up, skip]), p, "dec1"), p["final.weight"], p["final.bias"])[0]
    return 1 / (1 + np.exp(-logits))


def picture_of(mask: np.ndarray) -> str:
    letters = {0: ".", 1: "#", 255: " "}
    return "\n".join("".join(letters[value] for value in row) for row in mask.tolist())


def test_golden_mask(world: Any, make_net: Callable[..., LoadedModel]) -> None:
    numbers = scene_numbers()
    loaded = make_net((4, 6), clip=0.5)
    parameters = parameters_of(loaded.net)
    loaded.net.load_state_dict(
        {name: torch.tensor(value, dtype=loaded.net.state_dict()[name].dtype) for name, value in parameters.items()}
    )
    scene = world.add_scene(numbers)
    predictor = TorchPredictor(loaded, Device(kind="cpu", precision="fp32", threads=1, reason="test"))
    mask, probability = world.folder / "m.tif", world.folder / "p.tif"
    draw_rasters(
        world.store.gdal_path(scene.key),
        scene,
        predictor,
        plan_scene(scene, predictor),
        mask=mask,
        probability=probability,
    )
    with open_raster(str(mask)) as got_mask, open_raster(str(probability)) as got_probability:
        classes, steps = got_mask.read(1), got_probability.read(1)
    expected = reference(numbers, parameters)
    valid = classes != 255
    assert np.abs(steps[valid] / 250 - expected[valid]).max() <= 0.5 / 250 + 1e-4
    assert picture_of(np.where(valid, np.rint(expected * 250) >= 125, 255).astype(np.uint8)) == GOLDEN.strip("\n"), (
        "the stored mask is the reference's"
    )
    assert picture_of(classes) == GOLDEN.strip("\n")
