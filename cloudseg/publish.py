"""Store objects first, and write the row that names them last: the only way in which the two are created.

A process killed between the two leaves an object that no row names, which maintenance deletes; never a row without its
objects. Maintenance may delete an object while it is being published a second time, so the transaction of the row
checks it once more. Every function may be called again with the same arguments: existing objects are compared and kept.
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
    """Content that is ready to be stored, with the key that follows from its checksum."""

    content: bytes | Path
    """The bytes, or a complete file that holds them."""
    stored: StoredObject
    """What the store must hold afterward."""


def stage_object(content: bytes | Path, key_of: Callable[[str], str]) -> StagedObject:
    """Return content together with its key, checksum and size. A file is read once, in chunks.

    Args:
        content: the bytes, or a complete file.
        key_of: turns the hex SHA-256 of the content into a key (`cloudseg.keys`).
    """
    if isinstance(content, bytes):
        sha256, size = sha256_of(content), len(content)
    else:
        sha256, size = file_sha256(content), content.stat().st_size
    return StagedObject(content, StoredObject(key=key_of(sha256), sha256=sha256, size=size))


def put_all(store: Store, objects: Mapping[str, StagedObject]) -> dict[str, StoredObject]:
    """Store every object in the order given and return what was stored, by name.

    Raises:
        ObjectExists: a key holds other bytes.
        ObjectCorrupt: a file changed after its checksum was computed.
        StoreUnreachable: the store does not answer.
    """
    return {name: _put(store, item) for name, item in objects.items()}


def publish(
    store: Store,
    catalog: Catalog,
    objects: Mapping[str, StagedObject],
    write_row: Callable[[Connection, dict[str, StoredObject]], R],
) -> R:
    """Store the objects, then call `write_row` in one transaction and return its result.

    Args:
        store: destination of the objects.
        catalog: destination of the row.
        objects: what to store, by name.
        write_row: called with the connection and the stored objects by name. It must accept an existing row
            (`catalog.session.insert` does): another process may have published the same thing a moment ago.

    Raises:
        ObjectExists: a key holds other bytes.
        ObjectCorrupt: a file changed after its checksum was computed.
        StoreUnreachable: the store does not answer.
        CatalogUnreachable: the catalog does not answer.
    """
    stored = put_all(store, objects)
    with catalog.begin() as db:
        lock_for_publish(db)
        put_all(store, {name: item for name, item in objects.items() if not store.exists(item.stored.key)})
        return write_row(db, stored)


def _put(store: Store, item: StagedObject) -> StoredObject:
    """Store one object and compare what the store holds with what was staged."""
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
