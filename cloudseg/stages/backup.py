"""Stages: back up the catalog and the store to a folder, and restore such a backup into an empty catalog.

A backup has the layout of an embedded home: `catalog.db` and `store/`. So it does not depend on the kind or version of
the servers, can be restored to other ones, and can be inspected: `CLOUDSEG_HOME=<folder> cloudseg masks`.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Table, func, insert, select

from cloudseg.catalog import Catalog, tables
from cloudseg.errors import InputError, ObjectMissing, StateError
from cloudseg.keys import CHAMPION_POINTER, VERIFICATION
from cloudseg.records import Json
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import log
from cloudseg.stages.references import find_named, iter_named
from cloudseg.storage import LocalStore, Store

_log = logging.getLogger(__name__)
_ATTEMPTS: Final = 5
_ROWS: Final = 1000
"""Rows that are held in memory at a time."""


def backup(folder: str) -> Json:
    """Copy the catalog and every object that its rows name into a folder.

    The catalog is copied first, in one transaction, then the objects: what is added meanwhile is not in the copy, and
    every row of the copy has its object. Every object that is copied is compared with the checksum of its row. Objects
    that the folder already holds are neither copied nor read again.

    Returns:
        The folder, rows by table, and how many objects were copied and how many already existed.

    Raises:
        InputError: the folder holds something else, is the home itself, or cannot be made.
        ObjectMissing: the store lacks an object that a row names.
        ObjectCorrupt: an object does not match its checksum.
    """
    return back_up_to(_folder(folder))


def back_up_to(root: Path, *, earlier: Path | None = None) -> Json:
    """Back up as `backup` does; objects that an earlier backup on the same disk holds become hard links to its files.

    A training or maintenance may delete an object, and its row, between the copy of the catalog and that of the object;
    then the catalog is copied again.
    """
    make_folder(root)
    if any(path.name != "store" and not path.name.startswith("catalog.") for path in root.iterdir()):
        raise InputError(
            "this folder holds something other than a backup", subject=str(root), next_step="Use an empty folder."
        )
    catalog, store = root / "catalog.db", LocalStore(root / "store")
    runtime = open_runtime()
    _refuse_itself(runtime, root)
    log.started("backup", catalog=runtime.catalog.uri, store=runtime.store.uri, folder=str(root))
    for attempt in range(1, _ATTEMPTS + 1):
        fresh = root / "catalog.new.db"
        for name in (fresh.name, f"{fresh.name}-wal", f"{fresh.name}-shm"):
            (root / name).unlink(missing_ok=True)
        copy = Catalog(f"sqlite:///{fresh}")
        try:
            rows = _copy_rows(runtime.catalog, copy)
            record = {"folder": str(root), "rows": rows, **_copy_objects(copy, runtime.store, store, earlier=earlier)}
            break
        except ObjectMissing as error:
            if attempt == _ATTEMPTS or _is_named(runtime, str(error.subject)):
                raise
            _log.warning("%s and its row were deleted meanwhile: the catalog is copied again", error.subject)
        finally:
            copy.engine.dispose()  # closing the last connection merges the write-ahead log into the file
    fresh.replace(catalog)  # a backup that was killed keeps the older catalog, whose objects are complete
    log.ended("backup", record)
    return record


def make_folder(folder: Path) -> None:
    """Make a folder for backups if it is missing.

    Raises:
        InputError: it cannot be made, such as on a disk that is not mounted or is read-only.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            "this folder cannot be made",
            subject=str(folder),
            found=error.strerror or str(error),
            next_step="Name a folder on a disk that is mounted and can be written.",
        ) from error


def _refuse_itself(runtime: Runtime, root: Path) -> None:
    """Raise InputError for a backup of a home into that home, which would replace the catalog in use by a copy."""
    url = runtime.catalog.engine.url
    used = [Path(url.database)] if url.get_backend_name() == "sqlite" and url.database else []
    used += [runtime.store.root] if isinstance(runtime.store, LocalStore) else []
    if any(path.exists() and (root / path.name).exists() and path.samefile(root / path.name) for path in used):
        raise InputError(
            "this is the home itself, not a folder for its backup",
            subject=str(root),
            expected="a folder on another disk",
            next_step="Look at CLOUDSEG_HOME: it may still name a backup.",
        )


def _is_named(runtime: Runtime, key: str) -> bool:
    """Return whether a row still names a key."""
    with runtime.catalog.read() as db:
        return bool(find_named(db, runtime.store, [key]))


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
    return restore_into(open_runtime(), root)


def restore_into(runtime: Runtime, root: Path) -> Json:
    """Restore a backup as `restore` does, into an open catalog and store."""
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


def _copy_objects(catalog: Catalog, source: Store, target: Store, *, earlier: Path | None = None) -> dict[str, int]:
    """Copy and verify the objects that rows name; return how many were copied and how many already existed.

    Args:
        catalog: its rows name the objects.
        source: holds them.
        target: gets them.
        earlier: `store/` of an earlier backup: what it holds is linked into the target, a folder on the same disk.
    """
    folder = target.root if isinstance(target, LocalStore) else None
    total = sum(1 for _ in iter_named(catalog, source))
    report_progress, copied, there = log.progress("objects"), 0, 0
    for number, (key, sha256) in enumerate(iter_named(catalog, source), start=1):
        if key == CHAMPION_POINTER:
            if source.exists(key):
                target.replace(key, source.get(key))
        elif key == VERIFICATION:  # about the bytes of one store, which the other has not read
            continue
        elif target.exists(key) or (folder and earlier and _link(earlier / key, folder / key)):
            there += 1
        else:
            _copy(source, target, key, sha256)
            copied += 1
        report_progress(number, total, key)
    return {"objects_copied": copied, "objects_there": there}


def _link(old: Path, new: Path) -> bool:
    """Make a hard link to a file; return False if it is missing or the file system has no links."""
    try:
        new.parent.mkdir(parents=True, exist_ok=True)
        os.link(old, new)
    except FileExistsError:
        return True
    except OSError:
        return False
    return True


def _copy(source: Store, target: Store, key: str, sha256: str | None) -> None:
    with source.local_file(key) as path:
        stored = target.put_file(key, path)
    if sha256 is not None and stored.sha256 != sha256:
        target.delete(key)
        source.get(key, sha256)  # raises ObjectCorrupt with details
