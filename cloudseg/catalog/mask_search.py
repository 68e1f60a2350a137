"""Search of masks and scenes by place, time, ids and properties, in pages: the one way in which masks are found.

Only what the STAC catalog shows is found: scenes that may be published and whose place is known, and their masks.

Whose masks: those that readers see, now or at a moment (`as_of`; `reader_rows`, docs/decisions/0031). A search that
says itself which masks it wants, by ids, by weights or by a filter that names the model, gets those.

The answers are the same on SQLite, PostgreSQL and PostGIS: the database compares the bounds of scenes, times and
properties, and footprints are compared here. A page ends with a token that holds the position of its last row (keyset
pagination): the thousandth page costs as much as the first, and rows that are added meanwhile neither repeat nor hide
others.

An order by time walks the index (acquired_at, bounds) until the page is full, one by cloud cover the indexes of
migration 0008, one by creation (weights_id, created_at). Where few scenes touch the area, the spatial index finds them
and only they are sorted (`scene_box`). A filter by another field, and an order by one, read every row that the rest of
the query leaves.
"""

import functools
import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

import shapely
from shapely.geometry.base import BaseGeometry
from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    FromClause,
    and_,
    cast,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
)

from cloudseg.bands import FIRST_ACQUISITION
from cloudseg.catalog import reader_rows
from cloudseg.catalog import tables as t
from cloudseg.catalog.item_filter import Field, Fields, FieldType, build_condition, build_filter
from cloudseg.catalog.page_token import PageToken, read_token
from cloudseg.catalog.planner import NotByIndex
from cloudseg.catalog.scene_box import find_near
from cloudseg.catalog.search_area import check_vertices
from cloudseg.catalog.session import Catalog, fetch
from cloudseg.errors import InputError
from cloudseg.records import Mask, Scene, Weights

Kind = Literal["masks", "scenes"]
KINDS: Final[tuple[Kind, ...]] = ("masks", "scenes")
Box = tuple[float, float, float, float]

MAX_LIMIT: Final = 500
"""Rows of a page."""
MAX_IDS: Final = 500
MAX_SORT: Final = 3
MAX_COMPARED: Final = 20_000
"""Candidates of one page whose footprints are compared; then the page ends early, with a token."""
MAX_NEAR: Final = 1_000
"""Scenes of an area that are found first and then sorted; where more touch it, the order is walked instead. Sorting
1000 reads as much as a walk for ten hits among a million scenes."""
MODEL_FIELDS: Final = frozenset({"cloudseg:model_version", "cloudseg:weights_id"})
"""A filter that names one of them says itself whose masks it wants."""
PUBLISHED: Final = and_(NotByIndex(t.scene.c.publishable), t.scene.c.footprint_wkb.is_not(None))
"""The condition that a scene is shown; nearly all are."""
_FEW: Final = frozenset({"id", "cloudseg:scene_id", "cloudseg:place"})
"""A filter that names one of them leaves few rows, and finds them by an index."""
_NOBODY: Final = ""
"""The id of no weights: readers see no mask yet."""
_BATCH: Final = 200
_NULLS: Final[dict[str, tuple[Any, Any]]] = {
    # What stands for a missing value: greater than every value in ascending order, smaller in descending order.
    "number": (1e300, -1e300),
    "time": (datetime(9999, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)),
    "text": ("\uffff", ""),
}


@dataclass(frozen=True)
class SortKey:
    """A field to sort by."""

    name: str
    descending: bool = False


NEWEST_FIRST: Final = (SortKey("datetime", descending=True),)
OLDEST_FIRST: Final = (SortKey("datetime"),)


@dataclass(frozen=True)
class Query:
    """What to search for; every condition must hold."""

    kinds: tuple[Kind, ...] = KINDS
    ids: tuple[str, ...] | None = None
    area: BaseGeometry | None = None
    """Lon/lat, within [-180, 180]: `area_of_box` splits a box at the antimeridian."""
    bounds_only: bool = False
    """Compare the bounds of scenes with those of the area, not the footprints, which are simplified."""
    since: datetime | None = None
    until: datetime | None = None
    """Inclusive, as in STAC. An undated scene was acquired at some time before it was ingested."""
    undated: bool = True
    """Find undated scenes too."""
    scene_ids: tuple[str, ...] | None = None
    """Masks of these scenes."""
    weights_id: str | None = None
    """Masks by these weights. None: those that readers see, unless `ids` or `where` say which."""
    any_model: bool = False
    """Where nothing says which masks: all of them, not those that readers see."""
    as_of: datetime | None = None
    """Only what was stored at this moment, and whose masks readers saw then; None: now."""
    where: Any = None
    """A filter in CQL2 JSON over `fields_of`."""
    sort: tuple[SortKey, ...] = NEWEST_FIRST


@dataclass(frozen=True)
class Found:
    """A row of a page: a scene, or a mask with its scene and the weights that made it."""

    kind: Kind
    scene: Scene
    mask: Mask | None = None
    weights: Weights | None = None

    @property
    def id(self) -> str:
        """Id of the mask or of the scene."""
        return self.mask.mask_id if self.mask else self.scene.scene_id


@dataclass(frozen=True)
class Page:
    """Rows of a search, and where the next page begins (None: there is none)."""

    rows: list[Found] = field(default_factory=list)
    token: str | None = None


class Available(NamedTuple):
    """How many masks there are, and between which acquisitions."""

    masks: int
    first: datetime | None
    last: datetime | None


@dataclass(frozen=True)
class _Candidate:
    kind: Kind
    id: str
    values: tuple[Any, ...]
    footprint: bytes | None
    fits: bool = True
    """Whether the geometries of the filter fit, which the database does not compare."""


_Position = tuple[int, _Candidate]
"""A row and the part of the order that it is in."""


def search(db: Connection, query: Query, *, limit: int = 10, token: str | None = None) -> Page:
    """Return a page of what a query finds, sorted, undated scenes last where the order is by time.

    Args:
        db: a transaction that reads.
        query: what to search for.
        limit: rows of the page, at most `MAX_LIMIT`.
        token: of the page before.

    Raises:
        InputError: the filter, the order or the token is unusable, or the query is too large.
    """
    _check(query)
    limit = max(1, min(limit, MAX_LIMIT))
    after = read_token(token, _order_of(query), _types_of(query)) if token else None
    query = _narrowed(db, _settled(db, query, after.model if after else None), most=MAX_NEAR)
    hits: list[_Position] = []
    compares = query.area is not None and not query.bounds_only
    if compares:
        shapely.prepare(query.area)
    for compared, position in enumerate(_candidates(db, query, after, limit), start=1):
        if position[1].fits and (not compares or _touches(position[1], query.area)):
            if len(hits) == limit:
                return Page(_rows(db, hits), _token_of(query, hits[-1]))
            hits.append(position)
        if compared == MAX_COMPARED:
            return Page(_rows(db, hits), _token_of(query, position))
    return Page(_rows(db, hits))


def iter_found(catalog: Catalog, query: Query) -> Iterator[Found]:
    """Yield all that a query finds, sorted, page by page; no transaction is open while the caller works.

    If readers are switched meanwhile, all masks are by the model that they saw at the first page.

    Args:
        catalog: what to search.
        query: what to search for.

    Raises:
        InputError: the filter or the order is unusable, or the query is too large.
    """
    token: str | None = None
    while True:
        with catalog.read() as db:
            page = search(db, query, limit=MAX_LIMIT, token=token)
        yield from page.rows
        token = page.token
        if token is None:
            return


def count_masks(db: Connection, query: Query) -> Available:
    """Count the masks that a query finds; of an area only the bounds are compared."""
    _check(query)
    query = _settled(db, query, None)
    fields = fields_of("masks")
    condition = and_(*_conditions(query, "masks", fields, None))
    moment = t.scene.c.acquired_at
    figures = select(func.count(), func.min(moment), func.max(moment))
    return Available(*db.execute(figures.select_from(_source(query, "masks")).where(condition)).one())


def load_rows(db: Connection, kind: Kind, ids: Sequence[str], as_of: datetime | None = None) -> list[Found]:
    """Return the rows of published masks or scenes by id, in this order; those that are not there are left out.

    Args:
        db: a transaction that reads.
        kind: of the ids.
        ids: at most a few hundred.
        as_of: leave out what was stored later.
    """
    found = _rows(db, [(0, _Candidate(kind, item_id, (), None)) for item_id in ids])
    return [row for row in found if as_of is None or (row.mask or row.scene).created_at <= as_of]


def newest_of_each_place(
    db: Connection,
    area: BaseGeometry,
    *,
    since: datetime | None,
    until: datetime | None,
    version: int | None,
    limit: int,
    as_of: datetime | None = None,
) -> list[Found]:
    """Return the newest mask of each place in an area and a time range, newest first.

    Args:
        db: a transaction that reads.
        area: lon/lat, within [-180, 180].
        since: first acquisition, None for no limit.
        until: last acquisition, None for no limit.
        version: only masks of this model version; None: those that readers see.
        limit: number of places.
        as_of: what readers saw at this moment; None: now.
    """
    where = None if version is None else {"op": "=", "args": [{"property": "cloudseg:model_version"}, version]}
    query = Query(("masks",), area=area, since=since, until=until, as_of=as_of, where=where)
    _check(query)
    # Few places and many dates would walk every date of the world.
    query = _narrowed(db, _settled(db, query, None), most=MAX_COMPARED)
    shapely.prepare(area)
    chosen: dict[str, _Position] = {}
    positions = itertools.islice(_candidates(db, query, None, _BATCH), MAX_COMPARED)
    while batch := list(itertools.islice(positions, _BATCH)):
        touching = [position for position in batch if _touches(position[1], area)]
        places = _places(db, [candidate.id for _, candidate in touching])
        for position in touching:
            chosen.setdefault(places[position[1].id], position)
        if len(chosen) >= limit:
            break
    return _rows(db, list(chosen.values())[:limit])


def fields_of(kind: Kind) -> Fields:
    """Return the fields that a filter and an order may name, of masks or of scenes."""
    scene = t.scene.c
    common = {
        "datetime": Field("time", scene.acquired_at, nullable=True),
        "cloudseg:place": Field("text", scene.place),
        "cloudseg:sensor": Field("text", scene.sensor),
        "gsd": Field("number", scene.resolution_m, nullable=True),
        "collection": Field("text", literal(kind)),
        "geometry": Field("geometry", scene.footprint_wkb, overlaps=_overlaps_area),
    }
    if kind == "scenes":
        return {
            "id": Field("text", scene.scene_id),
            "created": Field("time", scene.created_at),
            "cloudseg:scene_id": Field("text", scene.scene_id),
            "cloudseg:valid_fraction": Field("number", scene.valid_fraction),
            **{name: Field("number", _nothing(Double()), nullable=True) for name in _OF_MASKS_NUMBERS},
            **{name: Field("text", _nothing(t.scene.c.place.type), nullable=True) for name in _OF_MASKS_TEXTS},
            **common,
        }
    mask = t.mask.c
    return {
        "id": Field("text", mask.mask_id),
        "created": Field("time", mask.created_at),
        "cloudseg:scene_id": Field("text", mask.scene_id),
        "cloudseg:valid_fraction": Field("number", mask.valid_fraction),
        "eo:cloud_cover": Field("number", CLOUD_COVER),
        "cloudseg:model_version": Field("number", t.weights.c.version),
        "cloudseg:weights_id": Field("text", mask.weights_id),
        **common,
    }


_OF_MASKS_NUMBERS: Final = ("eo:cloud_cover", "cloudseg:model_version")
_OF_MASKS_TEXTS: Final = ("cloudseg:weights_id",)


CLOUD_COVER: Final[ColumnElement[float]] = literal_column(
    "CAST(ROUND(CAST(100 * mask.cloud_fraction AS NUMERIC), 4) AS DOUBLE PRECISION)", Double()
)
"""Percent with four decimals, as STAC items hold it: the expression of the indexes of migration 0008, word for word."""


def _nothing(of: Any) -> ColumnElement[Any]:
    """Return NULL of a type: a scene has no value in the fields of masks."""
    return cast(None, of)


def _check(query: Query) -> None:
    if query.ids is not None and len(query.ids) > MAX_IDS:
        raise InputError("too many ids", subject="ids", found=len(query.ids), expected=f"at most {MAX_IDS}")
    if len(query.sort) > MAX_SORT:
        raise InputError("too many fields", subject="sortby", found=len(query.sort), expected=f"at most {MAX_SORT}")
    known = {name: found for name, found in fields_of("masks").items() if found.type != "geometry"}
    for key in query.sort:
        if key.name not in known:
            raise InputError(
                "cannot sort by this field", subject="sortby", found=key.name[:60], expected=", ".join(sorted(known))
            )
    if query.area is not None:
        check_vertices(shapely.get_num_coordinates(query.area), "intersects")


def _settled(db: Connection, query: Query, model: str | None) -> Query:
    """Return the query with the weights whose masks it means, where it means those that readers see.

    Args:
        db: a transaction that reads.
        query: what to search for.
        model: the weights that a page before settled on; None: there is none.
    """
    says_itself = query.any_model or query.weights_id is not None or query.ids is not None
    if says_itself or "masks" not in query.kinds or not MODEL_FIELDS.isdisjoint(_properties(query.where)):
        return query
    return replace(query, weights_id=model or reader_rows.find_shown(db, query.as_of) or _NOBODY)


def _narrowed(db: Connection, query: Query, *, most: int) -> Query:
    """Return the query with the scenes that touch its area, unless there are more than `most` of them."""
    if query.area is None or query.scene_ids is not None or query.ids is not None:
        return query
    near = find_near(db, _boxes(query.area), most=most)
    return query if near is None else replace(query, scene_ids=tuple(near))


def _properties(node: Any) -> Iterator[str]:
    """Yield the names of the fields of a filter in CQL2 JSON."""
    if isinstance(node, dict):
        name = node.get("property")
        if isinstance(name, str):
            yield name.removeprefix("properties.")
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _properties(part)


# --- statements -------------------------------------------------------------------------------------------------------


def _candidates(db: Connection, query: Query, after: PageToken | None, limit: int) -> Iterator[_Position]:
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


def _order(sort: tuple[SortKey, ...], one: _Candidate, other: _Candidate) -> int:
    for key, a, b in zip(sort, one.values, other.values, strict=True):
        if a != b:
            return (1 if a > b else -1) * (-1 if key.descending else 1)
    return (one.id > other.id) - (one.id < other.id)


def _stream(
    db: Connection, query: Query, kind: Kind, dated: bool | None, start: tuple[Any, ...] | None, batch: int
) -> Iterator[_Candidate]:
    """Yield the rows of one table, in batches that each begin after the last row of the one before."""
    fields, source = fields_of(kind), _source(query, kind)
    keys = [_sorted_by(fields[key.name], key, sure=dated is not None and i == 0) for i, key in enumerate(query.sort)]
    if dated is False:
        keys[0] = literal(_NULLS["time"][query.sort[0].descending], t.Utc)
    names = [f"key{i}" for i in range(len(keys))]
    condition = and_(*_conditions(query, kind, fields, dated))
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
            yield _Candidate(kind, row.id, values, footprint, fits)
        if len(rows) < batch:
            return
        start = (*(rows[-1]._mapping[name] for name in names), rows[-1].id)
        batch = min(2 * batch, 10 * _BATCH)


def _source(query: Query, kind: Kind) -> FromClause:
    """Return the tables that a search reads; the weights only where their version is asked for."""
    if kind == "scenes":
        return t.scene
    # A walk through the times of scenes, with their masks looked up; otherwise SQLite sorts all masks.
    scene_id = NotByIndex(t.scene.c.scene_id) if _walks_times(query) else t.scene.c.scene_id
    source = t.mask.join(t.scene, scene_id == t.mask.c.scene_id)
    names = {key.name for key in query.sort} | set(_properties(query.where))
    if "cloudseg:model_version" not in names:
        return source
    return source.join(t.weights, t.weights.c.weights_id == t.mask.c.weights_id)


def _walks_times(query: Query) -> bool:
    """Return whether a search reads scenes in the order of their times until its page is full."""
    by_time = bool(query.sort) and query.sort[0].name == "datetime"
    return by_time and query.ids is None and query.scene_ids is None and _FEW.isdisjoint(_properties(query.where))


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


def _conditions(query: Query, kind: Kind, fields: Fields, dated: bool | None) -> Iterator[ColumnElement[bool]]:
    yield PUBLISHED
    if query.ids is not None:
        yield fields["id"].column.in_(query.ids) if query.ids else false()
    if kind == "masks":
        yield from _of_model(query)
        if query.ids is None:  # variants of a mask are found by their id only
            yield ~t.mask.c.is_variant
    if query.scene_ids is not None:
        yield t.scene.c.scene_id.in_(query.scene_ids) if query.scene_ids else false()
    if query.as_of is not None:
        yield fields["created"].column <= query.as_of
    if query.where is not None:
        yield build_condition(query.where, fields)
    if query.area is not None:
        yield _overlaps_area(query.area)
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


def _boxes(area: BaseGeometry) -> list[Box]:
    """Return the bounds of the parts of an area, or one box where there are many."""
    parts = list(getattr(area, "geoms", [area]))
    return [tuple(part.bounds) for part in (parts if len(parts) <= 4 else [area]) if not part.is_empty]


def _overlaps_area(area: BaseGeometry) -> ColumnElement[bool]:
    """Return the condition that the bounds of a scene touch those of an area."""
    return or_(false(), *(_overlaps(box) for box in _boxes(area)))


def _overlaps(box: Box) -> ColumnElement[bool]:
    """Return the condition that the bounds of a scene touch a box that does not cross the antimeridian."""
    west, south, east, north = box
    scene = t.scene.c
    plain = and_(scene.min_lon <= east, scene.max_lon >= west)
    # A scene across 180° has max_lon < min_lon: it reaches from min_lon to 180 and from -180 to max_lon.
    across = and_(scene.max_lon < scene.min_lon, or_(scene.min_lon <= east, scene.max_lon >= west))
    return and_(scene.min_lat <= north, scene.max_lat >= south, or_(plain, across))


def _touches(candidate: _Candidate, area: BaseGeometry) -> bool:
    return candidate.footprint is not None and bool(area.intersects(shapely.from_wkb(candidate.footprint)))


def _places(db: Connection, mask_ids: list[str]) -> dict[str, str]:
    """Return the place of each mask."""
    of_masks = select(t.mask.c.mask_id, t.scene.c.place).join(t.scene, t.scene.c.scene_id == t.mask.c.scene_id)
    return {row.mask_id: row.place for row in db.execute(of_masks.where(t.mask.c.mask_id.in_(mask_ids)))}


def _rows(db: Connection, positions: list[_Position]) -> list[Found]:
    """Read the rows of candidates, in their order."""
    chosen = [candidate for _, candidate in positions]
    mask_ids = [candidate.id for candidate in chosen if candidate.kind == "masks"]
    masks = {mask.mask_id: mask for mask in fetch(db, Mask, select(t.mask).where(t.mask.c.mask_id.in_(mask_ids)))}
    scene_ids = {mask.scene_id for mask in masks.values()}
    scene_ids |= {candidate.id for candidate in chosen if candidate.kind == "scenes"}
    of_scenes = select(t.scene).where(t.scene.c.scene_id.in_(sorted(scene_ids)), PUBLISHED)
    scenes = {scene.scene_id: scene for scene in fetch(db, Scene, of_scenes)}
    weights_ids = sorted({mask.weights_id for mask in masks.values()})
    of_ids = select(t.weights).where(t.weights.c.weights_id.in_(weights_ids))
    weights = {found.weights_id: found for found in fetch(db, Weights, of_ids)}
    rows: list[Found] = []
    for candidate in chosen:
        mask = masks.get(candidate.id)
        scene = scenes.get(mask.scene_id if mask else candidate.id)
        if scene is not None:
            rows.append(Found(candidate.kind, scene, mask, weights[mask.weights_id] if mask else None))
    return rows


def _token_of(query: Query, last: _Position) -> str:
    part, row = last
    model = query.weights_id if "masks" in query.kinds else None
    return PageToken(part, model, (*row.values, row.id)).encode(_order_of(query))


def _order_of(query: Query) -> str:
    return ",".join(f"{'-' if key.descending else '+'}{key.name}" for key in query.sort)


def _types_of(query: Query) -> list[FieldType]:
    fields = fields_of("masks")
    return [fields[key.name].type for key in query.sort]
