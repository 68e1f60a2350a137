"""A home with a champion and published masks, and its weights as a file."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloudseg import stages
from cloudseg.catalog import Catalog, model_rows
from cloudseg.catalog.session import now
from cloudseg.model.int8 import quantize
from cloudseg.model.int8_net import INT8_ASSET
from cloudseg.model.weights import pack_weights
from cloudseg.raster.synthetic import make_tiles
from cloudseg.records import Promotion, Weights
from cloudseg.registry import register
from cloudseg.runtime import open_runtime
from cloudseg.storage import LocalStore
from tests.predict.conftest import World, make_loaded, make_numbers


@dataclass
class Home:
    """A home with masks of every scene by the champion."""

    folder: Path
    tiles: Path
    weights: Weights
    weights_file: Path


def add_weights(*, seed: int = 0, with_int8: bool = True, **changes: Any) -> Weights:
    """Publish random weights in the home of the environment."""
    runtime = open_runtime()
    loaded = make_loaded((4, 6), seed=seed, **changes)
    numbers = [make_numbers(64, 64, count=len(loaded.meta.bands), seed=number) for number in range(2)]
    int8 = {INT8_ASSET: ("int8.onnx", quantize(loaded, numbers))} if with_int8 else {}
    return register(
        runtime.store,
        runtime.catalog,
        weights=pack_weights(loaded.net, loaded.meta),
        metadata=loaded.meta.model_dump(mode="json"),
        companions=int8,
        run_id=None,
        snapshot_id=None,
        architecture=loaded.meta.architecture,
    )


def make_champion(weights: Weights) -> None:
    """Promote weights in the home of the environment."""
    with open_runtime().catalog.begin() as db:
        champion = model_rows.find_champion(db)
        promotion = Promotion(
            generation=champion.generation + 1 if champion else 1,
            weights_id=weights.weights_id,
            previous_weights_id=champion.weights_id if champion else None,
            action="promote",
            verdict_id=None,
            actor="test",
            reason="test",
            created_at=now(),
        )
        model_rows.add_promotion(db, promotion)


@pytest.fixture(scope="session")
def built_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Return a home whose scenes are 30 m and whose champion works at 60 m. Tests do not change it."""
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("CLOUDSEG_")]:
            patch.delenv(name)
        patch.setenv("CLOUDSEG_HOME", str(folder / "home"))
        make_tiles(folder / "tiles", count=8, size=150, unlabeled=0)  # the eighth has the edge of a swath
        stages.ingest(str(folder / "tiles"))
        # Near infrared too: bands are chosen by name, not by position.
        weights = add_weights(bands=("nir", "red", "green"), working_resolution_m=60.0)
        make_champion(weights)
        record = stages.predict(new=True)
        assert record.created == 8, record
        weights_file = folder / "weights.safetensors"
        weights_file.write_bytes(open_runtime().store.get(weights.key))
    return Home(folder / "home", folder / "tiles", weights, weights_file)


@pytest.fixture
def home(built_home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Return that home as the one of the environment."""
    for name in [name for name in os.environ if name.startswith("CLOUDSEG_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDSEG_HOME", str(built_home.folder))
    return built_home


@pytest.fixture
def no_home(runtime_env: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working directory; there is no home."""
    monkeypatch.delenv("CLOUDSEG_HOME")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def world(store: LocalStore, catalog: Catalog, tmp_path: Path) -> World:
    """Return an empty store and catalog with a way to add scenes."""
    return World(store, catalog, tmp_path)
