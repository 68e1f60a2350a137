"""Stage: maintenance. Find, and unless it is a dry run remove, unreferenced objects; repair what can be derived.

The order is opposite to publishing: a row is deleted before its object, so that every row's object exists.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import TypeVar

from sqlalchemy import and_, delete, or_, select

from cloudseg.catalog import tables as t
from cloudseg.catalog import training_rows
from cloudseg.catalog.gc_lock import lock_for_gc
from cloudseg.catalog.session import now
from cloudseg.catalog.times import parse_moment
from cloudseg.errors import InputError, ObjectCorrupt, ObjectMissing
from cloudseg.keys import CHAMPION_POINTER, PREFIXES, REPLACED
from cloudseg.records import MaintainRecord
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import log
from cloudseg.stages.listing import Listing
from cloudseg.stages.references import PAGE, find_named, iter_named
from cloudseg.stages.remove import finish_removals
from cloudseg.stages.verification import (
    MOST_PARTS,
    Verification,
    load_verification,
    part_of,
    save_verification,
)

_log = logging.getLogger(__name__)
T = TypeVar("T")
_OLDEST = 36_500
"""Maximum age in days or hours: more than any deployment needs, and dates stay in the range of `datetime`."""
_BATCH = 100
"""Orphans that are deleted under one lock, while no row can be written; an object store takes about 10 ms each."""


def maintain(
    *,
    dry_run: bool = True,
    orphan_hours: float = 24.0,
    checkpoint_days: float = 7.0,
    evaluation_days: float = 90.0,
    verify: bool = False,
    verify_parts: int = 0,
    as_of: str | None = None,
) -> MaintainRecord:
    """Collect orphans, expire checkpoints and evaluations, find missing objects, repair what follows from rows.

    Repaired are the champion's pointer and the static STAC catalog; a removal of a scene that was interrupted is
    completed.

    Running it twice changes nothing the second time.

    Args:
        dry_run: report only, change nothing.
        orphan_hours: an object that no row names is kept until this age: its row may not be written yet.
        checkpoint_days: checkpoints of a finished run expire after this many days; those of other runs are kept.
        evaluation_days: evaluations of weights that were never champion expire after this many days.
        verify: read every object and compare its checksum (slow); by default only its presence is checked.
        verify_parts: read one of so many parts of the objects, the one that was read longest ago, and compare
            checksums; the same part if called again with a time of the same day. 0: none.
        as_of: time that ages are counted from (ISO 8601 with zone); None is now.

    Raises:
        InputError: an age is negative or too large, the time cannot be read or has no zone, or the number of parts is
            not between 0 and 366.
    """
    ages = {"orphan_hours": orphan_hours, "checkpoint_days": checkpoint_days, "evaluation_days": evaluation_days}
    _check_ages(ages)
    if not 0 <= verify_parts <= MOST_PARTS:
        raise InputError(
            "not a number of parts", subject="verify_parts", found=verify_parts, expected=f"0 to {MOST_PARTS}"
        )
    moment = now() if as_of is None else parse_moment(as_of, "as_of")
    log.started("maintain", dry_run=dry_run, verify=verify, verify_parts=verify_parts, as_of=moment.isoformat(), **ages)
    runtime = open_runtime()
    checkpoints = _expire_checkpoints(runtime, moment - timedelta(days=checkpoint_days), dry_run=dry_run)
    evaluations = _expire_evaluations(runtime, moment - timedelta(days=evaluation_days), dry_run=dry_run)
    removals = finish_removals(runtime, dry_run=dry_run)
    repaired = _repair_pointer(runtime, dry_run=dry_run)
    if not dry_run:
        runtime.store.clear_abandoned()
    with Listing() as listing:
        orphans, orphan_bytes = _collect_orphans(
            runtime, listing, moment - timedelta(hours=orphan_hours), dry_run=dry_run
        )
        known = load_verification(runtime.store, verify_parts or None)
        part = None if verify or not verify_parts else known.next_part(moment.date())
        reading = _Reading(known, part, everything=verify)
        missing = _missing(runtime, listing, reading)
    if not dry_run and (verify or part is not None):
        save_verification(runtime.store, known.read(part, moment.date(), missing))
    stac = _repair_stac(runtime, dry_run=dry_run, verify=verify)
    record = MaintainRecord(
        dry_run=dry_run,
        orphans=orphans,
        orphan_bytes=orphan_bytes,
        expired_checkpoints=checkpoints,
        expired_evaluations=evaluations,
        repaired=repaired,
        missing=sorted(missing),
        verified=reading.count,
        stac=stac,
        removals=removals,
    )
    log.ended("maintain", record)
    return record


def _check_ages(ages: dict[str, float]) -> None:
    for name, value in ages.items():
        if not 0 <= value <= _OLDEST:
            raise InputError("not an age", subject=name, found=value, expected=f"0 to {_OLDEST}")


def _expire_checkpoints(runtime: Runtime, before: datetime, *, dry_run: bool) -> int:
    """Delete the checkpoint rows of runs that finished before the moment; their objects become orphans."""
    old = and_(t.run.c.status == "finished", t.run.c.finished_at < before)
    statement = select(t.checkpoint.c.run_id, t.checkpoint.c.step).join(t.run).where(old)
    with runtime.catalog.read() as db:
        expired = list(db.execute(statement))
    if dry_run:
        return len(expired)
    for row in expired:
        with runtime.catalog.begin() as db:
            training_rows.delete_checkpoint(db, row.run_id, row.step)
    return len(expired)


def _expire_evaluations(runtime: Runtime, before: datetime, *, dry_run: bool) -> int:
    """Delete old evaluation rows of weights that were never champion; their reports become orphans.

    Verdicts are kept: they hold the metrics that were compared.
    """
    e = t.evaluation.c
    kept = select(t.promotion.c.weights_id)
    kept_before = select(t.promotion.c.previous_weights_id).where(t.promotion.c.previous_weights_id.is_not(None))
    old = and_(e.created_at < before, ~or_(e.weights_id.in_(kept), e.weights_id.in_(kept_before)))
    with runtime.catalog.read() as db:
        expired = db.execute(select(e.evaluation_id).where(old)).scalars().all()
    if dry_run:
        return len(expired)
    for evaluation_id in expired:
        with runtime.catalog.begin() as db:
            db.execute(delete(t.evaluation).where(e.evaluation_id == evaluation_id))
    return len(expired)


def _repair_pointer(runtime: Runtime, *, dry_run: bool) -> list[str]:
    from cloudseg.registry import is_pointer_right, repair_pointer

    if dry_run:
        return [] if is_pointer_right(runtime.store, runtime.catalog) else [CHAMPION_POINTER]
    return [CHAMPION_POINTER] if repair_pointer(runtime.store, runtime.catalog) else []


def _repair_stac(runtime: Runtime, *, dry_run: bool, verify: bool) -> int:
    from cloudseg.stac.links import Site
    from cloudseg.stac.static import repair

    return repair(Site(runtime.store, runtime.settings), runtime.catalog, dry_run=dry_run, verify=verify)


def _collect_orphans(runtime: Runtime, listing: Listing, before: datetime, *, dry_run: bool) -> tuple[list[str], int]:
    """Delete the objects older than the moment that no row names, unless it is a dry run.

    Objects are listed before rows are read, so an object that is written in between is either named or too young. A
    writer may be about to name an old orphan, so each is checked again under the lock that keeps writers from adding
    rows (`cloudseg.catalog.gc_lock`).

    Returns:
        Keys of the orphans, and their total size in bytes.
    """
    store, found = runtime.store, dict[str, int]()
    for part in _parts(chain.from_iterable(store.list_objects(prefix) for prefix in PREFIXES), PAGE):
        listing.add([entry.key for entry in part])
        old = {entry.key: entry.size for entry in part if entry.written_at < before}
        with runtime.catalog.read() as db:
            named = find_named(db, store, old)
        found.update((key, size) for key, size in old.items() if key not in named)
    for batch in () if dry_run else _parts(sorted(found), _BATCH):
        with runtime.catalog.begin() as db:
            lock_for_gc(db)
            named = find_named(db, store, batch)
            for key in batch:
                if key not in named:
                    store.delete(key)
    return sorted(found), sum(found.values())


@dataclass
class _Reading:
    """Which objects are read and compared with their checksum, and how many were."""

    known: Verification
    part: int | None
    everything: bool
    count: int = 0

    def includes(self, key: str) -> bool:
        """Return whether an object is read; one that was damaged is read every time, until it is restored."""
        return (
            self.everything
            or (self.part is not None and part_of(key, self.known.parts) == self.part)
            or (key in self.known.damaged)
        )


def _missing(runtime: Runtime, listing: Listing, reading: _Reading) -> dict[str, str | None]:
    """Return the keys that a row names and whose object is missing or, if it is read, damaged, with their checksums."""
    lost: dict[str, str | None] = {}
    for part in _parts(iter_named(runtime.catalog, runtime.store), PAGE):
        named = {key: sha256 for key, sha256 in part if key not in REPLACED}
        read = {key for key in named if reading.includes(key)}
        # Objects that were not listed may have been written since.
        for key in read.union(listing.lacking([key for key in named if key not in read])):
            if not _exists(runtime, key, named[key] if key in read else None):
                lost[key] = named[key]
        reading.count += len(read)
    if lost:
        _log.error(
            "%d objects are missing or damaged: restore them from a backup (docs/how-to/maintenance.md)", len(lost)
        )
    return lost


def _parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def _exists(runtime: Runtime, key: str, sha256: str | None) -> bool:
    if sha256 is None:
        return runtime.store.exists(key)
    try:
        with runtime.store.local_file(key, sha256):
            return True
    except (ObjectMissing, ObjectCorrupt):
        return False
