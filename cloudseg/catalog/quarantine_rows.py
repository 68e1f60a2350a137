"""Quarantine by reason, and releases: who had a file tried again, and why.

An entry is deleted when its file is released or becomes readable; what a release deleted stays in `quarantine_release`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, func, select

from cloudseg.catalog import tables as t
from cloudseg.catalog.scene_rows import find_quarantined
from cloudseg.catalog.session import advisory_lock, fetch, insert, now
from cloudseg.errors import NotInCatalog
from cloudseg.records import Quarantined, QuarantineRelease


class ReasonGroup(NamedTuple):
    """The entries of one reason."""

    error: str
    """Class of the error."""
    what: str
    entries: int
    """How many there are."""
    first_at: datetime
    last_at: datetime
    names: list[str]
    """Names of some files, the newest first."""
    newest_id: str
    """The newest entry; it stands for the group in an address."""
    next_step: str
    """Of the newest entry."""


def count_quarantined(db: Connection) -> int:
    """Count the entries."""
    return db.execute(select(func.count()).select_from(t.quarantine)).scalar_one()


def list_groups(db: Connection, *, names: int = 3) -> list[ReasonGroup]:
    """List the quarantine by reason, the largest group first.

    A reason is the error's class and what went wrong; what was found differs from file to file.

    Args:
        db: the catalog.
        names: how many names of files each group has at most.
    """
    q = t.quarantine.c
    position = func.row_number().over(
        partition_by=(q.error, q.what), order_by=(q.created_at.desc(), q.quarantine_id.desc())
    )
    ranked = select(q.error, q.what, q.name, q.quarantine_id, q.next_step, position.label("position")).subquery()
    samples: dict[tuple[str, str], list[Row[Any]]] = {}
    for row in db.execute(select(ranked).where(ranked.c.position <= max(1, names)).order_by(ranked.c.position)):
        samples.setdefault((row.error, row.what), []).append(row)
    counted = select(
        q.error, q.what, func.count().label("number"), func.min(q.created_at), func.max(q.created_at)
    ).group_by(q.error, q.what)
    groups = [
        ReasonGroup(
            error, what, number, first, last, [row.name for row in of][:names], of[0].quarantine_id, of[0].next_step
        )
        for error, what, number, first, last in db.execute(counted)
        for of in [samples[error, what]]
    ]
    return sorted(groups, key=lambda group: (-group.entries, group.error, group.what))


def list_of_reason(
    db: Connection, error: str, what: str, *, limit: int | None = None, offset: int = 0
) -> list[Quarantined]:
    """List the entries of one reason, newest first."""
    q = t.quarantine.c
    statement = select(t.quarantine).where(q.error == error, q.what == what)
    return fetch(
        db, Quarantined, statement.order_by(q.created_at.desc(), q.quarantine_id.desc()).limit(limit).offset(offset)
    )


def count_of_reason(db: Connection, error: str, what: str) -> int:
    """Count the entries of one reason."""
    q = t.quarantine.c
    return db.execute(select(func.count()).where(q.error == error, q.what == what)).scalar_one()


def get_quarantined(db: Connection, quarantine_id: str) -> Quarantined:
    """Return an entry.

    Raises:
        NotInCatalog: it is not in quarantine, or not any more.
    """
    if (found := find_quarantined(db, quarantine_id)) is not None:
        return found
    releases = list_releases(db, quarantine_id)
    raise NotInCatalog(
        "no such entry in quarantine",
        subject=quarantine_id,
        found=f"released by {releases[0].actor} on {releases[0].created_at:%Y-%m-%d}" if releases else None,
        next_step="`cloudseg quarantine` lists the entries.",
    )


def list_releases(
    db: Connection, quarantine_id: str | None = None, *, limit: int | None = None
) -> list[QuarantineRelease]:
    """List releases, newest first: all, or those of one entry."""
    r = t.quarantine_release.c
    statement = select(t.quarantine_release).order_by(r.created_at.desc(), r.sequence.desc(), r.quarantine_id)
    if quarantine_id is not None:
        statement = statement.where(r.quarantine_id == quarantine_id)
    return fetch(db, QuarantineRelease, statement.limit(limit))


def resolve_release(db: Connection, quarantine_ids: Sequence[str], *, same_reason: bool) -> list[Quarantined]:
    """Return the entries that a release of these ids deletes, each once; ids that were released before have none.

    Args:
        db: the catalog.
        quarantine_ids: ids of entries.
        same_reason: also every entry with the same reason as one of them.

    Raises:
        NotInCatalog: an id is neither in quarantine nor was it ever released.
    """
    chosen: dict[str, Quarantined] = {}
    for quarantine_id in quarantine_ids:
        found = find_quarantined(db, quarantine_id)
        if found is None and not list_releases(db, quarantine_id, limit=1):
            get_quarantined(db, quarantine_id)  # raises
        if found is not None:
            chosen[found.quarantine_id] = found
    if same_reason:
        for error, what in sorted({(entry.error, entry.what) for entry in chosen.values()}):
            chosen |= {entry.quarantine_id: entry for entry in list_of_reason(db, error, what)}
    return list(chosen.values())


def release(db: Connection, entry: Quarantined, *, actor: str, reason: str) -> bool:
    """Delete an entry, so that the next ingest tries its file again, and record who asked for that.

    Args:
        db: a transaction that writes.
        entry: the entry.
        actor: who decided.
        reason: why.

    Returns:
        False if another transaction released it first; nothing is changed then.
    """
    advisory_lock(db, f"quarantine {entry.quarantine_id}")
    if find_quarantined(db, entry.quarantine_id) is None:
        return False
    r = t.quarantine_release.c
    newest = select(func.max(r.sequence)).where(r.quarantine_id == entry.quarantine_id)
    kept = entry.model_dump(include={"quarantine_id", "name", "source_uri", "error", "what"})
    record = QuarantineRelease(
        **kept,
        sequence=(db.execute(newest).scalar() or 0) + 1,
        actor=actor,
        reason=reason,
        created_at=now(),
    )
    if not insert(db, t.quarantine_release, record):  # not behind the lock; the primary key decides nevertheless
        return False
    db.execute(delete(t.quarantine).where(t.quarantine.c.quarantine_id == entry.quarantine_id))
    return True
