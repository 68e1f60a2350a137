"""A store, a catalog and published weights to measure with, made once for all sides."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import torch

from benchmarks.folder import open_world
from cloudseg.bands import MASK_NO_DATA
from cloudseg.catalog import Catalog, model_rows, scene_rows
from cloudseg.ingest import DecodeLimits
from cloudseg.ingest.pipeline import ingest_source
from cloudseg.model.device import Device, choose_device
from cloudseg.model.golden import REFERENCE_DEVICE
from cloudseg.model.int8 import measure_agreement, quantize
from cloudseg.model.int8_net import INT8_ASSET, INT8_FILE
from cloudseg.model.meta import WeightsMeta
from cloudseg.model.nets import build_model
from cloudseg.model.normalize import normalize, to_reflectance
from cloudseg.model.pixels import Scaling, observed
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.unet import UNet, count_parameters
from cloudseg.model.weights import LoadedModel, load_weights, pack_weights
from cloudseg.raster.read import open_raster
from cloudseg.raster.synthetic import make_tiles
from cloudseg.recipe import Recipe, load_recipe
from cloudseg.records import Scene, Weights
from cloudseg.registry import register
from cloudseg.storage import LocalStore

TILES, TILE_SIZE = 6, 384
"""Synthetic tiles for prediction and training, of the size of the original project's images."""


def fill_world(folder: Path, data: Path | None) -> None:
    """Ingest real tiles (`data`) or synthetic ones, and publish the nets of the baseline and nightly recipes."""
    store, catalog = open_world(folder)
    if data is None:
        make_tiles(folder / "tiles", count=TILES, size=TILE_SIZE, unlabeled=0)
    ingest_source(store, catalog, str(data or folder / "tiles"), limits=DecodeLimits(), workers=usable_cpus())
    chips = [tile[:, :TILE_SIZE, :TILE_SIZE] for tile in read_tiles(store, catalog)]
    for name in ("baseline", "nightly"):
        _publish_net(store, catalog, load_recipe(name), chips)


def _publish_net(store: LocalStore, catalog: Catalog, recipe: Recipe, chips: list[npt.NDArray[np.uint16]]) -> None:
    """Publish a net with random parameters (speed does not depend on them) and its int8 file, as a training would."""
    net = _make_net(recipe, chips)
    meta = WeightsMeta(
        architecture=recipe.model.architecture,
        bands=recipe.model.bands,
        widths=recipe.model.widths,
        dropout=recipe.model.dropout,
        total_parameters=count_parameters(net),
        clip=recipe.input.clip,
        mean=recipe.input.mean,
        std=recipe.input.std,
        working_resolution_m=None,
        threshold=0.5,
        tta_flip=recipe.tta_flip,
        chip_size=TILE_SIZE,
        recipe_name=recipe.name,
    )
    packed = pack_weights(net, meta)
    loaded = load_weights(packed)
    int8 = quantize(loaded, chips)
    labels = [np.full(chip.shape[1:], MASK_NO_DATA, np.uint8) for chip in chips]
    reference = TorchPredictor(loaded, REFERENCE_DEVICE)
    agreed = measure_agreement(loaded, reference, int8, list(zip(chips, labels, strict=True)))
    print(f"{recipe.name}: random parameters; IoU of the int8 mask and the fp32 mask {agreed.mask_iou:.4f}")
    register(
        store,
        catalog,
        weights=packed,
        metadata=meta.model_dump(mode="json"),
        companions={INT8_ASSET: (INT8_FILE, int8)},
        run_id=None,
        snapshot_id=None,
        architecture=meta.architecture,
    )


def _make_net(recipe: Recipe, chips: list[npt.NDArray[np.uint16]]) -> UNet:
    """Return a net whose logits on the tiles are spread around 0, so that its mask has both classes."""
    torch.manual_seed(0)
    net = build_model(recipe.model).eval()
    with torch.no_grad():
        dn = np.stack(chips[:1])
        scaling = Scaling(recipe.input.clip, recipe.input.mean, recipe.input.std)
        logits = net(normalize(to_reflectance(dn), torch.from_numpy(observed(dn)), scaling))
        weight, bias = net.final.weight, net.final.get_parameter("bias")
        bias.copy_((bias - logits.mean()) / logits.std())
        weight.div_(logits.std())
    return net


def baseline_recipe() -> Recipe:
    """Return the recipe whose net all sides use: SimpleUNet 64-128-256."""
    return load_recipe("baseline")


def masked_scenes(catalog: Catalog, count: int = TILES) -> list[Scene]:
    """Return the scenes to measure with, by id, so that both sides see the same ones.

    Publishable ones; where a data set has none (no georeference), others, with which only nets can be compared.
    """
    with catalog.read() as db:
        every = scene_rows.list_scenes(db)
    found = [scene for scene in every if scene.publishable] or list(every)
    return sorted(found, key=lambda scene: scene.scene_id)[:count]


def read_tiles(store: LocalStore, catalog: Catalog) -> list[npt.NDArray[np.uint16]]:
    """Return the pixels to measure with, uint16 `(band, row, col)` of three bands."""
    tiles = []
    for scene in masked_scenes(catalog):
        with open_raster(store.gdal_path(scene.key)) as dataset:
            tiles.append(dataset.read([1, 2, 3]))
    return tiles


def published(store: LocalStore, catalog: Catalog, recipe_name: str = "baseline") -> tuple[Weights, LoadedModel]:
    """Return the published weights of a recipe and their net."""
    with catalog.read() as db:
        weights = next(found for found in model_rows.list_weights(db) if found.metadata["recipe_name"] == recipe_name)
    return weights, load_weights(store.get(weights.key, weights.sha256))


def cpu() -> Device:
    """Return the CPU as the service would choose it: bf16 or int8 if it has the instructions."""
    return choose_device("cpu", int8="auto")


def usable_cpus() -> int:
    """Count the CPUs of this process."""
    return len(psutil.Process().cpu_affinity())
