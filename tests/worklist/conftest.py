"""A world whose probabilities, labels and masks are drawn by hand, so that the right worklist is known."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from cloudseg import keys
from cloudseg.catalog import Catalog, model_rows, scene_rows
from cloudseg.predict import mask_id_of
from cloudseg.raster.probability import STEPS, classify
from cloudseg.records import Label, Mask, Promotion, Scene, Weights
from cloudseg.storage import LocalStore
from tests.tiny_world import DAY, tif_bytes

SIZE = 512
THRESHOLD = 0.4
CLEAR, CLOUD = 5, 245
"""Steps of a model that is sure."""


@dataclass
class World:
    """Adds rows with their objects; two weights exist, the champion and an older one."""

    store: LocalStore
    catalog: Catalog
    champion: str = "w-champion"
    other: str = "w-other"

    def scene(self, place: str, **facts: Any) -> str:
        """Add a scene of gray ground and return its id; `facts` replace columns."""
        size = facts.pop("size", SIZE)
        number = facts.pop("number", 0)
        pixels = facts.pop("pixels", None)
        if pixels is None:
            pixels = np.full((3, size, size), 1500, np.uint16)
            pixels[:, ::7, ::5] = 3000
        image = tif_bytes(pixels, ("red", "green", "blue"))
        source = keys.sha256_of(image + f"{place} {number} {facts}".encode())
        stored = self.store.put(keys.scene(keys.sha256_of(image)), image)
        values: dict[str, Any] = {
            "scene_id": keys.id_from_hash("sc", source),
            "name": f"synthetic_{place}_{number}",
            "layout": "pairs",
            "sensor": "unknown",
            "radiometry": "test",
            "acquired_at": DAY + timedelta(days=number),
            "place": place,
            "crs": "EPSG:32631",
            "transform": list(from_origin(4e5, 5e6, 30, 30))[:6],
            "height": size,
            "width": size,
            "resolution_m": 30.0,
            "bands": ["red", "green", "blue"],
            "footprint_wkb": None,
            "min_lon": None,
            "min_lat": None,
            "max_lon": None,
            "max_lat": None,
            "valid_fraction": 1.0,
            "publishable": True,
            "source_uri": "file:///x",
            "source_sha256": source,
            **stored.model_dump(),
            "tags": {"synthetic": "yes"},
            "created_at": DAY + timedelta(days=number),
        }
        scene = Scene.model_validate(values | facts)
        with self.catalog.begin() as db:
            scene_rows.add_scene(db, scene)
        return scene.scene_id

    def mask(self, scene_id: str, steps: np.ndarray, *, weights_id: str | None = None, threshold=THRESHOLD) -> Mask:
        """Publish a probability raster and the mask that follows from it."""
        weights_id = weights_id or self.champion
        classes = classify(steps, threshold)
        tags = {"CLOUDSEG_MASK_ID": mask_id_of(scene_id, weights_id), "CLOUDSEG_SCENE_ID": scene_id}
        stored = {}
        for name, array in (("mask", classes), ("probability", steps)):
            content = raster_bytes(array, tags, colormap=name == "mask")
            key = keys.mask(weights_id, scene_id, f"{name}.tif", keys.sha256_of(content))
            stored[name] = self.store.put(key, content)
        valid = classes != 255
        row = Mask(
            mask_id=tags["CLOUDSEG_MASK_ID"],
            scene_id=scene_id,
            weights_id=weights_id,
            threshold=threshold,
            cloud_fraction=float((classes == 1).sum() / max(1, valid.sum())),
            valid_fraction=float(valid.mean()),
            **stored["mask"].model_dump(),
            companions={"probability": stored["probability"].model_dump()},
            created_at=DAY,
        )
        with self.catalog.begin() as db:
            model_rows.add_mask(db, row)
        return row

    def label(self, scene_id: str, classes: np.ndarray, source: str = "test", state: Any = "accepted") -> Label:
        content = tif_bytes(classes[None].astype(np.uint8), ("cloud",))
        stored = self.store.put(keys.label(keys.sha256_of(content)), content)
        row = Label(
            label_id=keys.make_id("lb", scene_id, source, stored.sha256),
            scene_id=scene_id,
            version=0,
            source=source,
            class_mapping={},
            cloud_fraction=0.0,
            labelled_fraction=float((classes != 255).mean()),
            source_uri="file:///y",
            source_sha256=stored.sha256,
            **stored.model_dump(),
            created_at=DAY,
        )
        with self.catalog.begin() as db:
            scene_rows.add_label(db, row, state=state)
        return row


def raster_bytes(array: np.ndarray, tags: dict[str, str], *, colormap: bool) -> bytes:
    with rasterio.MemoryFile() as memory:
        grid = {"crs": "EPSG:32631", "transform": from_origin(4e5, 5e6, 30, 30)}
        height, width = array.shape
        with memory.open(driver="GTiff", dtype="uint8", count=1, height=height, width=width, nodata=255, **grid) as out:
            out.write(array.astype(np.uint8), 1)
            out.update_tags(**tags)
            if colormap:
                out.write_colormap(1, {0: (46, 92, 74, 255), 1: (245, 245, 245, 255), 255: (0, 0, 0, 0)})
        return bytes(memory.read())


def sure(cloud: np.ndarray | None = None, size: int = SIZE) -> np.ndarray:
    """Return the steps of a model that is sure everywhere; cloud where the argument is True."""
    steps = np.full((size, size), CLEAR, np.uint8)
    if cloud is not None:
        steps[cloud] = CLOUD
    return steps


def undecided(share: float, size: int = SIZE, window: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Return the steps of a model that is at the threshold in a share of the rows of one 256-pixel window."""
    steps = sure(size=size)
    row, col = window
    steps[row : row + round(256 * share), col : col + 256] = round(THRESHOLD * STEPS)
    return steps


def part(row: slice, col: slice, size: int = SIZE) -> np.ndarray:
    chosen = np.zeros((size, size), bool)
    chosen[row, col] = True
    return chosen


@pytest.fixture
def world(store: LocalStore, catalog: Catalog) -> World:
    return make_world(store, catalog)


def make_world(store: LocalStore, catalog: Catalog, when: datetime = DAY) -> World:
    """Return a world with the rows of both weights; the champion was promoted."""
    found = World(store, catalog)
    with catalog.begin() as db:
        for weights_id in (found.other, found.champion):
            stored = store.put(keys.weights(keys.sha256_of(weights_id.encode())), weights_id.encode())
            model_rows.add_weights(
                db,
                Weights(
                    weights_id=weights_id,
                    version=0,
                    run_id=None,
                    snapshot_id=None,
                    architecture="SimpleUNet",
                    **stored.model_dump(),
                    companions={},
                    metadata={"bands": ["red", "green", "blue"], "threshold": THRESHOLD},
                    created_at=when,
                ),
            )
        model_rows.add_promotion(
            db,
            Promotion(
                generation=1,
                weights_id=found.champion,
                previous_weights_id=None,
                action="promote",
                verdict_id=None,
                actor="test",
                reason="test",
                created_at=when,
            ),
        )
    return found
