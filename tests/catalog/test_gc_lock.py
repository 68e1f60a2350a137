"""Naming objects and collecting them keep each other waiting; those who only name do not."""

import threading

from cloudseg.catalog import Catalog
from cloudseg.catalog.gc_lock import lock_for_gc, lock_for_publish


def _collecting(catalog: Catalog, entered: threading.Event) -> threading.Thread:
    def collect() -> None:
        with catalog.begin() as db:
            lock_for_gc(db)
            entered.set()

    thread = threading.Thread(target=collect)
    thread.start()
    return thread


def test_nothing_is_collected_while_a_row_is_being_written(catalog: Catalog) -> None:
    entered = threading.Event()
    with catalog.begin() as db:
        lock_for_publish(db)
        thread = _collecting(catalog, entered)
        assert not entered.wait(0.5)
    thread.join(30)
    assert entered.is_set()


def test_two_writers_name_objects_at_the_same_time(catalog: Catalog) -> None:
    if catalog.engine.dialect.name == "sqlite":
        return  # one writer at a time, whatever it does
    with catalog.begin() as one, catalog.begin() as other:
        lock_for_publish(one)
        lock_for_publish(other)
