"""Fixtures of tests/tiny_world.py, and the chips of its snapshot."""

from collections.abc import Iterator

import pytest

from cloudseg.catalog import Catalog, training_rows
from cloudseg.dataset import ChipSet, open_chips
from cloudseg.storage import LocalStore
from tests.tiny_world import add_scene, snapshot_id

__all__ = ["add_scene", "chip_set", "snapshot_id"]


@pytest.fixture
def chip_set(store: LocalStore, catalog: Catalog, snapshot_id: str) -> Iterator[ChipSet]:
    with catalog.read() as db:
        snapshot = training_rows.get_snapshot(db, snapshot_id)
    with open_chips(store, snapshot) as chips:
        yield chips
