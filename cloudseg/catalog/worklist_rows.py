"""Rows that a worklist is made from: masked scenes with their probability, other masks and labels."""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, Row, Select, func, select

from cloudseg.catalog import tables as t
from cloudseg.catalog.model_rows import find_mask
from cloudseg.catalog.session import fetch_one
from cloudseg.records import Json, Mask, Weights


class MaskedScene(NamedTuple):
    """A scene with its mask by certain weights: only what a worklist needs, so that a list of a million is small."""

    scene_id: str
    name: str
    place: str
    sensor: str
    acquired_at: datetime | None
    height: int
    width: int
    grid: str
    """CRS and transform as text: equal for scenes whose pixels lie on each other."""
    mask_id: str
    threshold: float
    cloud_fraction: float
    probability: Json
    """The `StoredObject` of the probability raster."""

    @property
    def pixels(self) -> int:
        """Pixels of the scene."""
        return self.height * self.width


def iter_masked_scenes(db: Connection, weights_id: str) -> Iterator[MaskedScene]:
    """Yield the scenes that these weights have masked: the newest scene of every place, then the second newest, ...

    The order spreads whatever part of it is used over all places; ties are broken by id.
    """
    newest = func.row_number().over(
        partition_by=t.scene.c.place, order_by=(t.scene.c.created_at.desc(), t.scene.c.scene_id)
    )
    ranked = _masked(weights_id).add_columns(newest.label("newest")).subquery()
    for row in db.execute(select(ranked).order_by(ranked.c.newest, ranked.c.place, ranked.c.scene_id)):
        yield _masked_scene(row)


def list_unmasked(db: Connection, weights_id: str, *, by: str, limit: int) -> list[str]:
    """List scenes that these weights have masked and the weights `by` have not, in the order of examination."""
    found: list[str] = []
    for scene in iter_masked_scenes(db, weights_id):
        if len(found) == limit:
            break
        if find_mask(db, scene.scene_id, by) is None:
            found.append(scene.scene_id)
    return found


def list_repeated_places(db: Connection, weights_id: str, *, least: int) -> list[str]:
    """List the places with at least `least` scenes masked by these weights, those with most scenes first."""
    count = func.count()
    statement = (
        select(t.scene.c.place)
        .join(t.mask, t.mask.c.scene_id == t.scene.c.scene_id)
        .where(t.mask.c.weights_id == weights_id, ~t.mask.c.is_variant)
        .group_by(t.scene.c.place)
        .having(count >= least)
        .order_by(count.desc(), t.scene.c.place)
    )
    return list(db.execute(statement).scalars())


def list_masked_of_place(db: Connection, weights_id: str, place: str) -> list[MaskedScene]:
    """List the scenes of a place that these weights have masked, latest acquisition first."""
    statement = _masked(weights_id).where(t.scene.c.place == place, t.scene.c.acquired_at.is_not(None))
    rows = db.execute(statement.order_by(t.scene.c.acquired_at.desc(), t.scene.c.scene_id))
    return [_masked_scene(row) for row in rows]


def find_masked_scene(db: Connection, scene_id: str, weights_id: str) -> MaskedScene | None:
    """Return a scene with its mask by these weights, or None."""
    row = db.execute(_masked(weights_id).where(t.scene.c.scene_id == scene_id)).one_or_none()
    return None if row is None else _masked_scene(row)


def count_masked(db: Connection, weights_id: str) -> int:
    """Count the masks of these weights."""
    return db.execute(select(func.count()).where(t.mask.c.weights_id == weights_id, ~t.mask.c.is_variant)).scalar_one()


def find_other_mask(db: Connection, scene_id: str, weights_id: str) -> Mask | None:
    """Return the mask of a scene by the newest weights other than these, or None."""
    statement = (
        select(t.mask)
        .join(t.weights, t.weights.c.weights_id == t.mask.c.weights_id)
        .where(t.mask.c.scene_id == scene_id, t.mask.c.weights_id != weights_id, ~t.mask.c.is_variant)
        .order_by(t.weights.c.version.desc())
        .limit(1)
    )
    return fetch_one(db, Mask, statement)


def find_challenger(db: Connection, weights_id: str) -> Weights | None:
    """Return the newest weights other than these that were evaluated, or None."""
    evaluated = select(t.evaluation.c.weights_id).where(t.evaluation.c.weights_id != weights_id)
    statement = (
        select(t.weights).where(t.weights.c.weights_id.in_(evaluated)).order_by(t.weights.c.version.desc()).limit(1)
    )
    return fetch_one(db, Weights, statement)


def _masked(weights_id: str) -> Select[tuple[object, ...]]:
    s, m = t.scene.c, t.mask.c
    columns = [s.scene_id, s.name, s.place, s.sensor, s.acquired_at, s.height, s.width, s.crs, s.transform]
    return (
        select(*columns, m.mask_id, m.threshold, m.cloud_fraction, m.companions)
        .join(t.mask, m.scene_id == s.scene_id)
        .where(m.weights_id == weights_id, ~m.is_variant)
    )


def _masked_scene(row: "Row[tuple[object, ...]]") -> MaskedScene:
    values = row._mapping
    same = {name: values[name] for name in MaskedScene._fields if name in values}
    grid = f"{values['crs']} {values['transform']}"
    return MaskedScene(**same, grid=grid, probability=values["companions"]["probability"])
