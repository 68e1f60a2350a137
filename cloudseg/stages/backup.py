"""Stages: copy the whole service to a folder, and bring such a copy back into an empty place.

A backup has the shape of an embedded home: `catalog.db` and `store/`. So it does not depend on the kind or version of
the server that it came from, goes back into any other kind, and can be looked at: `CLOUDSEG_HOME=<folder> cloudseg
masks`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Table, func, insert, select

from cloudseg.catalog import Catalog, tables
from cloudseg.errors import InputError, StateError
from cloudseg.keys import CHAMPION_POINTER
from cloudseg.records import Json
from cloudseg.runtime import open_runtime
from cloudseg.stages import log
from cloudseg.stages.references import iter_named
from cloudseg.storage import LocalStore, Store

_ROWS: Final = 1000
"""Rows that are held in memory at a time."""


def backup(folder: str) -> Json:
    """Copy the catalog and every object that its rows name into a folder.

    Objects that are there already are left alone.

    The catalog first, in one moment of its own, then the objects: what comes in meanwhile is not in the copy, and no
    row of the copy lacks its object. Every object is compared with the checksum of its row. Called again, it copies
    what is new. Pause `cloudseg_maintain` meanwhile: it forgets checkpoints and old reports.

    Raises InputError for a folder that holds something else, ObjectMissing and ObjectCorrupt where the store lacks what
    a row names.
    """
    root = Path(folder).expanduser().absolute()
    root.mkdir(parents=True, exist_ok=True)
    if any(path.name != "store" and not path.name.startswith("catalog.") for path in root.iterdir()):
        raise InputError(
            "this folder holds something that is no backup", subject=str(root), next_step="Name an empty folder."
        )
    catalog, store = root / "catalog.db", LocalStore(root / "store")
    runtime = open_runtime()
    log.started("backup", catalog=runtime.catalog.uri, store=runtime.store.uri, folder=str(root))
    fresh = root / "catalog.new.db"
    fresh.unlink(missing_ok=True)
    copy = Catalog(f"sqlite:///{fresh}")
    rows = _copy_rows(runtime.catalog, copy)
    record = {"folder": str(root), "rows": rows, **_copy_objects(copy, runtime.store, store)}
    copy.engine.dispose()  # the last connection brings the write-ahead log into the file
    fresh.replace(catalog)  # a backup that was killed leaves the older catalog, whose objects are all there
    log.ended("backup", record)
    return record


def restore(folder: str) -> Json:
    """Bring a backup into the empty catalog and the store that the settings name.

    Called again after a kill, it resumes.

    Bytes first, rows last, all rows in one transaction: until then the place is as empty as before.
    Raises InputError where the folder is no backup, StateError where the catalog already has rows.
    """
    root = Path(folder).expanduser().absolute()
    if not (root / "catalog.db").is_file():
        raise InputError("this folder holds no backup", subject=str(root), expected="catalog.db and store/")
    runtime = open_runtime()
    copy, store = Catalog(f"sqlite:///{root / 'catalog.db'}"), LocalStore(root / "store")
    copy.check()
    with runtime.catalog.read() as db:
        if filled := {name: count for name, count in _counts(db).items() if count}:
            raise StateError(
                "the catalog is not empty",
                subject=runtime.catalog.uri,
                found=filled,
                next_step="Restore into a new catalog and, better, a new store.",
            )
    log.started("restore", folder=str(root), catalog=runtime.catalog.uri, store=runtime.store.uri)
    record = {
        "folder": str(root),
        **_copy_objects(copy, store, runtime.store),
        "rows": _copy_rows(copy, runtime.catalog),
    }
    copy.engine.dispose()
    log.ended("restore", record)
    return record


def _counts(db: Connection) -> dict[str, int]:
    return {
        table.name: db.execute(select(func.count()).select_from(table)).scalar_one()
        for table in tables.metadata.sorted_tables
    }


def _copy_rows(source: Catalog, target: Catalog) -> dict[str, int]:
    """Copy every row, those that others name first, in one transaction on either side; return the counts by table."""
    if target.revision() != target.head_revision():
        target.upgrade()
    with source.read() as there, target.begin() as here:
        for table in tables.metadata.sorted_tables:
            for rows in _read(there, table):
                here.execute(insert(table), rows)
        return _counts(here)


def _read(db: Connection, table: Table) -> Iterator[list[dict[str, Any]]]:
    # Rows of one table may name older ones of the same table.
    order = [table.c[name] for name in ("created_at", "generation") if name in table.c]
    result = db.execution_options(yield_per=_ROWS).execute(select(table).order_by(*order)).mappings()
    for part in result.partitions(_ROWS):
        yield [dict(row) for row in part]


def _copy_objects(catalog: Catalog, source: Store, target: Store) -> dict[str, int]:
    """Copy what the rows of a catalog name, each object verified.

    Return how many were copied and how many were there.
    """
    total = sum(1 for _ in iter_named(catalog, source))
    tell, copied, there = log.progress("objects"), 0, 0
    for number, (key, sha256) in enumerate(iter_named(catalog, source), start=1):
        if key == CHAMPION_POINTER:
            if source.exists(key):
                target.replace(key, source.get(key))
        elif target.exists(key):
            there += 1
        else:
            _copy(source, target, key, sha256)
            copied += 1
        tell(number, total, key)
    return {"objects_copied": copied, "objects_there": there}


def _copy(source: Store, target: Store, key: str, sha256: str | None) -> None:
    with source.local_file(key) as path:
        stored = target.put_file(key, path)
    if sha256 is not None and stored.sha256 != sha256:
        target.delete(key)
        source.get(key, sha256)  # raises ObjectCorrupt with what it found
