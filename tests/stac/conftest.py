"""A store with real rasters: scenes of three months, masks of two models, a snapshot."""

import itertools
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import pytest

from cloudseg.catalog import Catalog, model_rows, scene_rows, stac_rows, training_rows
from cloudseg.catalog.stac_rows import COLLECTIONS
from cloudseg.predict import predict_scene
from cloudseg.records import Mask, Scene, Snapshot, Weights
from cloudseg.stac.links import Site
from cloudseg.stac.static import publish
from cloudseg.storage import LocalStore, Store
from tests.predict.conftest import World, make_loaded, make_numbers

MAY, JUNE = datetime(2024, 5, 1, 10, 30, tzinfo=UTC), datetime(2024, 6, 30, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True)
class Published:
    """What the settings say, as the settings themselves do."""

    public_url: str | None = None
    stac_license: str = "CC-BY-4.0"
    stac_provider: str = "Test Office https://office.example"


@dataclass
class StacWorld:
    """A filled store and catalog, and where its static catalog is.

    Every scene has been masked by both models, which takes long, but of some masks only the files are there: `mask`
    adds the row.
    """

    world: World
    site: Site
    scenes: list[Scene]
    weights: list[Weights]
    masks: list[Mask]

    @property
    def store(self) -> Store:
        return self.site.store

    @property
    def catalog(self) -> Catalog:
        return self.world.catalog

    @property
    def root(self) -> Path:
        """The folder of the static catalog."""
        return self.world.store.root / "stac"

    def mask(self, scene: Scene, model: int) -> Mask:
        """Add the row of a mask whose files are there; publish nothing."""
        wanted = (scene.scene_id, self.weights[model].weights_id)
        mask = next(mask for mask in self.masks if (mask.scene_id, mask.weights_id) == wanted)
        with self.catalog.begin() as db:
            scene_rows.add_scene(db, scene)
            model_rows.add_mask(db, mask)
        return mask

    def publish(self, site: Site | None = None) -> int:
        """Bring every month up to date."""
        return publish(site or self.site, self.catalog, self.months())

    def months(self) -> dict[stac_rows.Collection, list[str]]:
        with self.catalog.read() as db:
            return {name: list(stac_rows.overview(db, name).months) for name in COLLECTIONS}

    def on(self, store: Store) -> Site:
        """Return the same site on another store object."""
        return replace(self.site, store=store)

    def contents(self) -> dict[str, bytes]:
        """Return every document by key."""
        return contents(self.store)

    def items(self, collection: str) -> list[pystac.Item]:
        """Return the items that one finds by following links from the root."""
        root = pystac.Catalog.from_file(self.site.root())
        child = next(child for child in root.get_children() if child.id == collection)
        return sorted(child.get_items(recursive=True), key=lambda item: item.id)


def contents(store: Store) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list_keys("stac/")}


def fill(world: World) -> StacWorld:
    """Make scenes, models and masks; leave the rows of three masks by the first model and of one by the second."""
    scenes = [
        world.add_scene(
            make_numbers(60, 70, seed=1),
            name="S2A_MSIL1C_one",
            acquired_at=MAY,
            sensor="sentinel-2-l1c",
            tags={"source": "cite me"},
        ),
        world.add_scene(make_numbers(60, 70, seed=2), name="two", acquired_at=JUNE, sensor="landsat-8-l1"),
        world.add_scene(make_numbers(60, 70, seed=3), name="three", acquired_at=None),
        world.add_scene(make_numbers(60, 70, seed=9), name="late", acquired_at=MAY.replace(month=8)),
        world.add_scene(make_numbers(60, 70, seed=4), name="no place", crs=None),
    ]
    pairs = [world.add_weights(make_loaded((4, 6), seed=seed)) for seed in (0, 1)]
    masks = [
        predict_scene(
            world.store,
            world.catalog,
            scene_id=scene.scene_id,
            weights_id=weights.weights_id,
            predictor=predictor,
        )
        for scene in scenes[:4]
        for weights, predictor in pairs
    ]
    snapshot = Snapshot(
        snapshot_id="sn-0123456789",
        manifest_key="snapshots/sn-0123456789/manifest.json",
        manifest_sha256="0" * 64,
        chip_size=64,
        bands=["red", "green", "blue"],
        working_resolution_m=None,
        counts={"chips": 3},
        created_at=MAY,
    )
    with world.catalog.begin() as db:
        training_rows.add_snapshot(db, snapshot, {})
        db.exec_driver_sql("DELETE FROM mask")
        db.exec_driver_sql("DELETE FROM scene WHERE name = 'late'")
    site = Site(world.store, Published())
    found = StacWorld(world, site, scenes, [pair[0] for pair in pairs], masks)
    for scene in scenes[:3]:
        found.mask(scene, 0)
    found.mask(scenes[0], 1)
    return found


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> StacWorld:
    """A filled world that every test copies."""
    folder = tmp_path_factory.mktemp("stac")
    shutil.copy(migrated_file, folder / "catalog.db")
    catalog = Catalog(f"sqlite:///{folder / 'catalog.db'}")
    found = fill(World(LocalStore(folder / "store"), catalog, folder))
    catalog.engine.dispose()  # closing the last connection merges the write-ahead log into the file
    return found


@pytest.fixture
def stac(template: StacWorld, tmp_path: Path) -> StacWorld:
    """A filled world, of which nothing is published as STAC yet."""
    shutil.copytree(template.world.folder, tmp_path, dirs_exist_ok=True)
    store, catalog = LocalStore(tmp_path / "store"), Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    return replace(template, world=World(store, catalog, tmp_path), site=Site(store, Published()))


@pytest.fixture
def published(stac: StacWorld) -> StacWorld:
    """The same, published."""
    stac.publish()
    return stac


class Killed(BaseException):
    """As if the process had ended here."""


class WatchedStore(LocalStore):
    """Calls `before` with the number of each write under `stac/`."""

    def __init__(self, root: Path, before: Any) -> None:
        super().__init__(root)
        self.numbers = itertools.count(1)
        self.before = before

    def put(self, key: str, data: bytes) -> Any:
        return self._watch(key, lambda: super(WatchedStore, self).put(key, data))

    def replace(self, key: str, data: bytes, expected: bytes | None = None) -> Any:
        return self._watch(key, lambda: super(WatchedStore, self).replace(key, data, expected))

    def delete(self, key: str) -> None:
        self._watch(key, lambda: super(WatchedStore, self).delete(key))

    def _watch(self, key: str, write: Any) -> Any:
        if not key.startswith("stac/"):
            return write()
        self.before(next(self.numbers))
        return write()
