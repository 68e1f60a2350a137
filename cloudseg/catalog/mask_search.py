"""Search of masks and scenes by place, time, ids and properties, in pages.

Only what the STAC catalog shows is found: scenes that may be published and whose place is known, and their masks.

The answers are the same on SQLite, PostgreSQL and PostGIS: the database compares the bounds of scenes, times and
properties, and footprints are compared here. A page ends with a token that holds the position of its last row (keyset
pagination): the thousandth page costs as much as the first, and rows that are added meanwhile neither repeat nor hide
others.

The order by time walks the index (acquired_at, bounds); ids and weights have indexes of their own. Three questions read
every row that the rest of the query leaves, because no index fits: an order by cloud cover (it would be
(cloud_fraction, mask_id) on mask), an area without a time on SQLite (an R-tree of the bounds) and a filter by sensor.
"""

import base64
import binascii
import functools
import heapq
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import shapely
from shapely.geometry.base import BaseGeometry
from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    FromClause,
    Numeric,
    and_,
    cast,
    false,
    func,
    literal,
    or_,
    select,
    true,
)

from cloudseg.bands import FIRST_ACQUISITION
from cloudseg.catalog import tables as t
from cloudseg.catalog.item_filter import Field, Fields, build_condition, is_storable
from cloudseg.catalog.session import fetch
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
MAX_VERTICES: Final = 5_000
"""Vertices of a geometry to search by."""
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


@dataclass(frozen=True)
class Query:
    """What to search for; every condition must hold."""

    kinds: tuple[Kind, ...] = KINDS
    ids: tuple[str, ...] | None = None
    area: BaseGeometry | None = None
    """Lon/lat, within [-180, 180]: `area_of_box` splits a box at the antimeridian."""
    since: datetime | None = None
    until: datetime | None = None
    """Inclusive, as in STAC. An undated scene was acquired at some time before it was ingested."""
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


@dataclass(frozen=True)
class _Candidate:
    kind: Kind
    id: str
    values: tuple[Any, ...]
    footprint: bytes | None


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
    after = _Token.read(token, query) if token else None
    hits: list[_Position] = []
    if query.area is not None:
        shapely.prepare(query.area)
    for compared, position in enumerate(_candidates(db, query, after, limit), start=1):
        if query.area is None or _touches(position[1], query.area):
            if len(hits) == limit:
                return Page(_rows(db, hits), _Token.of(query, hits[-1]))
            hits.append(position)
        if compared == MAX_COMPARED:
            return Page(_rows(db, hits), _Token.of(query, position))
    return Page(_rows(db, hits))


def newest_of_each_place(
    db: Connection,
    area: BaseGeometry,
    *,
    since: datetime | None,
    until: datetime | None,
    version: int | None,
    limit: int,
) -> list[Found]:
    """Return the newest mask of each place in an area and a time range, newest first.

    Args:
        db: a transaction that reads.
        area: lon/lat, within [-180, 180].
        since: first acquisition, None for no limit.
        until: last acquisition, None for no limit.
        version: only masks of this model version; None: of several masks of a scene, that of the highest version.
        limit: number of places.
    """
    where = None if version is None else {"op": "=", "args": [{"property": "cloudseg:model_version"}, version]}
    order = (*NEWEST_FIRST, SortKey("cloudseg:model_version", descending=True))
    query = Query(("masks",), area=area, since=since, until=until, where=where, sort=order)
    _check(query)
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


def area_of_box(box: Sequence[float]) -> BaseGeometry:
    """Return a box `(west, south, east, north)` as a geometry; west > east crosses the antimeridian.

    Six numbers are a box with heights, which are ignored (RFC 7946 section 5).

    Raises:
        InputError: the numbers are not a box on the Earth.
    """
    numbers = [float(value) for value in box]
    if len(numbers) == 6:
        numbers = [numbers[0], numbers[1], numbers[3], numbers[4]]
    west, south, east, north = numbers if len(numbers) == 4 else (0.0, 1.0, 0.0, 0.0)
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise InputError(
            "not a box on the Earth",
            subject="bbox",
            found=", ".join(map(str, box))[:120],
            expected="west, south, east, north in degrees, south <= north",
        )
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.MultiPolygon([shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)])


def fields_of(kind: Kind) -> Fields:
    """Return the fields that a filter and an order may name, of masks or of scenes."""
    scene = t.scene.c
    common = {
        "datetime": Field("time", scene.acquired_at, nullable=True),
        "cloudseg:place": Field("text", scene.place),
        "cloudseg:sensor": Field("text", scene.sensor),
        "gsd": Field("number", scene.resolution_m, nullable=True),
        "collection": Field("text", literal(kind)),
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
        "eo:cloud_cover": Field("number", _percent(mask.cloud_fraction)),
        "cloudseg:model_version": Field("number", t.weights.c.version),
        "cloudseg:weights_id": Field("text", mask.weights_id),
        **common,
    }


_OF_MASKS_NUMBERS: Final = ("eo:cloud_cover", "cloudseg:model_version")
_OF_MASKS_TEXTS: Final = ("cloudseg:weights_id",)


def _nothing(of: Any) -> ColumnElement[Any]:
    """Return NULL of a type: a scene has no value in the fields of masks."""
    return cast(None, of)


def _percent(fraction: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a fraction as percent with four decimals, as STAC items hold it."""
    return cast(func.round(cast(100 * fraction, Numeric), 4), Double)


def _check(query: Query) -> None:
    if query.ids is not None and len(query.ids) > MAX_IDS:
        raise InputError("too many ids", subject="ids", found=len(query.ids), expected=f"at most {MAX_IDS}")
    if unusable := [each for each in query.ids or () if not is_storable(each)]:
        raise InputError("not an id", subject="ids", found=ascii(unusable[0])[:60])
    if len(query.sort) > MAX_SORT:
        raise InputError("too many fields", subject="sortby", found=len(query.sort), expected=f"at most {MAX_SORT}")
    known = fields_of("masks")
    for key in query.sort:
        if key.name not in known:
            raise InputError(
                "cannot sort by this field", subject="sortby", found=key.name[:60], expected=", ".join(sorted(known))
            )
    if query.area is not None and shapely.get_num_coordinates(query.area) > MAX_VERTICES:
        raise InputError(
            "the geometry is too detailed",
            subject="intersects",
            found=f"{shapely.get_num_coordinates(query.area)} vertices",
            expected=f"at most {MAX_VERTICES}",
            next_step="Simplify it.",
        )


# --- statements -------------------------------------------------------------------------------------------------------


def _candidates(db: Connection, query: Query, after: "_Token | None", limit: int) -> Iterator[_Position]:
    """Yield what the database finds, in order.

    An order by time has two parts, dated scenes and undated ones. Each walks an index; one statement for both would
    sort every row.
    """
    parts = (0, 1) if query.sort and query.sort[0].name == "datetime" else (0,)
    for part in parts:
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
    fields = fields_of(kind)
    if kind == "masks":
        source: FromClause = t.mask.join(t.scene, t.scene.c.scene_id == t.mask.c.scene_id)
        source = source.join(t.weights, t.weights.c.weights_id == t.mask.c.weights_id)
    else:
        source = t.scene
    keys = [_sorted_by(fields[key.name], key, sure=dated is not None and i == 0) for i, key in enumerate(query.sort)]
    if dated is False:
        keys[0] = literal(_NULLS["time"][query.sort[0].descending], t.Utc)
    names = [f"key{i}" for i in range(len(keys))]
    condition = and_(*_conditions(query, fields, dated))
    columns = [fields["id"].column.label("id"), *(key.label(name) for key, name in zip(keys, names, strict=True))]
    if query.area is not None:
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
            yield _Candidate(kind, row.id, values, row.footprint if query.area is not None else None)
        if len(rows) < batch:
            return
        start = (*(rows[-1]._mapping[name] for name in names), rows[-1].id)
        batch = min(2 * batch, 10 * _BATCH)


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


def _conditions(query: Query, fields: Fields, dated: bool | None) -> Iterator[ColumnElement[bool]]:
    yield and_(t.scene.c.publishable, t.scene.c.footprint_wkb.is_not(None))
    if query.ids is not None:
        yield fields["id"].column.in_(query.ids) if query.ids else false()
    if query.where is not None:
        yield build_condition(query.where, fields)
    if query.area is not None:
        yield or_(*(_overlaps(box) for box in _boxes(query.area)))
    yield _in_time(query, dated)


def _in_time(query: Query, dated: bool | None) -> ColumnElement[bool]:
    scene = t.scene.c
    after = [scene.acquired_at >= query.since] if query.since else []
    before = [scene.acquired_at <= query.until] if query.until else []
    of_dated = and_(scene.acquired_at.is_not(None), *after, *before)
    of_undated = and_(
        scene.acquired_at.is_(None),
        *([scene.created_at >= query.since] if query.since else []),
        *([false()] if query.until and query.until < FIRST_ACQUISITION else []),
    )
    if dated is not None:
        return of_dated if dated else of_undated
    return or_(of_dated, of_undated) if query.since or query.until else true()


def _boxes(area: BaseGeometry) -> list[Box]:
    """Return the bounds of the parts of an area, or one box where there are many."""
    parts = list(getattr(area, "geoms", [area]))
    return [tuple(part.bounds) for part in (parts if len(parts) <= 4 else [area]) if not part.is_empty]


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
    scenes = {
        scene.scene_id: scene
        for scene in fetch(db, Scene, select(t.scene).where(t.scene.c.scene_id.in_(sorted(scene_ids))))
    }
    weights_ids = sorted({mask.weights_id for mask in masks.values()})
    of_ids = select(t.weights).where(t.weights.c.weights_id.in_(weights_ids))
    weights = {found.weights_id: found for found in fetch(db, Weights, of_ids)}
    rows: list[Found] = []
    for candidate in chosen:
        if candidate.kind == "scenes":
            rows.append(Found("scenes", scenes[candidate.id]))
            continue
        mask = masks[candidate.id]
        rows.append(Found("masks", scenes[mask.scene_id], mask, weights[mask.weights_id]))
    return rows


# --- tokens -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Token:
    """The position of the last row of a page: its part, the values that it was sorted by, and its id."""

    part: int
    position: tuple[Any, ...]

    @staticmethod
    def of(query: Query, last_position: _Position) -> str:
        part, last = last_position
        values = [value.isoformat() if isinstance(value, datetime) else value for value in last.values]
        text = json.dumps([part, _names(query), *values, last.id], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def read(cls, token: str, query: Query) -> "_Token":
        """Return the position of a token.

        Raises:
            InputError: it was not made by a search in this order.
        """
        fields = fields_of("masks")
        try:
            if len(token) > 2000:
                raise ValueError("too long")
            part, names, *values, last_id = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            if names != _names(query) or part not in (0, 1) or not isinstance(last_id, str):
                raise ValueError("another order")
            position = [_checked(fields[key.name], value) for key, value in zip(query.sort, values, strict=True)]
        except (ValueError, TypeError, binascii.Error, RecursionError) as error:
            raise InputError(
                "not a token of this search",
                subject="token",
                found=token[:60],
                expected="the token of the page before, with the same order",
                next_step="Follow the link `next` of the page, or begin again without a token.",
            ) from error
        return cls(part, (*position, last_id))


def _checked(wanted: Field, value: Any) -> Any:
    """Return a value of a token as the type of its field.

    Raises:
        ValueError: it is of another type.
    """
    if wanted.type == "time":
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("a time without its zone")
        return moment
    expected = str if wanted.type == "text" else (int, float)
    if isinstance(value, bool) or not isinstance(value, expected):
        raise ValueError("another type")
    return value


def _names(query: Query) -> str:
    return ",".join(f"{'-' if key.descending else '+'}{key.name}" for key in query.sort)
