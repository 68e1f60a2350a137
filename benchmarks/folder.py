"""A folder to measure in; imported without torch."""

from pathlib import Path

from cloudseg import keys
from cloudseg.catalog import Catalog
from cloudseg.storage import LocalStore


def open_world(folder: Path) -> tuple[LocalStore, Catalog]:
    """Open the store and the catalog of a benchmark folder; create them if absent."""
    catalog = Catalog(f"sqlite:///{folder / 'catalog.db'}")
    catalog.upgrade()
    return LocalStore(folder / "store"), catalog


def scene_id_of(size: int) -> str:
    """Return the id of the large scene with so many pixels per side (`benchmarks.large_scene`)."""
    return keys.make_id("sc", str(size))
