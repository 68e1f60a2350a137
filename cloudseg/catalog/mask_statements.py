"""Statements of a search of masks and scenes: rows in order, in batches that each begin after the one before.

An order by time walks the index (acquired_at, bounds) until the page is full, one by cloud cover the indexes of
migration 0008, one by creation (weights_id, created_at). Where few scenes touch the area, the spatial index finds them
and only they are sorted (`scene_box`). A filter by another field, and an order by one, read every row that the rest of
the query leaves.
"""

import functools
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import shapely
from shapely.geometry.base import BaseGeometry
from sqlalchemy import ColumnElement, Connection, Double, FromClause, and_, false, func, literal, or_, select, true

from cloudseg.bands import FIRST_ACQUISITION
from cloudseg.catalog import tables as t
from cloudseg.catalog.item_filter import Field, Fields, build_condition, build_filter
from cloudseg.catalog.mask_query import PUBLISHED, Kind, Query, SortKey, fields_of, overlaps_area, properties_of
from cloudseg.catalog.page_token import PageToken
from cloudseg.catalog.planner import NotByIndex
from cloudseg.catalog.scene_search import lacks_mask, such_scenes

_FEW: Final = frozenset({"id", "cloudseg:scene_id", "cloudseg:place"})
"""A filter that names one of them leaves few rows, and finds them by an index."""
BATCH: Final = 200
_NULLS: Final[dict[str, tuple[Any, Any]]] = {
    # What stands for a missing value: greater than every value in ascending order, smaller in descending order.
    "number": (1e300, -1e300),
    "time": (datetime(9999, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)),
    "text": ("\uffff", ""),
}


@dataclass(frozen=True)
class Candidate:
    """A row that the database finds, with what the order and the exact comparison need of it."""

    kind: Kind
    id: str
    values: tuple[Any, ...]
    footprint: bytes | None
    fits: bool = True
    """Whether the geometries of the filter fit, which the database does not compare."""


Position = tuple[int, Candidate]
"""A row and the part of the order that it is in."""


def iter_candidates(db: Connection, query: Query, after: PageToken | None, limit: int) -> Iterator[Position]:
    """Yield what the database finds, in order.

    An order by time has two parts, dated scenes and undated ones. Each walks an index; one statement for both would
    sort every row.
    """
    parts = (0, 1) if query.sort and query.sort[0].name == "datetime" else (0,)
    for part in parts if query.undated else parts[:1]:
        if after is not None and part < after.part:
            continue
        start = after.position if after is not None and part == after.part else None
        whole = len(parts) == 1
        streams = [
            _stream(db, query, kind, None if whole else part == 0, start, max(limit + 1, 20)) for kind in query.kinds
        ]
        for candidate in heapq.merge(*streams, key=functools.cmp_to_key(functools.partial(_order, query.sort))):
            yield part, candidate


def _order(sort: tuple[SortKey, ...], one: Candidate, other: Candidate) -> int:
    for key, a, b in zip(sort, one.values, other.values, strict=True):
        if a != b:
            return (1 if a > b else -1) * (-1 if key.descending else 1)
    return (one.id > other.id) - (one.id < other.id)


def _stream(
    db: Connection, query: Query, kind: Kind, dated: bool | None, start: tuple[Any, ...] | None, batch: int
) -> Iterator[Candidate]:
    """Yield the rows of one table, in batches that each begin after the last row of the one before."""
    fields, source = fields_of(kind), tables_of(query, kind)
    keys = [_sorted_by(fields[key.name], key, sure=dated is not None and i == 0) for i, key in enumerate(query.sort)]
    if dated is False:
        keys[0] = literal(_NULLS["time"][query.sort[0].descending], t.Utc)
    names = [f"key{i}" for i in range(len(keys))]
    condition = and_(*conditions_of(query, kind, fields, dated))
    columns: list[ColumnElement[Any]] = [fields["id"].column.label("id")]
    columns += [key.label(name) for key, name in zip(keys, names, strict=True)]
    exact = build_filter(query.where, fields) if query.where is not None else None
    columns += exact.columns if exact else []
    compares = (query.area is not None and not query.bounds_only) or (exact is not None and exact.is_spatial)
    if compares:
        columns.append(t.scene.c.footprint_wkb.label("footprint"))
    order = [
        (key.desc() if wanted.descending else key.asc())
        for i, (key, wanted) in enumerate(zip(keys, query.sort, strict=True))
        if not (dated is False and i == 0)
    ]
    while True:
        statement = select(*columns).select_from(source).where(condition).order_by(*order, fields["id"].column)
        if start is not None:
            statement = statement.where(_beyond(query.sort, keys, fields["id"].column, start))
        rows = db.execute(statement.limit(batch)).all()
        for row in rows:
            values = tuple(row._mapping[name] for name in names)
            footprint = row.footprint if compares else None
            fits = exact is None or exact.holds(dict(row._mapping), footprint)
            yield Candidate(kind, row.id, values, footprint, fits)
        if len(rows) < batch:
            return
        start = (*(rows[-1]._mapping[name] for name in names), rows[-1].id)
        batch = min(2 * batch, 10 * BATCH)


def tables_of(query: Query, kind: Kind) -> FromClause:
    """Return the tables that a search reads; the weights only where their version is asked for."""
    if kind == "scenes":
        return t.scene
    # A walk through the times of scenes, with their masks looked up; otherwise SQLite sorts all masks.
    scene_id = NotByIndex(t.scene.c.scene_id) if _walks_times(query) else t.scene.c.scene_id
    source = t.mask.join(t.scene, scene_id == t.mask.c.scene_id)
    names = {key.name for key in query.sort} | set(properties_of(query.where))
    if "cloudseg:model_version" not in names:
        return source
    return source.join(t.weights, t.weights.c.weights_id == t.mask.c.weights_id)


def _walks_times(query: Query) -> bool:
    """Return whether a search reads scenes in the order of their times until its page is full."""
    by_time = bool(query.sort) and query.sort[0].name == "datetime"
    return by_time and query.ids is None and query.scene_ids is None and _FEW.isdisjoint(properties_of(query.where))


def _sorted_by(wanted: Field, key: SortKey, *, sure: bool) -> ColumnElement[Any]:
    """Return what to sort by: missing values come last in both directions. `sure`: none is missing."""
    if not wanted.nullable or sure:
        return wanted.column
    missing = _NULLS[wanted.type][key.descending]
    return func.coalesce(wanted.column, literal(missing, wanted.column.type), type_=wanted.column.type)


def _beyond(
    sort: tuple[SortKey, ...], keys: list[ColumnElement[Any]], id_: ColumnElement[Any], start: tuple[Any, ...]
) -> ColumnElement[bool]:
    """Return the condition that a row comes after a position; its first part is a range of the first key's index."""
    *values, last_id = start
    # Not the type of the column: what stands for a missing number is no integer.
    bound = [
        literal(value, Double() if isinstance(value, float | int) else key.type)
        for value, key in zip(values, keys, strict=True)
    ]
    later: ColumnElement[bool] = id_ > last_id
    for key, wanted, value in reversed(list(zip(keys, sort, bound, strict=True))):
        later = or_(key < value if wanted.descending else key > value, and_(key == value, later))
    if not keys:
        return later
    return and_(keys[0] <= bound[0] if sort[0].descending else keys[0] >= bound[0], later)


def conditions_of(query: Query, kind: Kind, fields: Fields, dated: bool | None) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of a query on the rows of one table.

    Args:
        query: its model is settled.
        kind: of the rows.
        fields: of this kind.
        dated: only scenes with a time of acquisition, or only those without one; None: both.
    """
    yield PUBLISHED
    if query.ids is not None:
        yield fields["id"].column.in_(query.ids) if query.ids else false()
    if kind == "masks":
        yield from _of_model(query)
        if query.ids is None:  # variants of a mask are found by their id only
            yield ~t.mask.c.is_variant
    if query.scene_ids is not None:
        yield t.scene.c.scene_id.in_(query.scene_ids) if query.scene_ids else false()
    yield from such_scenes(name=query.name, place=query.place, any_case=True)
    if query.without_mask_of is not None:
        yield lacks_mask(query.without_mask_of)
    if query.as_of is not None:
        yield fields["created"].column <= query.as_of
    if query.where is not None:
        yield build_condition(query.where, fields)
    if query.area is not None:
        yield overlaps_area(query.area)
    yield _in_time(query, dated)


def _of_model(query: Query) -> Iterator[ColumnElement[bool]]:
    if query.weights_id is not None:
        # Nearly all masks may be by these weights: only an index that has the order too is worth it.
        in_order = bool(query.sort) and query.sort[0].name in ("eo:cloud_cover", "created") and query.scene_ids is None
        yield (t.mask.c.weights_id if in_order else NotByIndex(t.mask.c.weights_id)) == query.weights_id


def _in_time(query: Query, dated: bool | None) -> ColumnElement[bool]:
    scene = t.scene.c
    after = [scene.acquired_at >= query.since] if query.since else []
    before = [scene.acquired_at <= query.until] if query.until else []
    of_dated = and_(scene.acquired_at.is_not(None), *after, *before)
    of_undated = and_(
        scene.acquired_at.is_(None),
        *([] if query.undated else [false()]),
        *([scene.created_at >= query.since] if query.since else []),
        *([false()] if query.until and query.until < FIRST_ACQUISITION else []),
    )
    if dated is not None:
        return of_dated if dated else of_undated
    return or_(of_dated, of_undated) if query.since or query.until or not query.undated else true()


def touches(candidate: Candidate, area: BaseGeometry) -> bool:
    """Return whether the footprint of a candidate's scene touches an area."""
    return candidate.footprint is not None and bool(area.intersects(shapely.from_wkb(candidate.footprint)))
