"""Plans of the backfill: which scenes get a mask of a newer model in a night, and how far each month is.

Order of the scenes: those that no earlier plan of these weights named, so that a scene that fails does not use up every
night's budget; then those of places that have a label, because nobody records which masks are read and a label is the
one trace of somebody who works there; then by time of acquisition, newest first.
"""

from collections.abc import Collection, Iterator
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, case, exists, func, select

from cloudseg.catalog import tables as t
from cloudseg.catalog.scene_rows import has_band
from cloudseg.catalog.session import fetch_one, insert
from cloudseg.records import Backfill, BackfillScene, Month

MOST_SCENES: Final = 100_000
"""Maximum of a plan, whatever its budget: its scenes are rows of one transaction."""


UNKNOWN: Final = "unknown"
"""Month of scenes without a time of acquisition."""


class BackfillCandidate(NamedTuple):
    """A scene without a mask."""

    scene_id: str
    name: str
    pixels: int


def find_plan(db: Connection, weights_id: str, night: str) -> Backfill | None:
    """Return the plan of a night, or None."""
    b = t.backfill.c
    return fetch_one(db, Backfill, select(t.backfill).where(b.weights_id == weights_id, b.night == night))


def find_plan_by_id(db: Connection, backfill_id: str) -> Backfill | None:
    """Return a plan, or None."""
    return fetch_one(db, Backfill, select(t.backfill).where(t.backfill.c.backfill_id == backfill_id))


def add_plan(db: Connection, plan: Backfill, scene_ids: Collection[str]) -> bool:
    """Add a plan with its scenes; return False, and add nothing, if the night has one already."""
    if not insert(db, t.backfill, plan):
        return False
    for position, scene_id in enumerate(scene_ids):
        insert(
            db,
            t.backfill_scene,
            BackfillScene(backfill_id=plan.backfill_id, position=position, scene_id=scene_id),
        )
    return True


def list_planned(db: Connection, backfill_id: str) -> list[str]:
    """List the ids of a plan's scenes in their order."""
    p = t.backfill_scene.c
    statement = select(p.scene_id).where(p.backfill_id == backfill_id).order_by(p.position)
    return list(db.execute(statement).scalars())


def iter_waiting(db: Connection, weights_id: str, *, bands: Collection[str]) -> Iterator[BackfillCandidate]:
    """Yield publishable scenes that these weights have not masked and that have all these bands, in order."""
    s, p = t.scene.c, t.backfill_scene
    of_weights = and_(p.c.scene_id == s.scene_id, t.backfill.c.weights_id == weights_id)
    planned = exists(p.c.scene_id).select_from(p.join(t.backfill)).where(of_weights).correlate(t.scene)
    labeled_scene = t.scene.alias("labeled_scene")
    labeled = select(labeled_scene.c.place).join(t.label, t.label.c.scene_id == labeled_scene.c.scene_id)
    statement = (
        select(s.scene_id, s.name, (s.height * s.width).label("pixels"))
        .where(s.publishable, *_bands(db, bands), ~_masked(weights_id))
        .order_by(
            case((planned, 1), else_=0),
            case((s.place.in_(labeled), 0), else_=1),
            func.coalesce(s.acquired_at, s.created_at).desc(),
            s.scene_id,
        )
        .limit(MOST_SCENES)
    )
    for row in db.execute(statement):
        yield BackfillCandidate(row.scene_id, row.name, row.pixels)


def list_months(db: Connection, weights_id: str, *, bands: Collection[str]) -> list[Month]:
    """List how many scenes of each month of acquisition these weights have masked, newest month first."""
    has_mask = case((_masked(weights_id), 1), else_=0)
    scenes = select(_month(db).label("month"), has_mask.label("done")).where(t.scene.c.publishable, *_bands(db, bands))
    each = scenes.subquery()
    # The month is named once, in the subquery: as a bound parameter PostgreSQL would not take two as the same.
    statement = select(each.c.month, func.sum(each.c.done).label("done"), func.count().label("total"))
    rows = db.execute(statement.group_by(each.c.month).order_by(each.c.month.desc()))
    known = [Month(month=row.month or UNKNOWN, done=row.done, total=row.total) for row in rows]
    # PostgreSQL sorts NULL first in a descending order, SQLite last.
    return sorted(known, key=lambda month: month.month == UNKNOWN)


def list_touched(db: Connection, backfill_id: str) -> list[str]:
    """List the months of acquisition of a plan's scenes, newest first."""
    p = t.backfill_scene.c
    joined = t.scene.join(t.backfill_scene, p.scene_id == t.scene.c.scene_id)
    statement = select(_month(db).label("month")).select_from(joined).where(p.backfill_id == backfill_id).distinct()
    return sorted({month or UNKNOWN for month in db.execute(statement).scalars()}, reverse=True)


def _masked(weights_id: str) -> ColumnElement[bool]:
    # One column, not all as `exists()` selects: SQLite would read the row of the mask for those.
    of_scene = and_(t.mask.c.scene_id == t.scene.c.scene_id, t.mask.c.weights_id == weights_id)
    return exists(t.mask.c.scene_id).where(of_scene).correlate(t.scene)


def _bands(db: Connection, bands: Collection[str]) -> list[ColumnElement[bool]]:
    return [has_band(db, band) for band in sorted(bands)]


def _month(db: Connection) -> ColumnElement[Any]:
    """Return the month of acquisition in UTC, such as '2024-06'."""
    acquired = t.scene.c.acquired_at
    if db.dialect.name == "sqlite":
        return func.strftime("%Y-%m", acquired)
    return func.to_char(func.timezone("UTC", acquired), "YYYY-MM")
