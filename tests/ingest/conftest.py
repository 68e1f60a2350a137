"""A store, a catalog and a short way to call ingest."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cloudseg.catalog import Catalog
from cloudseg.catalog.scene_rows import list_quarantined, list_scenes
from cloudseg.ingest import DecodeLimits, ingest_source
from cloudseg.records import IngestRecord, Label, Quarantined, Scene
from cloudseg.storage import LocalStore
from tests.catalog.rows import labels_of


class Service:
    """The embedded service of one test."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = LocalStore(home / "store")
        self.catalog = Catalog(f"sqlite:///{home / 'catalog.db'}")
        self.catalog.upgrade()
        self.limits = DecodeLimits(timeout_s=30, memory_mb=2048, max_pixels=4_000_000)

    def ingest(self, source: Path | str, **more: object) -> IngestRecord:
        return ingest_source(self.store, self.catalog, str(source), **({"limits": self.limits, "workers": 1} | more))  # type: ignore[arg-type]

    def scenes(self) -> dict[str, Scene]:
        with self.catalog.read() as db:
            return {scene.name: scene for scene in list_scenes(db)}

    def labels(self, scene: Scene) -> list[Label]:
        with self.catalog.read() as db:
            return labels_of(db, scene.scene_id)

    def quarantine(self) -> dict[str, Quarantined]:
        with self.catalog.read() as db:
            return {entry.name: entry for entry in list_quarantined(db)}


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path / "home")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def make_service(tmp_path: Path) -> Callable[[], Service]:
    return lambda: Service(tmp_path / "home")
