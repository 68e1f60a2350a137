"""Search for masks with their scenes by place and time: one mask for each scene."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select

from cloudseg.catalog import tables as t
from cloudseg.catalog.session import Catalog

_PAGE = 500
"""Masks in one statement."""

LonLatBox = tuple[float, float, float, float]
"""West, south, east, north in degrees, EPSG:4326; west > east where it crosses 180°."""


class MaskFilter(NamedTuple):
    """Which masks to find."""

    box: LonLatBox | None = None
    """Their scenes' bounds meet it; None: anywhere."""
    since: datetime | None = None
    """First moment of acquisition; None: open. With either end given, scenes without a time are left out."""
    until: datetime | None = None
    """Last moment of acquisition, included; None: open."""
    weights_id: str | None = None
    """Masks by these weights; None: of each scene the one by the weights that became champion last."""


class MaskOfScene(NamedTuple):
    """A mask with its scene: only what a reader of the two rasters needs."""

    mask_id: str
    weights_id: str
    model_version: int
    mask_key: str
    scene_id: str
    scene_name: str
    sensor: str
    acquired_at: datetime | None
    crs: str
    transform: Sequence[float]
    height: int
    width: int
    resolution_m: float | None
    bands: Sequence[str]
    scene_key: str
    footprint_wkb: bytes
    """Valid pixels in lon/lat, EPSG:4326, cut at 180°."""


class Available(NamedTuple):
    """How many masks a filter finds, and between which acquisitions."""

    masks: int
    first: datetime | None
    last: datetime | None


def list_mask_ids(db: Connection, wanted: MaskFilter) -> list[str]:
    """List the ids of the masks that a filter finds, in the order of acquisition; ties are broken by scene id."""
    found = _one_each(wanted).subquery()
    order = (found.c.acquired_at.is_(None), found.c.acquired_at, found.c.scene_id)
    return list(db.execute(select(found.c.mask_id).where(found.c.place_in_line == 1).order_by(*order)).scalars())


def iter_masks(catalog: Catalog, mask_ids: Sequence[str]) -> Iterator[MaskOfScene]:
    """Yield masks with their scenes, in the given order.

    A few hundred rows are in memory at a time, and no transaction is open while the caller works.
    """
    for at in range(0, len(mask_ids), _PAGE):
        with catalog.read() as db:
            found = _load(db, mask_ids[at : at + _PAGE])
        yield from found


def _load(db: Connection, mask_ids: Sequence[str]) -> list[MaskOfScene]:
    m, s = t.mask.c, t.scene.c
    columns = {
        "mask_id": m.mask_id,
        "weights_id": m.weights_id,
        "model_version": t.weights.c.version,
        "mask_key": m.key,
        "scene_id": s.scene_id,
        "scene_name": s.name,
        "sensor": s.sensor,
        "acquired_at": s.acquired_at,
        "crs": s.crs,
        "transform": s.transform,
        "height": s.height,
        "width": s.width,
        "resolution_m": s.resolution_m,
        "bands": s.bands,
        "scene_key": s.key,
        "footprint_wkb": s.footprint_wkb,
    }
    statement = (
        select(*(column.label(name) for name, column in columns.items()))
        .join(t.scene, m.scene_id == s.scene_id)
        .join(t.weights, m.weights_id == t.weights.c.weights_id)
    )
    rows = {row.mask_id: MaskOfScene(*row) for row in db.execute(statement.where(m.mask_id.in_(mask_ids)))}
    return [rows[mask_id] for mask_id in mask_ids]


def count_available(db: Connection, wanted: MaskFilter) -> Available:
    """Return how many masks a filter finds."""
    found = _one_each(wanted).subquery()
    row = db.execute(
        select(func.count(), func.min(found.c.acquired_at), func.max(found.c.acquired_at)).where(
            found.c.place_in_line == 1
        )
    ).one()
    return Available(*row)


def _one_each(wanted: MaskFilter) -> Select[Any]:
    """Return the query for the masks of each scene, the wanted one first (`place_in_line` = 1)."""
    m, s = t.mask.c, t.scene.c
    # A rollback promotes again, so the newest generation of each weights counts.
    promoted = (
        select(t.promotion.c.weights_id, func.max(t.promotion.c.generation).label("generation"))
        .group_by(t.promotion.c.weights_id)
        .subquery()
    )
    order = (promoted.c.generation.desc(), m.mask_id)
    place_in_line = func.row_number().over(partition_by=m.scene_id, order_by=order).label("place_in_line")
    statement = select(m.mask_id, s.scene_id, s.acquired_at, place_in_line).join(t.scene, m.scene_id == s.scene_id)
    statement = statement.where(~m.is_variant)
    if wanted.weights_id is None:
        statement = statement.join(promoted, promoted.c.weights_id == m.weights_id)
    else:
        statement = statement.outerjoin(promoted, promoted.c.weights_id == m.weights_id)
        statement = statement.where(m.weights_id == wanted.weights_id)
    if wanted.since is not None:
        statement = statement.where(s.acquired_at >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(s.acquired_at <= wanted.until)
    return statement.where(s.crs.is_not(None)) if wanted.box is None else statement.where(_meets(wanted.box))


def _meets(box: LonLatBox) -> ColumnElement[bool]:
    """Return the condition that the bounds of a scene meet a box; both may cross 180°."""
    s = t.scene.c
    west, south, east, north = box
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    crosses = s.max_lon < s.min_lon
    lon = or_(
        *(
            or_(
                and_(s.min_lon <= last, s.max_lon >= first),
                and_(crosses, or_(s.min_lon <= last, s.max_lon >= first)),
            )
            for first, last in spans
        )
    )
    return and_(s.crs.is_not(None), s.min_lat <= north, s.max_lat >= south, lon)
