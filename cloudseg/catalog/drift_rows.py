"""Rows that drift is computed from: the brightness of scenes, the cloud fraction of masks and labels, by scene."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Join, Subquery, and_, case, func, select

from cloudseg.catalog import tables as t
from cloudseg.catalog.session import fetch, insert
from cloudseg.records import Scene, SceneBrightness


class SceneFigures(NamedTuple):
    """What drift knows of a scene."""

    scene_id: str
    sensor: str
    created_at: datetime
    """When the scene was ingested."""
    reflectance: float | None
    """Its brightness; None if it was not measured, or could not be."""
    cloud_fraction: float | None
    """Of the champion's mask, or of the label of a training scene; None without one."""


class PlaceFigures(NamedTuple):
    """How cloudy the masks of a place are."""

    place: str
    masks: int
    mean: float
    """Mean cloud fraction of the masks."""
    overcast: int
    """Masks with at least the upper fraction of cloud."""
    clear: int
    """Masks with at most the lower fraction of cloud."""
    lon: float
    lat: float
    """Mean lower left corner of the footprints, degrees: which region the place belongs to."""


def add_brightness(db: Connection, brightness: SceneBrightness) -> bool:
    """Add the brightness of a scene; return False if it has one."""
    return insert(db, t.scene_brightness, brightness)


def list_unmeasured(db: Connection, snapshot_id: str | None, *, limit: int) -> list[Scene]:
    """List scenes without brightness: first the training scenes of a snapshot, then the others, newest first.

    Args:
        db: the catalog.
        snapshot_id: the snapshot; None: no scene comes first.
        limit: maximum number of scenes.
    """
    measured = select(t.scene_brightness.c.scene_id)
    in_training = t.scene.c.scene_id.in_(select(_training_labels(snapshot_id).c.scene_id))
    statement = select(t.scene).where(t.scene.c.scene_id.not_in(measured))
    order = (case((in_training, 0), else_=1), t.scene.c.created_at.desc(), t.scene.c.scene_id)
    return fetch(db, Scene, statement.order_by(*order).limit(limit))


def count_unmeasured(db: Connection) -> int:
    """Count the scenes without brightness."""
    measured = select(t.scene_brightness.c.scene_id)
    return db.execute(select(func.count()).where(t.scene.c.scene_id.not_in(measured))).scalar_one()


def list_training_figures(db: Connection, snapshot_id: str) -> list[SceneFigures]:
    """List the training scenes of a snapshot; the cloud fraction is that of the newest of a scene's labels in it."""
    labels = _training_labels(snapshot_id)
    joined = t.scene.join(labels, labels.c.scene_id == t.scene.c.scene_id)
    return _list_figures(db, joined, labels.c.cloud_fraction)


def list_arrivals(db: Connection, weights_id: str, *, since: datetime) -> list[SceneFigures]:
    """List the scenes that were ingested since a moment, with the cloud fraction of their mask by these weights."""
    of_weights = and_(
        t.mask.c.scene_id == t.scene.c.scene_id, t.mask.c.weights_id == weights_id, t.mask.c.is_variant.is_(False)
    )
    return _list_figures(db, t.scene.outerjoin(t.mask, of_weights), t.mask.c.cloud_fraction, since=since)


def find_newest_arrival(db: Connection) -> datetime | None:
    """Return when the newest scene was ingested."""
    statement = select(t.scene.c.created_at).order_by(t.scene.c.created_at.desc()).limit(1)
    return db.execute(statement).scalar()


def list_places(db: Connection, weights_id: str, *, lower: float, upper: float) -> list[PlaceFigures]:
    """List the georeferenced places with masks by these weights, by name.

    Args:
        db: the catalog.
        weights_id: the weights.
        lower: cloud fraction up to which a mask counts as clear.
        upper: cloud fraction from which on a mask counts as overcast.
    """
    cloud = t.mask.c.cloud_fraction

    def count(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return func.sum(case((condition, 1), else_=0))

    columns = (
        t.scene.c.place,
        func.count(),
        func.avg(cloud),
        count(cloud >= upper),
        count(cloud <= lower),
        func.avg(t.scene.c.min_lon),
        func.avg(t.scene.c.min_lat),
    )
    of_weights = (t.mask.c.weights_id == weights_id, t.mask.c.is_variant.is_(False), t.scene.c.min_lon.is_not(None))
    joined = t.mask.join(t.scene, t.scene.c.scene_id == t.mask.c.scene_id)
    statement = select(*columns).select_from(joined).where(*of_weights).group_by(t.scene.c.place)
    rows = db.execute(statement.order_by(t.scene.c.place))
    return [PlaceFigures(*row) for row in rows]


def _training_labels(snapshot_id: str | None) -> Subquery:
    """Return the query for the newest label of each training scene of a snapshot."""
    held, newer_held = t.snapshot_label, t.snapshot_label.alias("newer_held")
    newer = t.label.alias("newer")
    is_newer = (
        select(newer.c.label_id)
        .select_from(newer.join(newer_held, newer_held.c.label_id == newer.c.label_id))
        .where(
            newer_held.c.snapshot_id == held.c.snapshot_id,
            newer.c.scene_id == t.label.c.scene_id,
            newer.c.version > t.label.c.version,
        )
    )
    return (
        select(t.label.c.scene_id, t.label.c.cloud_fraction)
        .select_from(t.label.join(held, held.c.label_id == t.label.c.label_id))
        .where(held.c.snapshot_id == snapshot_id, held.c.split == "train", ~is_newer.exists())
        .subquery("training_label")
    )


def _list_figures(
    db: Connection, joined: Join, cloud_fraction: ColumnElement[float], *, since: datetime | None = None
) -> list[SceneFigures]:
    measured = joined.outerjoin(t.scene_brightness, t.scene_brightness.c.scene_id == t.scene.c.scene_id)
    columns = (
        t.scene.c.scene_id,
        t.scene.c.sensor,
        t.scene.c.created_at,
        t.scene_brightness.c.reflectance,
        cloud_fraction,
    )
    statement = select(*columns).select_from(measured)
    if since is not None:
        statement = statement.where(t.scene.c.created_at >= since)
    return [SceneFigures(*row) for row in db.execute(statement.order_by(t.scene.c.created_at, t.scene.c.scene_id))]
