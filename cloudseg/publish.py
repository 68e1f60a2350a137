"""Bytes first, row last: the one way in which objects and the row that names them come into being.

Killed between the two there is an object that no row names, which maintenance collects; never a row without bytes.
Maintenance may even delete an object while it is being published a second time: it is looked for once more in the
transaction of the row. Everything here may be called again with the same arguments: objects that stand already are
compared and kept.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from cloudseg.catalog import Catalog
from cloudseg.catalog.gc_lock import lock_for_publish
from cloudseg.errors import ObjectCorrupt
from cloudseg.keys import sha256_of
from cloudseg.records import StoredObject
from cloudseg.storage import Store
from cloudseg.storage.local import file_sha256

R = TypeVar("R")


@dataclass(frozen=True)
class StagedObject:
    """Content that is about to be stored under a key that its checksum decides."""

    content: bytes | Path
    """The bytes, or a finished file that holds them."""
    stored: StoredObject
    """What the store must hold afterwards."""


def stage_object(content: bytes | Path, key_of: Callable[[str], str]) -> StagedObject:
    """Return content with its key; `key_of` turns the hex SHA-256 into a key (`cloudseg.keys`).

    A file is read once, in pieces.
    """
    if isinstance(content, bytes):
        sha256, size = sha256_of(content), len(content)
    else:
        sha256, size = file_sha256(content), content.stat().st_size
    return StagedObject(content, StoredObject(key=key_of(sha256), sha256=sha256, size=size))


def put_all(store: Store, objects: Mapping[str, StagedObject]) -> dict[str, StoredObject]:
    """Store every object in the order given and tell, by name, what was stored.

    Raises ObjectExists where other bytes stand under a key, ObjectCorrupt where a file changed since its checksum was
    taken, StoreUnreachable.
    """
    return {name: _put(store, item) for name, item in objects.items()}


def publish(
    store: Store,
    catalog: Catalog,
    objects: Mapping[str, StagedObject],
    write_row: Callable[[Connection, dict[str, StoredObject]], R],
) -> R:
    """Store the objects, then call `write_row` in one transaction and return what it gives.

    `write_row` gets the connection and the stored objects by name. It must be content with a row that is there already
    (`catalog.session.insert` is): another process may have published the same thing a moment ago.
    """
    stored = put_all(store, objects)
    with catalog.begin() as db:
        lock_for_publish(db)
        put_all(store, {name: item for name, item in objects.items() if not store.exists(item.stored.key)})
        return write_row(db, stored)


def _put(store: Store, item: StagedObject) -> StoredObject:
    key = item.stored.key
    found = store.put(key, item.content) if isinstance(item.content, bytes) else store.put_file(key, item.content)
    if found != item.stored:
        raise ObjectCorrupt(
            "the file changed while it was published",
            subject=key,
            found=found.sha256,
            expected=item.stored.sha256,
            next_step="Run the stage again.",
        )
    return found
