"""A store, a catalog and published weights to measure with, made once for all sides."""

from pathlib import Path

import psutil
import torch

from cloudseg.catalog import Catalog
from cloudseg.catalog import model as models
from cloudseg.catalog import scene as scenes
from cloudseg.ingest import DecodeLimits, ingest_source
from cloudseg.model.device import Device, choose_device
from cloudseg.model.unet import build_model, count_parameters
from cloudseg.model.weights import LoadedModel, WeightsMeta, load_weights, pack_weights
from cloudseg.raster.synthetic import make_tiles
from cloudseg.recipe import Recipe, load_recipe
from cloudseg.records import Scene, Weights
from cloudseg.registry import register
from cloudseg.storage import LocalStore

TILES, TILE_SIZE = 6, 384
"""Synthetic tiles for prediction and training: the size of the seed's images."""


def open_world(folder: Path) -> tuple[LocalStore, Catalog]:
    """Open the store and the catalog of a benchmark folder, made when absent."""
    catalog = Catalog(f"sqlite:///{folder / 'catalog.db'}")
    catalog.upgrade()
    return LocalStore(folder / "store"), catalog


def fill_world(folder: Path, data: Path | None) -> None:
    """Ingest real tiles (`data`) or synthetic ones, and publish a SimpleUNet with random parameters: speed does not depend on them."""
    store, catalog = open_world(folder)
    if data is None:
        make_tiles(folder / "tiles", count=TILES, size=TILE_SIZE, unlabelled=0)
    ingest_source(store, catalog, str(data or folder / "tiles"), limits=DecodeLimits(), workers=usable_cpus())
    recipe = seed_recipe()
    torch.manual_seed(0)
    net = build_model(recipe.model).eval()
    meta = WeightsMeta(
        architecture=recipe.model.architecture, bands=recipe.model.bands, widths=recipe.model.widths, dropout=recipe.model.dropout,
        total_parameters=count_parameters(net), clip=recipe.input.clip, mean=recipe.input.mean, std=recipe.input.std,
        working_resolution_m=None, threshold=0.5, flip_at_prediction=False, chip_size=TILE_SIZE,
    )  # fmt: skip
    packed, metadata = pack_weights(net, meta), meta.model_dump(mode="json")
    register(
        store, catalog, weights=packed, metadata=metadata, companions={}, run_id=None, snapshot_id=None, architecture=meta.architecture
    )  # fmt: skip


def seed_recipe() -> Recipe:
    """Give the recipe whose net both sides use: SimpleUNet 64-128-256."""
    return load_recipe("seed")


def masked_scenes(catalog: Catalog, count: int = TILES) -> list[Scene]:
    """Give the publishable scenes to measure with, by id, so that both sides see the same ones."""
    with catalog.read() as db:
        found = [scene for scene in scenes.list_scenes(db) if scene.publishable]
    return sorted(found, key=lambda scene: scene.scene_id)[:count]


def published(store: LocalStore, catalog: Catalog) -> tuple[Weights, LoadedModel]:
    """Give the published weights and their net."""
    with catalog.read() as db:
        weights = models.list_weights(db)[0]
    return weights, load_weights(store.get(weights.key, weights.sha256))


def cpu() -> Device:
    """Give the CPU as the service would choose it: bf16 where it has the instructions."""
    return choose_device("cpu")


def usable_cpus() -> int:
    """Count the CPUs of this process."""
    return len(psutil.Process().cpu_affinity())
