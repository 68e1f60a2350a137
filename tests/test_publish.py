"""Publishing writes bytes before the row that references them."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from cloudseg.catalog import Catalog
from cloudseg.catalog.scene_rows import add_quarantined, list_quarantined
from cloudseg.catalog.session import now
from cloudseg.errors import ObjectCorrupt, ObjectExists
from cloudseg.keys import sha256_of
from cloudseg.publish import publish, put_all, stage_object
from cloudseg.records import Quarantined, StoredObject
from cloudseg.storage import LocalStore


def key_of(sha256: str) -> str:
    return f"things/{sha256}.bin"


def write_row(db: Connection, stored: dict[str, StoredObject]) -> list[str]:
    """Add a row per object; any table that stores keys would do."""
    for name, item in stored.items():
        row = Quarantined(
            quarantine_id=f"qu-{name}",
            name=name,
            source_uri=item.key,
            source_sha256=item.sha256,
            error="e",
            what="w",
            found=None,
            expected=None,
            next_step="n",
            created_at=now(),
        )
        add_quarantined(db, row)
    return sorted(stored)


def rows(catalog: Catalog) -> list[str]:
    with catalog.read() as db:
        return sorted(row.source_uri for row in list_quarantined(db))


def test_bytes_and_files_get_the_key_of_their_checksum(tmp_path: Path, store: LocalStore, catalog: Catalog) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"two")
    objects = {"a": stage_object(b"one", key_of), "b": stage_object(path, key_of)}
    assert publish(store, catalog, objects, write_row) == ["a", "b"]
    assert store.get(key_of(sha256_of(b"one"))) == b"one"
    assert store.get(key_of(sha256_of(b"two"))) == b"two"
    assert rows(catalog) == sorted(store.list_keys())


def test_publishing_again_changes_nothing(store: LocalStore, catalog: Catalog) -> None:
    objects = {"a": stage_object(b"one", key_of)}
    publish(store, catalog, objects, write_row)
    before = rows(catalog), list(store.list_keys())
    publish(store, catalog, objects, write_row)
    assert (rows(catalog), list(store.list_keys())) == before


def test_killed_before_the_row_leaves_an_orphan_and_never_a_row(store: LocalStore, catalog: Catalog) -> None:
    objects = {"a": stage_object(b"one", key_of), "b": stage_object(b"two", key_of)}

    def die(db: Connection, stored: dict[str, StoredObject]) -> Any:
        write_row(db, stored)
        raise KeyboardInterrupt  # inside the transaction, which is rolled back

    with pytest.raises(KeyboardInterrupt):
        publish(store, catalog, objects, die)
    assert rows(catalog) == []
    assert len(list(store.list_keys())) == 2
    publish(store, catalog, objects, write_row)
    assert rows(catalog) == sorted(store.list_keys())


def test_a_store_that_fails_writes_no_row(store: LocalStore, catalog: Catalog) -> None:
    key = key_of(sha256_of(b"two"))
    store.put(key, b"other bytes")
    with pytest.raises(ObjectExists):
        publish(store, catalog, {"a": stage_object(b"one", key_of), "b": stage_object(b"two", key_of)}, write_row)
    assert rows(catalog) == []


def test_a_file_that_changes_during_the_upload_is_detected(tmp_path: Path, store: LocalStore) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    item = stage_object(path, key_of)
    path.write_bytes(b"after!")
    with pytest.raises(ObjectCorrupt, match="changed while"):
        put_all(store, {"a": item})
