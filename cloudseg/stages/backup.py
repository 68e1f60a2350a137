"""Stages: back up the catalog and the store to a folder, and restore such a backup into an empty catalog.

A backup has the layout of an embedded home: `catalog.db` and `store/`. So it does not depend on the kind or version of
the servers, can be restored to other ones, and can be inspected: `CLOUDSEG_HOME=<folder> cloudseg masks`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Table, func, insert, select

from cloudseg.catalog import Catalog, tables
from cloudseg.errors import InputError, StateError
from cloudseg.keys import CHAMPION_POINTER, VERIFICATION
from cloudseg.records import Json
from cloudseg.runtime import open_runtime
from cloudseg.stages import log
from cloudseg.stages.references import iter_named
from cloudseg.storage import LocalStore, Store

_ROWS: Final = 1000
"""Rows that are held in memory at a time."""


def backup(folder: str) -> Json:
    """Copy the catalog and every object that its rows name into a folder.

    The catalog is copied first, in one transaction, then the objects: what is added meanwhile is not in the copy, and
    every row of the copy has its object. Every object is compared with the checksum of its row. Objects that the folder
    already holds are not copied again. Pause `cloudseg_maintain` meanwhile: it deletes checkpoints and old reports.

    Returns:
        The folder, rows by table, and how many objects were copied and how many already existed.

    Raises:
        InputError: the folder holds something else.
        ObjectMissing: the store lacks an object that a row names.
        ObjectCorrupt: an object does not match its checksum.
    """
    root = _folder(folder)
    root.mkdir(parents=True, exist_ok=True)
    if any(path.name != "store" and not path.name.startswith("catalog.") for path in root.iterdir()):
        raise InputError(
            "this folder holds something other than a backup", subject=str(root), next_step="Use an empty folder."
        )
    catalog, store = root / "catalog.db", LocalStore(root / "store")
    runtime = open_runtime()
    log.started("backup", catalog=runtime.catalog.uri, store=runtime.store.uri, folder=str(root))
    fresh = root / "catalog.new.db"
    fresh.unlink(missing_ok=True)
    copy = Catalog(f"sqlite:///{fresh}")
    rows = _copy_rows(runtime.catalog, copy)
    record = {"folder": str(root), "rows": rows, **_copy_objects(copy, runtime.store, store)}
    copy.engine.dispose()  # closing the last connection merges the write-ahead log into the file
    fresh.replace(catalog)  # a backup that was killed keeps the older catalog, whose objects are complete
    log.ended("backup", record)
    return record


def restore(folder: str) -> Json:
    """Restore a backup into the empty catalog and the store of the settings.

    Objects are copied first, then all rows in one transaction; until then the catalog stays empty. After a kill, call
    it again to resume.

    Returns:
        The folder, how many objects were copied and how many already existed, and rows by table.

    Raises:
        InputError: the folder holds no backup.
        StateError: the catalog already has rows.
        ObjectMissing: the backup lacks an object that a row names.
        ObjectCorrupt: an object does not match its checksum.
    """
    root = _folder(folder)
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


def _folder(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise InputError(
            "the home directory of this user is not known", subject=text, next_step="Write the whole path."
        ) from error


def _counts(db: Connection) -> dict[str, int]:
    return {
        table.name: db.execute(select(func.count()).select_from(table)).scalar_one()
        for table in tables.metadata.sorted_tables
    }


def _copy_rows(source: Catalog, target: Catalog) -> dict[str, int]:
    """Copy every row, referenced tables first, in one transaction on either side; return the counts by table."""
    if target.revision() != target.head_revision():
        target.upgrade()
    with source.read() as there, target.begin() as here:
        for table in tables.metadata.sorted_tables:
            for rows in _read(there, table):
                here.execute(insert(table), rows)
        return _counts(here)


def _read(db: Connection, table: Table) -> Iterator[list[dict[str, Any]]]:
    # Rows may refer to older rows of the same table.
    order = [table.c[name] for name in ("created_at", "generation") if name in table.c]
    result = db.execution_options(yield_per=_ROWS).execute(select(table).order_by(*order)).mappings()
    for part in result.partitions(_ROWS):
        yield [dict(row) for row in part]


def _copy_objects(catalog: Catalog, source: Store, target: Store) -> dict[str, int]:
    """Copy and verify the objects that rows name; return how many were copied and how many already existed."""
    total = sum(1 for _ in iter_named(catalog, source))
    report_progress, copied, there = log.progress("objects"), 0, 0
    for number, (key, sha256) in enumerate(iter_named(catalog, source), start=1):
        if key == CHAMPION_POINTER:
            if source.exists(key):
                target.replace(key, source.get(key))
        elif key == VERIFICATION:  # about the bytes of one store, which the other has not read
            continue
        elif target.exists(key):
            there += 1
        else:
            _copy(source, target, key, sha256)
            copied += 1
        report_progress(number, total, key)
    return {"objects_copied": copied, "objects_there": there}


def _copy(source: Store, target: Store, key: str, sha256: str | None) -> None:
    with source.local_file(key) as path:
        stored = target.put_file(key, path)
    if sha256 is not None and stored.sha256 != sha256:
        target.delete(key)
        source.get(key, sha256)  # raises ObjectCorrupt with details
