"""A store, a catalog and a short way to call ingest."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cloudseg.catalog import Catalog
from cloudseg.catalog.label_rows import add_event, list_events
from cloudseg.catalog.scene_rows import list_newest_labels, list_quarantined, list_scenes
from cloudseg.ingest import DecodeLimits
from cloudseg.ingest.pipeline import ingest_source
from cloudseg.records import IngestRecord, Label, LabelState, Quarantined, Scene
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

    def newest_accepted(self) -> list[str]:
        """Return the ids of the newest accepted labels of all scenes."""
        with self.catalog.read() as db:
            return [label.label_id for label in list_newest_labels(db)]

    def life(self, label: Label) -> list[tuple[str, str, str]]:
        """Return state, actor and reason of every event of a label."""
        with self.catalog.read() as db:
            return [(event.state, event.actor, event.reason) for event in list_events(db, label.label_id)]

    def decide(self, label: Label, state: LabelState, reason: str = "because") -> None:
        with self.catalog.begin() as db:
            add_event(db, label, state, actor="ada", reason=reason)

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
