"""Tiny labeled scenes in a real store and catalog: bright discs on dark ground, one scene per place."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from cloudseg import keys
from cloudseg.catalog import Catalog, scene_rows
from cloudseg.dataset import build_snapshot, split_of
from cloudseg.model.device import Device
from cloudseg.recipe import Recipe, recipe_from
from cloudseg.records import Label, Scene
from cloudseg.storage import LocalStore

DAY = datetime(2024, 5, 1, tzinfo=UTC)
CPU = Device(kind="cpu", precision="fp32", threads=1, reason="test")


def places(split: str, count: int) -> list[str]:
    """Return the first `count` places of a split."""
    return [f"block:{i}" for i in range(400) if split_of(f"block:{i}") == split][:count]


def tif_bytes(array: np.ndarray, descriptions: tuple[str, ...]) -> bytes:
    bands, height, width = array.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            dtype=array.dtype,
            count=bands,
            height=height,
            width=width,
            crs="EPSG:32631",
            transform=from_origin(4e5, 5e6, 30, 30),
        ) as out:
            out.write(array)
            out.descriptions = descriptions
        return bytes(memory.read())


def draw(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw two bright discs on dark ground; return reflectance x 10 000 `(3, row, col)` and label `(row, col)`."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[: size[0], : size[1]]
    label = np.zeros(size, np.uint8)
    for _ in range(2):
        row, col, radius = (
            rng.integers(0, size[0]),
            rng.integers(0, size[1]),
            rng.integers(min(size) // 6, min(size) // 3),
        )
        label[(rows - row) ** 2 + (cols - col) ** 2 < radius**2] = 1
    pixels = 900 + 5000 * label.astype(int) + rng.integers(0, 300, (3, *size))
    return pixels.astype(np.uint16), label


@pytest.fixture
def add_scene(store: LocalStore, catalog: Catalog) -> Callable[..., str]:
    """Return a function that adds a scene with a label at a place and returns the label id.

    Pixels and label are arguments, or drawn from the seed.
    """

    def add(
        place: str,
        *,
        seed: int = 0,
        size: tuple[int, int] = (64, 64),
        pixels: Any = None,
        label: Any = None,
        **facts: Any,
    ) -> str:
        drawn, truth = draw(seed, size)
        bands = facts.get("bands", ("red", "green", "blue"))
        image = tif_bytes(drawn if pixels is None else pixels, bands)
        mask = tif_bytes((truth if label is None else label)[None], ("cloud",))
        source = keys.sha256_of(image + place.encode())
        stored = store.put(keys.scene(keys.sha256_of(image)), image)
        height, width = size
        scene = Scene(
            scene_id=keys.id_from_hash("sc", source),
            name=f"synthetic {place} {seed}",
            layout="pairs",
            sensor=facts.get("sensor", "unknown"),
            radiometry="test",
            acquired_at=DAY,
            place=place,
            crs="EPSG:32631",
            transform=[30, 0, 4e5, 0, -30, 5e6],
            height=height,
            width=width,
            resolution_m=30.0,
            bands=list(bands),
            footprint_wkb=None,
            min_lon=None,
            min_lat=None,
            max_lon=None,
            max_lat=None,
            valid_fraction=1.0,
            publishable=True,
            source_uri="file:///x",
            source_sha256=source,
            **stored.model_dump(),
            tags={"synthetic": "yes"},
            created_at=DAY,
        )
        stored = store.put(keys.label(keys.sha256_of(mask)), mask)
        row = Label(
            label_id=keys.make_id("lb", scene.scene_id, "test", stored.sha256),
            scene_id=scene.scene_id,
            version=0,
            source=facts.get("source", "test"),
            class_mapping={},
            cloud_fraction=float((truth == 1).mean()),
            labelled_fraction=1.0,
            source_uri="file:///y",
            source_sha256=stored.sha256,
            **stored.model_dump(),
            created_at=DAY,
        )
        with catalog.begin() as db:
            scene_rows.add_scene(db, scene)
            scene_rows.add_label(db, row)
        return row.label_id

    return add


def recipe(**parts: Any) -> Recipe:
    """Return a tiny recipe; `parts` replace or extend its tables."""
    values: dict[str, Any] = {
        "name": "tiny",
        "description": "for tests",
        "model": {"widths": [4, 8]},
        "input": {"mean": [0.2], "std": [0.2]},
        "data": {"chip_size": 64, "crop_size": 32},
        "budget": {"batch_size": 2, "steps": 12, "epoch_steps": 4, "checkpoint_every_steps": 3},
    }
    for name, value in parts.items():
        values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
    return recipe_from(values)


@pytest.fixture
def snapshot_id(store: LocalStore, catalog: Catalog, add_scene: Callable[..., str]) -> str:
    """Return a snapshot of six training places, three validation places and two held out."""
    for split, count in (("train", 6), ("validation", 3), ("held_out", 2)):
        for number, place in enumerate(places(split, count)):
            add_scene(place, seed=100 * len(split) + number)
    return build_snapshot(store, catalog, recipe()).snapshot_id
