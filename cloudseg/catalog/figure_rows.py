"""What monitoring counts: statements that stay fast with a million scenes and masks.

Tables that grow with the scenes are counted through an index, read from one end of an index up to a limit, or sampled;
tables of decisions and trainings have thousands of rows at most and are read whole.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, and_, case, exists, func, select, text

from cloudseg.catalog import model_rows
from cloudseg.catalog import tables as t
from cloudseg.catalog.planner import NotByIndex
from cloudseg.catalog.session import fetch
from cloudseg.records import Decision, Json, Verdict, Weights

SAMPLE: Final = 1000
"""Rows of a table whose sizes are read; the standard error of their mean is 3 % of the standard deviation."""


class NewScene(NamedTuple):
    """A scene that was ingested lately."""

    ingested_at: datetime
    bands: list[str]
    masked_at: datetime | None
    """When its first mask was published, by any weights."""


class QuarantineCount(NamedTuple):
    """How many files are in quarantine."""

    files: int
    since: int
    """Files that were added at a moment or later."""
    newest_at: datetime | None


class RadiometryCount(NamedTuple):
    """How many masks were compared with the brightness of the training scenes."""

    compared: int
    outside: int
    newest_outside: str | None
    """Name of the scene of the newest mask that is outside."""


class TrainedVerdict(NamedTuple):
    """The newest verdict on weights that were trained here."""

    created_at: datetime
    snapshot_id: str | None


class RunSeconds(NamedTuple):
    """How long a run trained."""

    began_at: datetime
    device: str
    seconds: float


class TableSize(NamedTuple):
    """How many bytes the objects of a table's rows have in the store."""

    size: float
    is_exact: bool
    """Whether every row was read; else the mean of a sample was multiplied by the number of rows."""


def count_rows(db: Connection, table: Table) -> int:
    """Count the rows of a table; with an index, its leaves are read and no row."""
    return db.execute(select(func.count()).select_from(table)).scalar_one()


def count_masks_since(db: Connection, moment: datetime) -> int:
    """Count masks that were published at a moment or later."""
    return db.execute(select(func.count()).select_from(t.mask).where(t.mask.c.created_at >= moment)).scalar_one()


def count_radiometry(db: Connection, moment: datetime) -> RadiometryCount:
    """Count masks of a moment or later by whether their scene is as bright as the training scenes."""
    recent = t.mask.c.created_at >= moment
    counted = select(t.mask.c.radiometry, func.count()).where(recent).group_by(t.mask.c.radiometry)
    counts = {str(row[0]): int(row[1]) for row in db.execute(counted)}
    newest = (
        select(t.scene.c.name)
        .select_from(t.mask.join(t.scene, t.scene.c.scene_id == t.mask.c.scene_id))
        .where(recent, t.mask.c.radiometry == "outside")
        .order_by(t.mask.c.created_at.desc(), t.mask.c.mask_id)
        .limit(1)
    )
    outside = counts.get("outside", 0)
    return RadiometryCount(
        compared=outside + counts.get("inside", 0),
        outside=outside,
        newest_outside=db.execute(newest).scalar() if outside else None,
    )


def count_unmasked(db: Connection, weights_id: str) -> int:
    """Count publishable scenes without a mask by these weights, whatever bands they have.

    The difference of two counts, each from an index: a search of the scenes themselves takes ten times as long.
    """
    publishable = select(func.count()).select_from(t.scene).where(t.scene.c.publishable)
    # SQLite takes the partial index `ix_mask_main` for exactly this condition.
    of_weights = (NotByIndex(t.mask.c.weights_id) == weights_id, text("NOT mask.is_variant"))
    masked = select(func.count()).select_from(t.mask).where(*of_weights)
    return max(0, db.execute(publishable).scalar_one() - db.execute(masked).scalar_one())


def list_new_scenes(db: Connection, since: datetime, *, limit: int) -> list[NewScene]:
    """List publishable scenes that were ingested at a moment or later, newest first.

    Args:
        db: a transaction.
        since: the moment.
        limit: scenes that are read, publishable or not.
    """
    s, m = t.scene.c, t.mask.c
    columns = (s.scene_id, s.created_at, s.bands, s.publishable)
    newest = select(*columns).where(s.created_at >= since).order_by(s.created_at.desc()).limit(limit).subquery()
    masked = select(func.min(m.created_at)).where(m.scene_id == newest.c.scene_id).scalar_subquery()
    statement = select(newest.c.created_at, newest.c.bands, masked.label("masked_at")).where(newest.c.publishable)
    found = db.execute(statement.order_by(newest.c.created_at.desc()))
    return [NewScene(row.created_at, row.bands, row.masked_at) for row in found]


def find_newest_scene_at(db: Connection) -> datetime | None:
    """Return when the newest scene was ingested."""
    return db.execute(select(func.max(t.scene.c.created_at))).scalar()


def count_scenes_since(db: Connection, moment: datetime) -> int:
    """Count the scenes that were ingested at a moment or later."""
    return db.execute(select(func.count()).select_from(t.scene).where(t.scene.c.created_at >= moment)).scalar_one()


def find_newest_label_at(db: Connection) -> datetime | None:
    """Return when the newest label was ingested."""
    return db.execute(select(func.max(t.label.c.created_at))).scalar()


def count_quarantine(db: Connection, since: datetime) -> QuarantineCount:
    """Count files in quarantine, all of them and those that were added at a moment or later."""
    q = t.quarantine.c
    recent = func.coalesce(func.sum(case((q.created_at >= since, 1), else_=0)), 0)
    row = db.execute(select(func.count(), recent, func.max(q.created_at)).select_from(t.quarantine)).one()
    return QuarantineCount(*row)


def find_newest_verdict(db: Connection) -> Verdict | None:
    """Return the newest verdict, or None."""
    return next(iter(model_rows.list_verdicts(db, limit=1)), None)


def find_newest_trained_verdict(db: Connection) -> TrainedVerdict | None:
    """Return when weights that were trained here last got a verdict, with the snapshot of their run, or None."""
    v, w = t.verdict, t.weights.c
    of_runs = v.join(t.weights, w.weights_id == v.c.challenger_id)
    statement = select(v.c.created_at, w.snapshot_id).select_from(of_runs).where(w.run_id.is_not(None))
    row = db.execute(statement.order_by(v.c.created_at.desc(), v.c.verdict_id).limit(1)).first()
    return None if row is None else TrainedVerdict(*row)


def count_open_alerts(db: Connection) -> dict[str, int]:
    """Return how many alerts are open by name, without those of which none is."""
    a = t.alert.c
    found = db.execute(select(a.name, func.count().label("open")).where(a.resolved_at.is_(None)).group_by(a.name))
    return {row.name: row.open for row in found}


def count_open_requests(db: Connection) -> tuple[int, datetime | None]:
    """Count challengers with a request for approval that can still be granted, and return when the oldest was made."""
    d, v = t.decision, t.verdict.c
    statement = select(func.count(v.challenger_id.distinct()), func.min(d.c.created_at)).select_from(d.join(t.verdict))
    row = db.execute(statement.where(_can_be_granted())).one()
    return row[0], row[1]


def list_open_requests(db: Connection) -> list[tuple[Decision, Weights]]:
    """List the requests for approval that can still be granted, newest first, one of each challenger, which follows."""
    d = t.decision
    asked = fetch(db, Decision, select(d).select_from(d.join(t.verdict)).where(_can_be_granted()))
    found: dict[str, tuple[Decision, Weights]] = {}
    for request in sorted(asked, key=lambda request: request.created_at, reverse=True):
        challenger = model_rows.get_verdict(db, request.verdict_id).challenger_id
        found.setdefault(challenger, (request, model_rows.get_weights(db, challenger)))
    return list(found.values())


def _can_be_granted() -> ColumnElement[bool]:
    """Return the condition that a decision, joined with its verdict, is a request that can be granted.

    Not so are requests about challengers that a person rejected, that became champion at any time, or whose verdict
    compares them with another champion than the current one: those would have to be compared again.
    """
    d, v, p = t.decision, t.verdict, t.promotion.c
    other, its = t.decision.alias("other"), t.verdict.alias("its")
    champion = select(p.weights_id).order_by(p.generation.desc()).limit(1).scalar_subquery()
    of_challenger = and_(its.c.verdict_id == other.c.verdict_id, its.c.challenger_id == v.c.challenger_id)
    rejected = exists(other.c.verdict_id).where(of_challenger, other.c.decision == "declined").correlate(v)
    promoted = exists(p.generation).where(p.weights_id == v.c.challenger_id).correlate(v)
    current = func.coalesce(v.c.champion_id, "") == func.coalesce(champion, "")
    return and_(d.c.decision == "asked", ~rejected, ~promoted, current)


def list_run_seconds(db: Connection, since: datetime) -> list[RunSeconds]:
    """List how long each run trained that began at a moment or later.

    The seconds are those of its newest epoch, which add up over all tries and leave out the pauses between them; of a
    run without an epoch, those from its begin to its end.
    """
    r, e = t.run.c, t.epoch.c
    newest = select(e.metrics).where(e.run_id == r.run_id).order_by(e.epoch.desc()).limit(1).scalar_subquery()
    statement = select(r.device, r.created_at, r.finished_at, newest.label("metrics")).where(r.created_at >= since)
    return [
        RunSeconds(row.created_at, row.device, _seconds(row.metrics, row.created_at, row.finished_at))
        for row in db.execute(statement.order_by(r.created_at))
    ]


def _seconds(metrics: Json | None, began_at: datetime, ended_at: datetime | None) -> float:
    if metrics and isinstance(metrics.get("seconds"), int | float):
        return float(metrics["seconds"])
    return (ended_at - began_at).total_seconds() if ended_at else 0.0


def measure_objects(db: Connection, table: Table, rows: int) -> TableSize:
    """Return how many bytes the objects of a table's rows have: of the row itself, and of its assets or report.

    Up to SAMPLE rows are read, the first by id. Ids are made of checksums, so that these are a random sample, and the
    same one for as long as no row is added before its last.

    Args:
        db: a transaction.
        table: one with objects.
        rows: how many rows it has.
    """
    names = [name for name in ("size", "companions", "report") if name in table.c]
    columns = [table.c[name] for name in names]
    by: Sequence[Any] = list(table.primary_key.columns)
    read = [
        sum(value if isinstance(value, int) else _total(value) for value in row)
        for row in db.execute(select(*columns).order_by(*by).limit(SAMPLE))
    ]
    if rows <= len(read):
        return TableSize(float(sum(read)), is_exact=True)
    return TableSize(sum(read) / len(read) * rows, is_exact=False)


def _total(assets: Json) -> int:
    return sum(int(stored.get("size", 0)) for stored in assets.values())


def database_bytes(db: Connection) -> int | None:
    """Return the size of the database on PostgreSQL (`pg_database_size`), None on SQLite, whose file has one."""
    if db.dialect.name != "postgresql":
        return None
    return int(db.execute(select(func.pg_database_size(func.current_database()))).scalar_one())
