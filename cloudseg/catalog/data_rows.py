"""What there is to learn from: labeled scenes with the life of their labels, places with their split, and changes."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, case, distinct, func, or_, select

from cloudseg.catalog import label_rows
from cloudseg.catalog import tables as t
from cloudseg.catalog.label_rows import SnapshotDifference, StatedLabel, state_of
from cloudseg.catalog.scene_search import is_like, such_scenes
from cloudseg.catalog.session import fetch
from cloudseg.catalog.sql_text import check_wanted
from cloudseg.records import LabelState, Scene, Split

_UNDECIDED = "undecided"


class LabeledScene(NamedTuple):
    """A scene with its labels."""

    scene: Scene
    split: Split | None
    """Of its place; None before the first snapshot with it."""
    labels: list[StatedLabel]
    """Oldest version first."""


class DataFilter(NamedTuple):
    """Which labeled scenes are listed; what is not given lets all through."""

    text: str | None = None
    """Part of the scene's name or place, in any case; `*` stands for any letters."""
    sensor: str | None = None
    split: str | None = None
    """A split, or 'undecided'."""
    state: LabelState | None = None
    """At least one label of the scene is in this state."""
    since: datetime | None = None
    """First moment of acquisition; with one given, scenes without a time are left out."""
    until: datetime | None = None
    """Last moment of acquisition, included."""


class SensorCount(NamedTuple):
    """Scenes of one sensor in one split."""

    sensor: str
    split: str
    """A split, or 'undecided'."""
    scenes: int
    labeled: int
    """Those of them with an accepted label."""
    places: int


class PlaceBox(NamedTuple):
    """A place on the map: the bounds of its scenes in degrees."""

    place: str
    split: str
    """A split, or 'undecided'."""
    scenes: int
    labeled: int
    """Scenes with a label, in whatever state."""
    min_lon: float
    min_lat: float
    max_lon: float
    max_lat: float


class PlaceDifference(NamedTuple):
    """What changed at one place between two snapshots."""

    place: str
    splits: list[str]
    added: list[SnapshotDifference]
    removed: list[SnapshotDifference]
    changed: int
    """Scenes that both snapshots hold, with other labels."""


def count_scenes(db: Connection, wanted: DataFilter) -> int:
    """Count the labeled scenes."""
    return db.execute(select(func.count()).select_from(_labeled(wanted).subquery())).scalar_one()


def list_scenes(db: Connection, wanted: DataFilter, *, limit: int | None = None, offset: int = 0) -> list[LabeledScene]:
    """List labeled scenes with their labels, the newest scene first."""
    order = (t.scene.c.created_at.desc(), t.scene.c.scene_id)
    scenes = fetch(db, Scene, _labeled(wanted).order_by(*order).limit(limit).offset(offset))
    found = label_rows.list_stated(db, scene_ids=[scene.scene_id for scene in scenes])
    by_scene = sorted(found, key=lambda stated: (stated.label.scene_id, stated.label.version))
    labels = {name: list(of) for name, of in groupby(by_scene, key=lambda stated: stated.label.scene_id)}
    places = select(t.place.c.place, t.place.c.split).where(t.place.c.place.in_({scene.place for scene in scenes}))
    splits: dict[str, Split] = {row.place: row.split for row in db.execute(places)}
    return [LabeledScene(scene, splits.get(scene.place), labels.get(scene.scene_id, [])) for scene in scenes]


def count_by_sensor(db: Connection) -> list[SensorCount]:
    """Count scenes by sensor and split."""
    accepted = (
        select(t.label.c.scene_id)
        .where(state_of(t.label.c.label_id) == "accepted", t.label.c.scene_id == t.scene.c.scene_id)
        .exists()
    )
    split = func.coalesce(t.place.c.split, _UNDECIDED)
    statement = (
        select(
            t.scene.c.sensor,
            split,
            func.count(),
            func.sum(case((accepted, 1), else_=0)),
            func.count(distinct(t.scene.c.place)),
        )
        .select_from(t.scene.outerjoin(t.place, t.place.c.place == t.scene.c.place))
        .group_by(t.scene.c.sensor, split)
        .order_by(t.scene.c.sensor, split)
    )
    return [SensorCount(*row) for row in db.execute(statement)]


def count_by_state(db: Connection) -> dict[str, int]:
    """Count labels by the state that they are in."""
    # FROM is given: without it the subquery of the state would take `label` as its own.
    states = select(state_of(t.label.c.label_id).label("state")).select_from(t.label).subquery()
    statement = select(states.c.state, func.count()).group_by(states.c.state).order_by(states.c.state)
    return {row[0]: row[1] for row in db.execute(statement)}


def list_place_boxes(db: Connection, *, limit: int | None = None) -> list[PlaceBox]:
    """List the georeferenced places with a labeled scene or a split, those with most scenes first."""
    labeled = select(t.label.c.scene_id).where(t.label.c.scene_id == t.scene.c.scene_id).exists()
    number = func.sum(case((labeled, 1), else_=0))
    s = t.scene.c
    # A footprint that crosses the antimeridian is drawn up to it.
    east = case((s.max_lon < s.min_lon, 180.0), else_=s.max_lon)
    split = func.coalesce(t.place.c.split, _UNDECIDED)
    statement = (
        select(
            s.place,
            split,
            func.count().label("scenes"),
            number,
            func.min(s.min_lon),
            func.min(s.min_lat),
            func.max(east),
            func.max(s.max_lat),
        )
        .select_from(t.scene.outerjoin(t.place, t.place.c.place == s.place))
        .where(s.min_lon.is_not(None))
        .group_by(s.place, split)
        .having(or_(number > 0, split != _UNDECIDED))
        .order_by(func.count().desc(), s.place)
    )
    return [PlaceBox(*row) for row in db.execute(statement.limit(limit))]


def list_difference_by_place(db: Connection, before: str, after: str) -> list[PlaceDifference]:
    """List what changed between two snapshots by place, the place with most changes first.

    Args:
        db: the catalog.
        before: id of the older snapshot.
        after: id of the newer one.
    """
    found = sorted(label_rows.list_difference(db, before, after), key=lambda entry: entry.place)
    held = _scenes_of(db, before) & _scenes_of(db, after)
    changes = [_difference(place, list(of), held) for place, of in groupby(found, key=lambda entry: entry.place)]
    return sorted(changes, key=lambda change: (-len(change.added) - len(change.removed), change.place))


def _difference(place: str, entries: Sequence[SnapshotDifference], held: set[str]) -> PlaceDifference:
    return PlaceDifference(
        place=place,
        splits=sorted({entry.split for entry in entries}),
        added=[entry for entry in entries if entry.added],
        removed=[entry for entry in entries if not entry.added],
        changed=len({entry.label.scene_id for entry in entries} & held),
    )


def _scenes_of(db: Connection, snapshot_id: str) -> set[str]:
    joined = t.label.join(t.snapshot_label, t.snapshot_label.c.label_id == t.label.c.label_id)
    statement = select(t.label.c.scene_id).select_from(joined).where(t.snapshot_label.c.snapshot_id == snapshot_id)
    return set(db.execute(statement).scalars())


def _labeled(wanted: DataFilter) -> Select[Any]:
    """Return the query for the scenes that have a label and fit the filter.

    Raises:
        InputError: the text cannot be searched for.
    """
    of_scene = select(t.label.c.label_id).where(t.label.c.scene_id == t.scene.c.scene_id)
    if wanted.state is not None:
        of_scene = of_scene.where(state_of(t.label.c.label_id) == wanted.state)
    conditions = [of_scene.exists(), *such_scenes(since=wanted.since, until=wanted.until)]
    if wanted.text:
        check_wanted(wanted.text, "name or place")
        columns = (t.scene.c.name, t.scene.c.place)
        conditions.append(or_(*(is_like(column, f"*{wanted.text}*", any_case=True) for column in columns)))
    if wanted.sensor:
        conditions.append(t.scene.c.sensor == wanted.sensor)
    if wanted.split:
        conditions.append(func.coalesce(t.place.c.split, _UNDECIDED) == wanted.split)
    joined = t.scene.outerjoin(t.place, t.place.c.place == t.scene.c.place)
    return select(t.scene).select_from(joined).where(*conditions)
