"""Search of models and snapshots, which are few: they come after the scenes and masks of a search, newest first.

The database filters and sorts them. Their geometries and times follow from the scenes that they were trained on, so
items are made and compared one by one.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import shapely
from shapely.geometry import shape
from sqlalchemy import Connection, cast, literal, select, true

from cloudseg.catalog import mask_query as mq
from cloudseg.catalog import stac_rows
from cloudseg.catalog import tables as t
from cloudseg.catalog.item_filter import Field, Fields, Filter, build_filter, parse_time
from cloudseg.errors import InputError
from cloudseg.records import Json
from cloudseg.serve.context import ApiSite
from cloudseg.stac.static import documents

Kind = Literal["models", "snapshots"]
KINDS: Final[tuple[Kind, ...]] = ("models", "snapshots")
MAX_SEARCHED: Final = 2_000
"""Models or snapshots that are searched, newest first."""
_TOKEN: Final = "few"  # noqa: S105 - begins the token of a page
_SORTED: Final = ("id", "created", "collection")
"""The fields that they have; the others are missing, and what is missing is equal."""


def kinds_of(collections: Sequence[str] | None) -> tuple[Kind, ...]:
    """Return which of them a search means."""
    return KINDS if collections is None else tuple(kind for kind in KINDS if kind in collections)


def start_of(token: str | None) -> int | None:
    """Return where a page begins, None if the token is not of such a page.

    Raises:
        InputError: it looks like one, but is none.
    """
    kind, dash, number = (token or "").partition("-")
    if kind != _TOKEN or not dash:
        return None
    if not (number.isascii() and number.isdecimal()) or len(number) > 6:
        raise InputError("not a token of this search", subject="token", found=str(token)[:60])
    return int(number)


def search_few(
    db: Connection, site: ApiSite, kinds: Sequence[Kind], query: mq.Query, *, limit: int, start: int
) -> tuple[list[Json], str | None]:
    """Return a page of items, and the token of the next page.

    Args:
        db: a transaction that reads.
        site: where the items are.
        kinds: what to search.
        query: what to search for; its own kinds are passed over.
        limit: items of the page; 0: only ask whether there is a next page.
        start: how many items come before it.

    Raises:
        InputError: the filter or the order is unusable.
    """
    found = itertools.chain.from_iterable(_items(db, site, kind, query) for kind in kinds)
    page = list(itertools.islice(found, start, start + limit + 1))
    return page[:limit], f"{_TOKEN}-{start + limit}" if len(page) > limit else None


def _items(db: Connection, site: ApiSite, kind: Kind, query: mq.Query) -> Iterator[Json]:
    table = t.weights if kind == "models" else t.snapshot
    (key,) = table.primary_key.columns
    fields = _fields_of(kind, key, table.c.created_at)
    where = build_filter(query.where, fields) if query.where is not None else None
    statement = select(key.label("id"), *(where.columns if where else []))
    if where is not None:
        statement = statement.where(where.condition)
    if query.ids is not None:
        statement = statement.where(key.in_(query.ids))
    if query.as_of is not None:
        statement = statement.where(table.c.created_at <= query.as_of)
    for wanted in query.sort:
        if wanted.name in _SORTED:
            column = fields[wanted.name].column
            statement = statement.order_by(column.desc() if wanted.descending else column.asc())
        elif wanted.name not in fields:
            raise InputError("cannot sort by this field", subject="sortby", found=wanted.name[:60])
    rows = db.execute(statement.order_by(table.c.created_at.desc(), key).limit(MAX_SEARCHED)).mappings().all()
    for at in range(0, len(rows), stac_rows.PAGE):
        part = {str(row["id"]): row for row in rows[at : at + stac_rows.PAGE]}
        made = {item["id"]: item for item in documents(site, db, kind, list(part), query.as_of)}
        for item_id, row in part.items():
            if item_id in made and _fits(made[item_id], query, where, row):
                yield made[item_id]


def _fields_of(kind: Kind, key: Any, created: Any) -> Fields:
    """Return the fields of a filter; those of masks and scenes are missing."""
    missing = {
        name: Field(found.type, cast(None, found.column.type), nullable=True, overlaps=_anywhere)
        for name, found in mq.fields_of("scenes").items()
    }
    own = {"id": Field("text", key), "created": Field("time", created), "collection": Field("text", literal(kind))}
    return {**missing, **own}


def _anywhere(_: Any) -> Any:
    return true()


def _fits(item: Json, query: mq.Query, where: Filter | None, row: Any) -> bool:
    """Return whether an item is in the area and the time of a search, and the geometries of its filter fit."""
    properties = item["properties"]
    moment = properties.get("datetime")
    begins_at = parse_time(properties.get("start_datetime") or moment)
    ends_at = parse_time(properties.get("end_datetime") or moment)
    if (query.until and begins_at > query.until) or (query.since and ends_at < query.since):
        return False
    place = shape(item["geometry"]) if item.get("geometry") else None
    if where is not None and not where.holds(row, None if place is None else shapely.to_wkb(place)):
        return False
    return query.area is None or (place is not None and bool(query.area.intersects(place)))
