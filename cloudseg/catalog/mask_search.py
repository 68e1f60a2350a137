"""Search of masks and scenes by place, time, ids and properties, in pages: the one way in which masks are found.

Only what the STAC catalog shows is found: scenes that may be published and whose place is known, and their masks.

Whose masks: those that readers see, now or at a moment (`as_of`; `reader_rows`, docs/decisions/0031). A search that
says itself which masks it wants, by ids, by weights or by a filter that names the model, gets those.

The answers are the same on SQLite, PostgreSQL and PostGIS: the database compares the bounds of scenes, times and
properties, and footprints are compared here. A page ends with a token that holds the position of its last row (keyset
pagination): the thousandth page costs as much as the first, and rows that are added meanwhile neither repeat nor hide
others.

`mask_query` has the words of a query, `mask_statements` the statements.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import shapely
from shapely.geometry.base import BaseGeometry
from sqlalchemy import Connection, and_, func, select, text

from cloudseg.catalog import reader_rows
from cloudseg.catalog import tables as t
from cloudseg.catalog.mask_query import (
    MAX_LIMIT,
    MODEL_FIELDS,
    PUBLISHED,
    Available,
    Found,
    Kind,
    Page,
    Query,
    check_query,
    fields_of,
    order_of,
    properties_of,
    types_of,
)
from cloudseg.catalog.mask_statements import (
    BATCH,
    Candidate,
    Position,
    conditions_of,
    iter_candidates,
    tables_of,
    touches,
)
from cloudseg.catalog.page_token import PageToken, read_token
from cloudseg.catalog.scene_box import find_near
from cloudseg.catalog.scene_search import find_scenes_such, find_scenes_without_mask
from cloudseg.catalog.search_area import boxes_of
from cloudseg.catalog.session import Catalog, fetch
from cloudseg.records import Mask, Scene, Weights

MAX_COMPARED: Final = 20_000
"""Candidates of one page whose footprints are compared; then the page ends early, with a token."""
MAX_NEAR: Final = 1_000
"""Scenes of an area that are found first and then sorted; where more touch it, the order is walked instead. Sorting
1000 reads as much as a walk for ten hits among a million scenes."""
_NOBODY: Final = ""
"""The id of no weights: readers see no mask yet."""


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
    check_query(query)
    limit = max(1, min(limit, MAX_LIMIT))
    after = read_token(token, order_of(query), types_of(query)) if token else None
    query = _narrowed(db, _settled(db, query, after.model if after else None), most=MAX_NEAR)
    hits: list[Position] = []
    compares = query.area is not None and not query.bounds_only
    if compares:
        shapely.prepare(query.area)
    for compared, position in enumerate(iter_candidates(db, query, after, limit), start=1):
        if position[1].fits and (not compares or touches(position[1], query.area)):
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
    check_query(query)
    query = _settled(db, query, None)
    fields = fields_of("masks")
    condition = and_(*conditions_of(query, "masks", fields, None))
    moment = t.scene.c.acquired_at
    figures = select(func.count(), func.min(moment), func.max(moment))
    return Available(*db.execute(figures.select_from(tables_of(query, "masks")).where(condition)).one())


def count_every_mask(db: Connection) -> int:
    """Count the masks that a search without conditions finds, of every model."""
    # SQLite reads the partial index `ix_mask_main` for exactly this condition.
    return db.execute(select(func.count()).select_from(t.mask).where(text("NOT mask.is_variant"))).scalar_one()


def load_rows(db: Connection, kind: Kind, ids: Sequence[str], as_of: datetime | None = None) -> list[Found]:
    """Return the rows of published masks or scenes by id, in this order; those that are not there are left out.

    Args:
        db: a transaction that reads.
        kind: of the ids.
        ids: at most a few hundred.
        as_of: leave out what was stored later.
    """
    found = _rows(db, [(0, Candidate(kind, item_id, (), None)) for item_id in ids])
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
    check_query(query)
    # Few places and many dates would walk every date of the world.
    query = _narrowed(db, _settled(db, query, None), most=MAX_COMPARED)
    shapely.prepare(area)
    chosen: dict[str, Position] = {}
    positions = itertools.islice(iter_candidates(db, query, None, BATCH), MAX_COMPARED)
    while batch := list(itertools.islice(positions, BATCH)):
        touching = [position for position in batch if touches(position[1], area)]
        places = _places(db, [candidate.id for _, candidate in touching])
        for position in touching:
            chosen.setdefault(places[position[1].id], position)
        if len(chosen) >= limit:
            break
    return _rows(db, list(chosen.values())[:limit])


def _settled(db: Connection, query: Query, model: str | None) -> Query:
    """Return the query with the weights whose masks it means, where it means those that readers see.

    Args:
        db: a transaction that reads.
        query: what to search for.
        model: the weights that a page before settled on; None: there is none.
    """
    says_itself = query.any_model or query.weights_id is not None or query.ids is not None
    if says_itself or "masks" not in query.kinds or not MODEL_FIELDS.isdisjoint(properties_of(query.where)):
        return query
    return replace(query, weights_id=model or reader_rows.find_shown(db, query.as_of) or _NOBODY)


def _narrowed(db: Connection, query: Query, *, most: int) -> Query:
    """Return the query with the scenes that one of its conditions leaves, unless each leaves more than `most`."""
    if query.scene_ids is not None or query.ids is not None:
        return query
    found = None if query.area is None else find_near(db, boxes_of(query.area), most=most)
    for wanted, column in ((query.name, t.scene.c.name), (query.place, t.scene.c.place)):
        if found is None and wanted is not None:
            found = find_scenes_such(db, column, wanted, most=most)
    if found is None and query.without_mask_of is not None:
        found = find_scenes_without_mask(db, query.without_mask_of, most=most)
    return query if found is None else replace(query, scene_ids=tuple(found))


def _places(db: Connection, mask_ids: list[str]) -> dict[str, str]:
    """Return the place of each mask."""
    of_masks = select(t.mask.c.mask_id, t.scene.c.place).join(t.scene, t.scene.c.scene_id == t.mask.c.scene_id)
    return {row.mask_id: row.place for row in db.execute(of_masks.where(t.mask.c.mask_id.in_(mask_ids)))}


def _rows(db: Connection, positions: list[Position]) -> list[Found]:
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


def _token_of(query: Query, last: Position) -> str:
    part, row = last
    model = query.weights_id if "masks" in query.kinds else None
    return PageToken(part, model, (*row.values, row.id)).encode(order_of(query))
