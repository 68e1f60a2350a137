"""Scenes and weights of a few pixels, published the real way."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rasterio.transform import Affine

from cloudseg import keys
from cloudseg.catalog import Catalog
from cloudseg.catalog.scene_rows import add_scene
from cloudseg.model.device import Device
from cloudseg.model.meta import WeightsMeta
from cloudseg.model.nets import build_model
from cloudseg.model.predictor import Predictor
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.weights import LoadedModel, load_weights, pack_weights
from cloudseg.raster.cog import create_tiled, write_cog
from cloudseg.raster.footprint import footprint_bounds, footprint_of
from cloudseg.records import Scene, Weights
from cloudseg.registry import register
from cloudseg.storage import LocalStore

BANDS = ("red", "green", "blue", "nir")
FP32 = Device(kind="cpu", precision="fp32", threads=1, reason="test")
UTM = Affine(10.0, 0, 500_000.0, 0, -10.0, 5_400_000.0)


@dataclass
class World:
    """One store and catalog with a way to fill them."""

    store: LocalStore
    catalog: Catalog
    folder: Path

    def add_scene(
        self,
        numbers: np.ndarray,
        *,
        name: str = "scene",
        crs: str | None = "EPSG:32631",
        transform: Affine = UTM,
        resolution_m: float = 10.0,
        bands: tuple[str, ...] = BANDS,
        **changes: Any,
    ) -> Scene:
        """Store uint16 `(band, row, col)` as a canonical scene with its row."""
        _, height, width = numbers.shape
        drawn, cog = self.folder / "drawn.tif", self.folder / "scene.tif"
        with create_tiled(
            drawn,
            height=height,
            width=width,
            count=len(numbers),
            dtype="uint16",
            crs=crs,
            transform=transform,
            nodata=0,
            descriptions=bands[: len(numbers)],
        ) as out:
            out.write(numbers)
        write_cog(cog, drawn, resampling="average", tags={})
        sha256 = keys.sha256_of(cog.read_bytes())
        stored = self.store.put_file(keys.scene(sha256), cog)
        valid = (numbers != 0).all(axis=0)
        place = footprint_of(valid, transform, crs) if crs and valid.any() else None
        bounds = footprint_bounds(place) if place is not None else (None, None, None, None)
        facts = {
            "scene_id": keys.id_from_hash("sc", sha256),
            "name": name,
            "layout": "test",
            "sensor": "synthetic",
            "radiometry": "test",
            "acquired_at": datetime(2024, 5, 1, 10, 30, tzinfo=UTC),
            "place": "block:test",
            "crs": crs,
            "transform": list(transform)[:6],
            "height": height,
            "width": width,
            "resolution_m": resolution_m,
            "bands": list(bands[: len(numbers)]),
            "footprint_wkb": place.wkb if place is not None else None,
            "min_lon": bounds[0],
            "min_lat": bounds[1],
            "max_lon": bounds[2],
            "max_lat": bounds[3],
            "valid_fraction": float(valid.mean()),
            "publishable": crs is not None,
            "source_uri": "file:///made",
            "source_sha256": sha256,
            **stored.model_dump(),
            "tags": {},
            "created_at": datetime(2024, 6, 1, tzinfo=UTC),
        }
        scene = Scene(**(facts | changes))
        with self.catalog.begin() as db:
            add_scene(db, scene)
        return scene

    def add_weights(self, loaded: LoadedModel) -> tuple[Weights, Predictor]:
        """Publish a net and return its row and a predictor that holds the published file."""
        data = pack_weights(loaded.net, loaded.meta)
        weights = register(
            self.store,
            self.catalog,
            weights=data,
            metadata=loaded.meta.model_dump(mode="json"),
            companions={},
            run_id=None,
            snapshot_id=None,
            architecture=loaded.meta.architecture,
        )
        return weights, TorchPredictor(load_weights(data), FP32)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    """Yield a migrated catalog on either database; a module whose `catalog` is this one runs its tests on both."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "catalog.db")
        yield Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
        return
    with request.getfixturevalue("postgresql").migrated() as url:
        catalog = Catalog(url)
        yield catalog
        catalog.engine.dispose()


@pytest.fixture
def world(store: LocalStore, catalog: Catalog, tmp_path: Path) -> World:
    return World(store, catalog, tmp_path)


@pytest.fixture
def served(world: World, runtime_env: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return the world as the one that stages find."""
    monkeypatch.setenv("CLOUDSEG_STORE_URL", str(world.store.root))
    monkeypatch.setenv("CLOUDSEG_CATALOG_URL", world.catalog.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("CLOUDSEG_THREADS", "1")
    monkeypatch.setenv("CLOUDSEG_DEVICE", "cpu")
    return world


def make_loaded(
    widths: tuple[int, ...] = (4, 6, 8), *, bands: tuple[str, ...] = BANDS[:3], seed: int = 0, **changes: Any
) -> LoadedModel:
    """A net with random parameters and BatchNorm statistics, so large that a wrong pixel changes the result."""
    meta = {
        "architecture": "SimpleUNet",
        "bands": bands,
        "widths": widths,
        "dropout": 0.0,
        "total_parameters": 1,
        "clip": 1.0,
        "mean": (0.3,),
        "std": (0.2,),
        "working_resolution_m": None,
        "threshold": 0.5,
        "tta_flip": False,
        "chip_size": 64,
        "recipe_hash": "ab" * 32,
        "recipe_name": "test",
    }
    loaded_meta = WeightsMeta(**(meta | changes))
    torch.manual_seed(seed)
    net = build_model(loaded_meta.model).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                torch.nn.init.kaiming_normal_(module.weight)
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        # Logits of spread 2 around 0: the probability uses its whole range.
        logits = net(torch.randn(2, len(bands), 64, 64))
        net.final.weight.mul_(2 / logits.std())
        net.final.bias.copy_((net.final.bias - logits.mean()) * 2 / logits.std())
    return LoadedModel(net, loaded_meta)


def make_numbers(height: int, width: int, *, count: int = 4, seed: int = 0) -> np.ndarray:
    """Smooth blobs and noise, reflectance × 10 000, nothing missing."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, height // 8 + 2, width // 8 + 2))
    blobs = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    return (500 + 6000 * blobs + rng.integers(0, 800, (count, height, width))).astype(np.uint16)


@pytest.fixture
def make_net() -> Callable[..., LoadedModel]:
    return make_loaded


@pytest.fixture
def make_pixels() -> Callable[..., np.ndarray]:
    return make_numbers
