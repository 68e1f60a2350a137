"""Leases: which scenes wait for a mask, and which worker draws which of them (docs/decisions/0039_drain.md).

The scenes that wait follow from `scene` and `mask`. Workers copy them into `prediction_lease` page by page, oldest
first, and draw from there: on PostgreSQL with `FOR UPDATE SKIP LOCKED`, so that no worker waits for another; SQLite has
one writer at a time. A draw sets `until`, and whoever comes before that time passes the row over. All times are those
of the database: clocks of workers may differ.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    and_,
    bindparam,
    delete,
    false,
    func,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from cloudseg.catalog import tables as t
from cloudseg.catalog.scene_rows import has_band
from cloudseg.records import Json

LEASE_S: Final = 600.0
"""Seconds for which a scene is a worker's; one that lives renews it."""
PAGE: Final = 1000
"""Scenes that become rows at a time: a page is found once, and drawn by all workers."""
_FIRST_HOLD_S: Final = 3600.0
_LONGEST_HOLD_S: Final = 86_400.0


class Wanted(NamedTuple):
    """Which scenes wait: publishable ones with all bands, without a mask by the weights."""

    weights_id: str
    bands: Collection[str] = ()
    since: datetime | None = None
    """Only scenes that were ingested at this moment or later."""
    cleaning: str | None = None
    """Only a mask that was cleaned just so (`Mask.cleaning`) counts; None: any."""


class Waiting(NamedTuple):
    """A scene that waits, and its place in the order of time."""

    created_at: datetime
    scene_id: str


class Drawn(NamedTuple):
    """A scene that is now this worker's."""

    scene_id: str
    failures: int
    """How often drawing its mask failed, or its worker ended without a result."""
    is_lost: bool
    """The last worker that drew it ended without a result."""
    has_mask: bool
    """That worker published the mask, and had not come to the end of its work."""


class DatabaseTime(FunctionElement[datetime]):
    """The database's clock at the begin of the transaction, and a number of seconds later."""

    name = "database_time"
    inherit_cache = True
    type = t.Utc()

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(bindparam("seconds", seconds, Float(), unique=True))


@compiles(DatabaseTime, "postgresql")
def _on_postgresql(element: DatabaseTime, compiler: Any, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"(now() + make_interval(secs => {seconds}))"


@compiles(DatabaseTime, "sqlite")
def _on_sqlite(element: DatabaseTime, compiler: Any, **options: Any) -> str:
    """Return the time as `tables.Utc` stores it: with six decimals, of which SQLite's clock fills three."""
    seconds = compiler.process(element.clauses, **options)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', {seconds} || ' seconds') || '000')"


def find_waiting(db: Connection, wanted: Wanted, *, after: Waiting | None = None, most: int = PAGE) -> list[Waiting]:
    """Return the first scenes that wait and have no row in `prediction_lease`, oldest first.

    Masks and leases are looked up scene by scene in the order of an index, so that what is read grows with the scenes
    between `after` and the last one that is found, and not with the catalog.

    Args:
        db: a transaction that reads.
        wanted: which scenes wait.
        after: only scenes behind this one.
        most: scenes.
    """
    s = t.scene.c
    # No bare column: a database would look it up in the index of publishable scenes, and then sort all of them.
    publishable = func.coalesce(s.publishable, false())
    statement = select(s.created_at, s.scene_id).where(publishable, *_waits(db, wanted))
    if after is not None:
        place = tuple_(literal(after.created_at, t.Utc()), literal(after.scene_id))
        statement = statement.where(tuple_(s.created_at, s.scene_id) > place)
    if wanted.since is not None:
        statement = statement.where(s.created_at >= wanted.since)
    return [Waiting(*row) for row in db.execute(statement.order_by(s.created_at, s.scene_id).limit(most))]


def add_waiting(db: Connection, wanted: Wanted, page: Sequence[Waiting]) -> int:
    """Add free rows for scenes that still wait; return how many there were that no other worker had added."""
    lease, s = t.prediction_lease, t.scene.c
    values: dict[str, Any] = {
        "weights_id": literal(wanted.weights_id),
        "cleaning": literal(wanted.cleaning or ""),
        "scene_id": s.scene_id,
        "until": DatabaseTime(),
        "failures": literal(0),
    }
    # In one order, so that of two workers with the same page the second one waits, and not each for the other.
    waiting = select(*values.values()).where(s.scene_id.in_([scene.scene_id for scene in page]), *_waits(db, wanted))
    build = sqlite.insert if db.dialect.name == "sqlite" else postgresql.insert
    statement = (
        build(lease).from_select(list(values), waiting.order_by(s.created_at, s.scene_id)).on_conflict_do_nothing()
    )
    return len(db.execute(statement.returning(lease.c.scene_id)).all())


def draw(db: Connection, wanted: Wanted, worker: str, *, lease_s: float = LEASE_S) -> Drawn | None:
    """Make a free scene this worker's and return it, the one first that has been free longest; None: none is free.

    Args:
        db: a transaction that writes.
        wanted: which scenes wait.
        worker: who draws.
        lease_s: seconds for which no other worker draws it.
    """
    lease, m = t.prediction_lease, t.mask.c
    free = (
        select(lease.c.scene_id, lease.c.worker, lease.c.failures, lease.c.error)
        .where(*_of(wanted), lease.c.until <= DatabaseTime())
        .order_by(lease.c.until)
        .limit(1)
        .with_for_update(skip_locked=True, of=lease)
        .subquery()
    )
    # Of the one row: beside the others, a database would look for the mask of every free row before it sorts them.
    of_scene = [m.scene_id == free.c.scene_id, m.weights_id == wanted.weights_id, *_such(wanted)]
    has_mask = select(literal(1)).where(*of_scene).limit(1).correlate(free).scalar_subquery()
    found = db.execute(select(free, has_mask.label("mask"))).first()
    if found is None:
        return None
    is_lost = found.worker is not None and found.error is None
    drawn = Drawn(found.scene_id, found.failures + int(is_lost), is_lost, found.mask is not None)
    db.execute(
        update(lease)
        .where(*_of(wanted), lease.c.scene_id == drawn.scene_id)
        .values(worker=worker, until=DatabaseTime(lease_s), failures=drawn.failures, error=None)
    )
    return drawn


def renew(db: Connection, wanted: Wanted, worker: str, *, lease_s: float = LEASE_S) -> int:
    """Extend everything that a worker holds; return how many scenes that are."""
    renewed = update(t.prediction_lease).where(*_held_by(wanted, worker)).values(until=DatabaseTime(lease_s))
    return db.execute(renewed).rowcount


def release(db: Connection, wanted: Wanted, worker: str, scene_ids: Sequence[str]) -> None:
    """Delete the rows of scenes that have their mask, as far as they are still this worker's."""
    db.execute(
        delete(t.prediction_lease).where(*_held_by(wanted, worker), t.prediction_lease.c.scene_id.in_(scene_ids))
    )


def fail(db: Connection, wanted: Wanted, worker: str, scene_id: str, error: Json, *, failures: int) -> None:
    """Record why a scene has no mask, and hold it back: for an hour, after each further failure twice as long.

    At most for a day.

    Args:
        db: a transaction that writes.
        wanted: which scenes wait.
        worker: who drew it.
        scene_id: the scene.
        error: what went wrong.
        failures: how often it failed, this time included.
    """
    hold_s = min(_FIRST_HOLD_S * 2 ** min(failures - 1, 10), _LONGEST_HOLD_S)
    db.execute(
        update(t.prediction_lease)
        .where(*_held_by(wanted, worker), t.prediction_lease.c.scene_id == scene_id)
        .values(until=DatabaseTime(hold_s), failures=failures, error=error)
    )


def give_up(db: Connection, wanted: Wanted, worker: str, *, is_lost: bool) -> int:
    """Free what a worker of this name holds; return how many scenes that are.

    Args:
        db: a transaction that writes.
        wanted: which scenes wait.
        worker: the name.
        is_lost: the worker ended, and what it held may be why; else its next draw counts as if there was none.
    """
    name = worker if is_lost else None
    freed = update(t.prediction_lease).where(*_held_by(wanted, worker)).values(until=DatabaseTime(), worker=name)
    return db.execute(freed).rowcount


def count_open(db: Connection, wanted: Wanted, worker: str | None = None) -> int:
    """Count the scenes that are free or that a worker other than this one holds: those that did not just fail."""
    lease = t.prediction_lease.c
    not_failed: list[ColumnElement[bool]] = [(lease.until <= DatabaseTime()) | lease.error.is_(None)]
    if worker is not None:
        not_failed.append(lease.worker.is_distinct_from(worker))
    return db.execute(select(func.count()).where(*_of(wanted), *not_failed)).scalar_one()


def count_failed(db: Connection, wanted: Wanted) -> int:
    """Count the scenes that failed and are not drawn again yet."""
    lease = t.prediction_lease.c
    held = [lease.until > DatabaseTime(), lease.error.is_not(None)]
    return db.execute(select(func.count()).where(*_of(wanted), *held)).scalar_one()


def _of(wanted: Wanted) -> list[ColumnElement[bool]]:
    lease = t.prediction_lease.c
    return [lease.weights_id == wanted.weights_id, lease.cleaning == (wanted.cleaning or "")]


def _held_by(wanted: Wanted, worker: str) -> list[ColumnElement[bool]]:
    lease = t.prediction_lease.c
    return [*_of(wanted), lease.worker == worker, lease.error.is_(None)]


def _such(wanted: Wanted) -> list[ColumnElement[bool]]:
    return [] if wanted.cleaning is None else [t.mask.c.cleaning == wanted.cleaning]


def _waits(db: Connection, wanted: Wanted) -> list[ColumnElement[bool]]:
    """Return the conditions that a scene has neither mask nor row here, and all bands.

    `OFFSET 0` keeps PostgreSQL from turning them into joins, for which it may read all masks for a page, and lets it
    expect that half of the scenes meet them: of `(SELECT …) IS NULL` it expects one in 200, so that it reads and sorts
    all scenes (`DEFAULT_UNK_SEL` in its source, selfuncs.h).
    """
    m, lease, scene_id = t.mask.c, t.prediction_lease.c, t.scene.c.scene_id
    mask = select(literal(1)).where(and_(m.scene_id == scene_id, m.weights_id == wanted.weights_id, *_such(wanted)))
    row = select(literal(1)).where(*_of(wanted), lease.scene_id == scene_id)
    return [
        ~mask.offset(0).correlate(t.scene).exists(),
        ~row.offset(0).correlate(t.scene).exists(),
        *(has_band(db, band) for band in sorted(wanted.bands)),
    ]
