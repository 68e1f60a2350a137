"""Which objects the rows of the catalog name: what maintenance must keep, and what must be there."""

from collections.abc import Iterator

from sqlalchemy import Connection, Table, select

from cloudseg.catalog import tables as t
from cloudseg.dataset.manifest import Manifest
from cloudseg.errors import ObjectCorrupt, ObjectMissing
from cloudseg.keys import CHAMPION_POINTER, verdict
from cloudseg.storage import Store

# One object of its own a row, and a JSON column that maps names to further objects.
_OWN = (t.scene, t.label, t.checkpoint, t.weights, t.mask)
_MORE = ((t.weights, "companions"), (t.evaluation, "report"), (t.mask, "companions"))
Named = dict[str, str | None]
OURS = ("scenes/", "labels/", "snapshots/", "shards/", "runs/", "models/", "evaluations/", "verdicts/", "masks/", "doctor/")
"""Prefixes that only cloudseg writes (`cloudseg.keys`). What lies elsewhere, such as an inbox in the store, is a person's."""


def named_objects(db: Connection, store: Store) -> Named:
    """Give every key that a row names, with the SHA-256 that its bytes must have (None: no row knows it).

    Shards are named by the manifests of snapshots, so these are read too; a manifest that is missing or damaged
    names no shards, and shows up as missing itself.
    """
    named: Named = {CHAMPION_POINTER: None}
    for table in _OWN:
        named.update((row.key, row.sha256) for row in db.execute(select(table.c.key, table.c.sha256)))
    for table, column in _MORE:
        named.update(_companions(db, table, column))
    named.update((verdict(row.verdict_id), None) for row in db.execute(select(t.verdict.c.verdict_id)))
    for row in db.execute(select(t.snapshot.c.manifest_key, t.snapshot.c.manifest_sha256)):
        named[row.manifest_key] = row.manifest_sha256
        named.update(_shards(store, row.manifest_key, row.manifest_sha256))
    return named


def unreadable_manifests(db: Connection, store: Store) -> list[str]:
    """List the manifests that cannot be read: while there are any, nobody knows which shards are orphans."""
    rows = db.execute(select(t.snapshot.c.manifest_key, t.snapshot.c.manifest_sha256))
    return [row.manifest_key for row in rows if _read(store, row.manifest_key, row.manifest_sha256) is None]


def _companions(db: Connection, table: Table, column: str) -> Iterator[tuple[str, str | None]]:
    for (companions,) in db.execute(select(table.c[column])):
        yield from ((stored["key"], stored["sha256"]) for stored in companions.values())


def _shards(store: Store, key: str, sha256: str) -> Iterator[tuple[str, str | None]]:
    manifest = _read(store, key, sha256)
    yield from ((shard.object.key, shard.object.sha256) for shard in (manifest.shards if manifest else []))


def _read(store: Store, key: str, sha256: str) -> Manifest | None:
    try:
        return Manifest.model_validate_json(store.get(key, sha256))
    except (ObjectMissing, ObjectCorrupt):
        return None
