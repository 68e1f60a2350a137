"""The static catalog in the store: every document follows from the rows of the catalog and can be written anew.

Order: items first, then the GeoParquet file of their month, then the list of the month, the collection, the root; what
points to something is written after it, and removed before it. The list of a month says for each item what it was
written from (a hash of everything that decides its content), so one look at the list tells which items are to be
written, whoever was killed before.

Several processes may publish at once, on a file system as on S3: a document is read first, then made from the rows, and
written only if it is still what was read (compare and swap). A writer who loses reads and makes it again. So no
document can be replaced by one that was made from older rows.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

import pystac
from sqlalchemy import Connection

from cloudseg import __version__, keys
from cloudseg.backoff import pauses
from cloudseg.catalog import Catalog, stac_rows
from cloudseg.catalog.extent import training_extent
from cloudseg.catalog.mask_search import load_rows
from cloudseg.catalog.stac_rows import COLLECTIONS, PAGE, Family, Member
from cloudseg.errors import ObjectExists, ObjectMissing, StoreUnreachable
from cloudseg.keys import canonical_json, sha256_of
from cloudseg.records import Json
from cloudseg.stac import collections, items
from cloudseg.stac.index import INDEXED, can_index, holds, index_bytes
from cloudseg.stac.links import Site
from cloudseg.stac.scene_thumbnails import add_thumbnails

_log = logging.getLogger(__name__)
T = TypeVar("T")
_ATTEMPTS: Final = 20
_LONGEST_PAUSE_S: Final = 2.0
_AT_ONCE: Final = 8
"""Objects that are read or written at a time; a request to S3 takes about 10 ms."""
_MONTH: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])|undated", re.A)


def publish(
    site: Site, catalog: Catalog, months: Mapping[stac_rows.Collection, Collection[str]], *, verify: bool = False
) -> int:
    """Bring some months up to date with the rows, and what lists them; return how many documents changed.

    Args:
        site: where the catalog is.
        catalog: holds the rows.
        months: which ones to update, by collection.
        verify: read and compare every item of these months, although the list says that it is right.

    Raises:
        StoreUnreachable: the store does not answer, or others keep writing the same document.
    """
    with ThreadPoolExecutor(_AT_ONCE, "stac") as pool:
        writer = _Writer(site, catalog, pool)
        for collection, wanted in months.items():
            for month in sorted(wanted):
                writer.settle_month(collection, month, verify=verify)
            writer.settle_collection(collection)
        writer.settle_root()
    return writer.changes


def repair(site: Site, catalog: Catalog, *, dry_run: bool = False, verify: bool = False) -> int:
    """Bring the whole catalog up to date with the rows, remove what is not part of it, return how many changes.

    Items that are missing are found by listing the store; with `verify` each one is read and compared.

    Args:
        site: where the catalog is.
        catalog: holds the rows.
        dry_run: change nothing, only count.
        verify: read every document.

    Raises:
        StoreUnreachable: the store does not answer, or others keep writing the same document.
    """
    there, strays = _list_months(site)
    with ThreadPoolExecutor(_AT_ONCE, "stac") as pool:
        writer = _Writer(site, catalog, pool, dry_run=dry_run)
        for collection in COLLECTIONS:
            with catalog.read() as db:
                months = set(stac_rows.overview(db, collection).months)
            for month in sorted(months | there[collection]):
                prefix = keys.stac_month(collection, month).removesuffix("catalog.json")
                listed = {entry.key for entry in site.store.list_objects(prefix)}
                writer.settle_month(collection, month, listed=listed, verify=verify)
            writer.settle_collection(collection)
        writer.settle_root()
        for key in strays:
            writer.delete(key)
    return writer.changes


def _list_months(site: Site) -> tuple[dict[stac_rows.Collection, set[str]], list[str]]:
    """Return the months that have objects, by collection, and the keys that are no document of the catalog."""
    there: dict[stac_rows.Collection, set[str]] = {collection: set() for collection in COLLECTIONS}
    known = {keys.STAC_ROOT, *(keys.stac_collection(collection) for collection in COLLECTIONS)}
    strays = []
    for entry in site.store.list_objects(keys.STAC_PREFIX):
        parts = entry.key.split("/")
        if len(parts) == 4 and parts[1] in there and _MONTH.fullmatch(parts[2]):
            there[parts[1]].add(parts[2])
        elif entry.key not in known:
            strays.append(entry.key)
    return there, strays


@dataclass(frozen=True)
class _Listed:
    """What the list of a month says."""

    states: dict[str, str]
    indexed: bool


def _read_list(found: bytes | None) -> _Listed:
    """Return what a list says; a missing or damaged one says nothing, so everything is written again."""
    try:
        values = json.loads(found or b"{}")
        return _Listed(dict(values.get(collections.STATES, {})), bool(values.get(collections.INDEXED)))
    except (ValueError, TypeError, AttributeError):
        return _Listed({}, False)


@dataclass
class _Writer:
    """Writes documents and counts the changes."""

    site: Site
    catalog: Catalog
    pool: ThreadPoolExecutor
    dry_run: bool = False
    changes: int = 0

    def settle_month(
        self, collection: stac_rows.Collection, month: str, *, listed: set[str] | None = None, verify: bool = False
    ) -> None:
        """Bring the items of a month, their index and their list up to date, and remove what is no longer there.

        Args:
            collection: of the items.
            month: of the items.
            listed: the keys that the month has in the store, None if unknown.
            verify: compare every item, although the list says that it is right.
        """
        key = keys.stac_month(collection, month)
        for pause in self._attempts(key):
            found = self._read(key)
            with self.catalog.read() as db:
                members = stac_rows.list_members(db, collection, month)
            states, old = self._states(members), _read_list(found)
            changed = [
                item_id
                for item_id, state in states.items()
                if verify
                or old.states.get(item_id) != state
                or (listed is not None and keys.stac_item(collection, month, item_id) not in listed)
            ]
            if collection == "scenes":
                asked = changed if listed is None else list(states)
                self.changes += add_thumbnails(
                    self.site.store,
                    self.catalog,
                    month,
                    asked,
                    listed=listed,
                    dry_run=self.dry_run,
                    run=self.pool.map,
                )
            made = self._settle_items(collection, month, changed)
            unmade = set(changed) - made
            members = [member for member in members if member.item_id not in unmade]
            states = {member.item_id: states[member.item_id] for member in members}
            is_same = states == old.states and not made
            indexed = self._settle_index(
                collection, month, members, is_same=is_same, verify=verify, old=old, listed=listed
            )
            listing = collections.month_catalog(self.site, collection, month, members, states, indexed=indexed)
            if not members and found is not None and not self.dry_run:
                self.settle_collection(collection)  # it no longer points to this month when the list goes
            if self._swap(key, found, canonical_json(listing) if members else None):
                break
            time.sleep(pause)
        before = {keys.stac_item(collection, month, item_id) for item_id in old.states}
        before |= {keys.stac_index(collection, month)} if old.indexed else set()
        if collection == "scenes":
            before |= {keys.stac_thumbnail(month, item_id) for item_id in old.states if item_id not in states}
        self._remove_leftovers(collection, month, before if listed is None else listed)

    def settle_collection(self, collection: stac_rows.Collection) -> None:
        """Bring the document of a collection up to date."""

        def make() -> bytes:
            with self.catalog.read() as db:
                seen = stac_rows.overview(db, collection)
            exists = self.site.store.exists
            # Months that nobody has published yet (a store of an earlier release) are not linked to.
            months = [month for month in seen.months if exists(keys.stac_month(collection, month))]
            indexed = [month for month in months if exists(keys.stac_index(collection, month))]
            listed = replace(seen, months={month: seen.months[month] for month in months})
            return canonical_json(collections.collection_of(self.site, collection, listed, indexed))

        self._settle(keys.stac_collection(collection), make)

    def settle_root(self) -> None:
        """Bring the root up to date."""
        self._settle(keys.STAC_ROOT, lambda: canonical_json(collections.root_catalog(self.site)))

    def delete(self, key: str) -> None:
        """Remove an object that is no document of the catalog."""
        self.changes += 1
        if not self.dry_run:
            self.site.store.delete(key)

    def _states(self, members: Sequence[Member]) -> dict[str, str]:
        """Return for each item a hash of everything that decides its content; rows themselves never change."""
        settings = self.site.settings
        common = [__version__, self.site.root(), settings.stac_license, settings.stac_provider]
        return {
            member.item_id: sha256_of(canonical_json([common, member.item_id, member.family]))[:16]
            for member in members
        }

    def _settle_items(self, collection: stac_rows.Collection, month: str, item_ids: Sequence[str]) -> set[str]:
        """Write items that are not right and return the ids of those that could be made from their rows."""
        made = set[str]()
        for at in range(0, len(item_ids), PAGE):
            waiting = list(item_ids[at : at + PAGE])
            for pause in self._attempts(keys.stac_month(collection, month)):
                keys_of = {item_id: keys.stac_item(collection, month, item_id) for item_id in waiting}
                found = dict(zip(waiting, self.pool.map(self._read, keys_of.values()), strict=True))
                with self.catalog.read() as db:
                    wanted = {
                        item["id"]: canonical_json(item) for item in documents(self.site, db, collection, waiting)
                    }
                made.update(wanted)
                swaps = [(keys_of[item_id], found[item_id], data) for item_id, data in wanted.items()]
                done = list(self.pool.map(lambda swap: self._try_swap(*swap), swaps))
                self.changes += done.count("written")
                waiting = [item_id for item_id, outcome in zip(wanted, done, strict=True) if outcome == "lost"]
                if not waiting:
                    break
                time.sleep(pause)
        return made

    def _settle_index(
        self,
        collection: stac_rows.Collection,
        month: str,
        members: Sequence[Member],
        *,
        is_same: bool,
        verify: bool,
        old: _Listed,
        listed: set[str] | None,
    ) -> bool:
        """Write the GeoParquet file of a month if it can be and must be; return whether it holds the items."""
        key = keys.stac_index(collection, month)
        is_there = old.indexed and (listed is None or key in listed)
        if is_same and is_there:
            return True
        if not members or collection not in INDEXED or not can_index():
            return False

        def make(found: bytes | None) -> bytes:
            with self.catalog.read() as db:
                states = self._states(stac_rows.list_members(db, collection, month))
                # The file's own rows say what can be kept: another writer may have replaced it since the list was read.
                can_keep = not verify and holds(found, old.states)
                kept = {item_id for item_id, state in states.items() if can_keep and old.states.get(item_id) == state}
                fresh = [item_id for item_id in states if item_id not in kept]
                items = _pages(self.site, db, collection, fresh)
                return index_bytes(items, states, old=found, kept=kept) if states else b""

        for pause in self._attempts(key):
            found = self._read(key)
            if self._swap(key, found, make(found)):
                break
            time.sleep(pause)
        return True

    def _remove_leftovers(self, collection: stac_rows.Collection, month: str, before: set[str]) -> None:
        """Remove what is in the store and no part of the month; the rows are read again, after the store."""
        key = keys.stac_month(collection, month)
        with self.catalog.read() as db:
            members = stac_rows.list_members(db, collection, month)
        kept = {key, *(keys.stac_item(collection, month, member.item_id) for member in members)}
        if collection == "scenes":
            kept |= {keys.stac_thumbnail(month, member.item_id) for member in members}
        if members and _read_list(self._read(key)).indexed:
            kept.add(keys.stac_index(collection, month))
        for leftover in sorted(before - kept):
            self.delete(leftover)

    def _settle(self, key: str, make: Callable[[], bytes]) -> None:
        """Write a document unless it is right: it is read, then made, then swapped."""
        for pause in self._attempts(key):
            found = self._read(key)
            if self._swap(key, found, make()):
                return
            time.sleep(pause)

    def _attempts(self, key: str) -> Iterator[float]:
        """Yield the pause after each attempt.

        Raises:
            StoreUnreachable: there were too many.
        """
        for pause in pauses(attempts=_ATTEMPTS, longest_s=_LONGEST_PAUSE_S):
            if pause is None:
                break
            yield pause
        raise StoreUnreachable(
            "other writers are busy with this document", subject=key, next_step="Try again in a moment."
        )

    def _swap(self, key: str, found: bytes | None, wanted: bytes | None) -> bool:
        """Return whether the key now holds the wanted bytes, False if another writer changed it meanwhile."""
        outcome = self._try_swap(key, found, wanted)
        self.changes += outcome == "written"
        return outcome != "lost"

    def _try_swap(self, key: str, found: bytes | None, wanted: bytes | None) -> str:
        if found == wanted:
            return "same"
        if self.dry_run:
            return "written"
        store = self.site.store
        try:
            if wanted is None:
                store.delete(key)
            elif found is None:
                store.put(key, wanted)
            else:
                store.replace(key, wanted, expected=found)
        except ObjectExists:
            return "lost"
        return "written"

    def _read(self, key: str) -> bytes | None:
        try:
            return self.site.store.get(key)
        except ObjectMissing:
            return None


def _pages(site: Site, db: Connection, collection: stac_rows.Collection, item_ids: Sequence[str]) -> Iterator[Json]:
    for at in range(0, len(item_ids), PAGE):
        yield from documents(site, db, collection, item_ids[at : at + PAGE])


def documents(
    site: Site,
    db: Connection,
    collection: stac_rows.Collection,
    item_ids: Sequence[str],
    as_of: datetime | None = None,
) -> list[Json]:
    """Return items as plain JSON; those whose rows are gone or cannot be described are left out.

    Args:
        site: where the catalog is.
        db: a transaction.
        collection: of the items.
        item_ids: at most `stac_rows.PAGE`.
        as_of: as they were at this moment, with the versions of each other that there were; None: now.
    """
    makers = {"scenes": _scenes, "masks": _masks, "models": _models, "snapshots": _snapshots}
    made = []
    for item_id, make in makers[collection](site, db, item_ids, as_of):
        try:
            made.append(make().to_dict(include_self_link=True, transform_hrefs=False))
        except Exception:  # one row that is not as it should be must not keep all others from being found
            _log.exception("no STAC item of %s: its row cannot be described", item_id)
    return made


_Made = Iterator[tuple[str, Callable[[], pystac.Item]]]


def _scenes(site: Site, db: Connection, item_ids: Sequence[str], as_of: datetime | None) -> _Made:
    families = stac_rows.find_families(db, item_ids, as_of)
    for row in load_rows(db, "scenes", item_ids, as_of):
        family = families.get(row.scene.scene_id, Family())
        yield row.id, partial(items.scene_item, site, row.scene, family)


def _masks(site: Site, db: Connection, item_ids: Sequence[str], as_of: datetime | None) -> _Made:
    found = load_rows(db, "masks", item_ids, as_of)
    families = stac_rows.find_families(db, sorted({row.scene.scene_id for row in found}), as_of)
    months = stac_rows.months_of_models(db)
    for row in found:
        if row.mask is not None and row.weights is not None:
            family, month = families[row.scene.scene_id], months[row.weights.weights_id]
            yield row.id, partial(items.mask_item, site, row.mask, row.scene, row.weights, family, month)


def _models(site: Site, db: Connection, item_ids: Sequence[str], as_of: datetime | None) -> _Made:
    family, months = stac_rows.find_models(db, as_of), stac_rows.months_of_models(db)
    for weights in _in_order(stac_rows.get_models(db, item_ids), item_ids):
        if as_of is None or weights.created_at <= as_of:
            extent = training_extent(db, weights.snapshot_id)
            yield weights.weights_id, partial(items.model_item, site, weights, extent, family, months)


def _snapshots(site: Site, db: Connection, item_ids: Sequence[str], as_of: datetime | None) -> _Made:
    for snapshot in _in_order(stac_rows.get_snapshots(db, item_ids), item_ids):
        if as_of is None or snapshot.created_at <= as_of:
            extent = training_extent(db, snapshot.snapshot_id)
            yield snapshot.snapshot_id, partial(items.snapshot_item, site, snapshot, extent)


def _in_order(found: Mapping[str, T], item_ids: Sequence[str]) -> list[T]:
    return [found[item_id] for item_id in item_ids if item_id in found]
