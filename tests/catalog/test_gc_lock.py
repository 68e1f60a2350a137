"""Publishing and garbage collection exclude each other; publishers do not."""

from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import rows
from lock_waits import wait_until_sessions_wait
from sqlalchemy import Connection

from cloudseg.catalog import Catalog
from cloudseg.catalog.gc_lock import lock_for_gc, lock_for_publish
from cloudseg.catalog.scene_rows import add_quarantined, list_quarantined
from cloudseg.publish import publish, stage_object
from cloudseg.records import StoredObject
from cloudseg.storage import LocalStore


def collect(catalog: Catalog) -> list[str]:
    """Start a garbage collection and return the keys that rows reference at that time."""
    with catalog.begin() as db:
        lock_for_gc(db)
        return [entry.source_uri for entry in list_quarantined(db)]


def test_gc_waits_while_a_row_is_being_written(catalog: Catalog) -> None:
    with ThreadPoolExecutor(1) as pool:
        with catalog.begin() as db:
            lock_for_publish(db)
            collecting = pool.submit(collect, catalog)
            wait_until_sessions_wait(catalog, [collecting])
            assert not collecting.done()
        collecting.result(60)


def test_gc_waits_for_a_publication(catalog: Catalog, store: LocalStore) -> None:
    with ThreadPoolExecutor(1) as pool:

        def write_row(db: Connection, stored: dict[str, StoredObject]) -> Future[list[str]]:
            collecting = pool.submit(collect, catalog)
            wait_until_sessions_wait(catalog, [collecting])
            assert not collecting.done(), "a collection now would miss this row and delete the object"
            add_quarantined(db, rows.quarantined(1).model_copy(update={"source_uri": stored["it"].key}))
            return collecting

        collecting = publish(
            store, catalog, {"it": stage_object(b"bytes", lambda sha256: f"things/{sha256}")}, write_row
        )
        assert collecting.result(60) == list(store.list_keys("things/"))


def test_two_publishers_do_not_block_each_other(catalog: Catalog) -> None:
    if catalog.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    with catalog.begin() as one, catalog.begin() as other:
        lock_for_publish(one)
        lock_for_publish(other)
