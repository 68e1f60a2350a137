"""Find the objects that rows of the catalog name: maintenance must keep them, and they must exist.

There may be millions of scenes, labels and masks: they are read in pages or looked up by key, never all at once.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, select

from cloudseg.catalog import Catalog
from cloudseg.catalog import tables as t
from cloudseg.catalog.removal_rows import is_whole
from cloudseg.dataset.manifest import Manifest
from cloudseg.errors import ObjectCorrupt, ObjectMissing
from cloudseg.keys import REPLACED, parts_of_mask, verdict
from cloudseg.records import Json
from cloudseg.storage import Store

_log = logging.getLogger(__name__)
PAGE: Final = 1000
"""Rows or keys that are held at a time, and bound to one statement; SQLite allows 32 766 (sqlite.org/limits.html)."""
Named = tuple[str, str | None]
"""A key and the SHA-256 of its object, None if no row holds it."""


def iter_named(catalog: Catalog, store: Store) -> Iterator[Named]:
    """Yield every key that a row names; a key that two rows name is yielded twice.

    Every page of rows is read in a separate transaction, and none is open while the caller reads the store. Shards
    are named by the manifests of snapshots, so these are read too; a missing or damaged manifest names no shards, and
    is itself reported as missing.
    """
    with catalog.read() as db:
        few, manifests = list(_few(db)), _manifests(db)
    yield from few
    for key, sha256 in manifests:
        manifest = _read(store, key, sha256)
        yield from _shards(manifest) if manifest else ()
    for table in (t.scene, t.label, t.mask):
        for page in _pages(catalog, table):
            for row in page:
                yield row.key, row.sha256
                yield from _stored(row.companions) if table is t.mask else ()


def find_named(db: Connection, store: Store, keys: Collection[str]) -> set[str]:
    """Return those of the keys that a row names.

    If a manifest cannot be read it is unknown which shards it names, so all shards count as named.

    Args:
        db: a transaction.
        store: holds the manifests.
        keys: at most PAGE.
    """
    by_kind: dict[str, list[str]] = {}
    for key in keys:
        by_kind.setdefault(key.partition("/")[0], []).append(key)
    found = _of_rows(db, t.scene, by_kind.pop("scenes", [])) | _of_rows(db, t.label, by_kind.pop("labels", []))
    found |= _of_masks(db, by_kind.pop("masks", [])) | _of_manifests(db, store, by_kind.pop("shards", []))
    if by_kind:  # the other kinds are few: a model has a dozen objects
        found.update(key for key, _ in _few(db))
    return found.intersection(keys)


def _few(db: Connection) -> Iterator[Named]:
    """Yield the keys of kinds that number in the hundreds.

    What may be replaced, checkpoints, weights, reports, verdicts and manifests.
    """
    yield from ((key, None) for key in REPLACED)
    for key, sha256 in db.execute(select(t.checkpoint.c.key, t.checkpoint.c.sha256)):
        yield key, sha256
    for key, sha256, companions in db.execute(select(t.weights.c.key, t.weights.c.sha256, t.weights.c.companions)):
        yield key, sha256
        yield from _stored(companions)
    for report in db.execute(select(t.evaluation.c.report)).scalars():
        yield from _stored(report)
    for verdict_id in db.execute(select(t.verdict.c.verdict_id)).scalars():
        yield verdict(verdict_id), None
    yield from _manifests(db)


def _pages(catalog: Catalog, table: Table) -> Iterator[Sequence[Row[Any]]]:
    """Yield pages of rows in the order of their id."""
    (by,) = table.primary_key.columns
    columns = [by, table.c.key, table.c.sha256, *([table.c.companions] if table is t.mask else [])]
    last = ""
    while True:
        with catalog.read() as db:
            page = db.execute(select(*columns).where(by > last).order_by(by).limit(PAGE)).all()
        if not page:
            return
        yield page
        last = page[-1][0]


def _of_rows(db: Connection, table: Table, keys: list[str]) -> set[str]:
    return set(db.execute(select(table.c.key).where(table.c.key.in_(keys))).scalars()) if keys else set()


def _of_masks(db: Connection, keys: list[str]) -> set[str]:
    """Find masks by weights and scene, which are part of their keys: the keys of their assets have no index."""
    asked: dict[str, set[str]] = {}
    for weights_id, scene_id in filter(None, map(parts_of_mask, keys)):
        asked.setdefault(weights_id, set()).add(scene_id)
    found, m = set[str](), t.mask.c
    for weights_id, scene_ids in asked.items():
        for row in db.execute(select(m.key, m.companions).where(m.weights_id == weights_id, m.scene_id.in_(scene_ids))):
            found.update((row.key, *(key for key, _ in _stored(row.companions))))
    return found


def _of_manifests(db: Connection, store: Store, keys: list[str]) -> set[str]:
    found = set[str]()
    for key, sha256 in _manifests(db) if keys else ():
        manifest = _read(store, key, sha256)
        if manifest is None:
            _log.warning("no shard is collected while this manifest cannot be read: %s", key)
            return set(keys)
        found.update(key for key, _ in _shards(manifest))
    return found


def _manifests(db: Connection) -> list[tuple[str, str]]:
    return [
        (row.manifest_key, row.manifest_sha256)
        for row in db.execute(select(t.snapshot.c.manifest_key, t.snapshot.c.manifest_sha256).where(is_whole()))
    ]


def _shards(manifest: Manifest) -> Iterator[Named]:
    yield from ((shard.object.key, shard.object.sha256) for shard in manifest.shards)


def _stored(companions: Json) -> Iterator[Named]:
    yield from ((stored["key"], stored["sha256"]) for stored in companions.values())


def _read(store: Store, key: str, sha256: str) -> Manifest | None:
    try:
        return Manifest.model_validate_json(store.get(key, sha256))
    except (ObjectMissing, ObjectCorrupt):
        return None
