"""Which masks are exported: by id, or by scene, place, time and model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from cloudseg.catalog import Catalog, names, reader_rows
from cloudseg.catalog.mask_query import MAX_IDS, Found, Query
from cloudseg.catalog.mask_search import iter_found
from cloudseg.catalog.search_area import area_of_box
from cloudseg.catalog.times import parse_interval, parse_moment


@dataclass(frozen=True)
class Selection:
    """What is asked for; all conditions must hold. Without any, every mask that readers see."""

    mask_ids: Sequence[str] = ()
    scenes: Sequence[str] = ()
    """Names or ids of scenes."""
    bbox: Sequence[float] | None = None
    """West, south, east, north in degrees; west > east crosses the antimeridian. Footprints that touch it count."""
    interval: str | None = None
    """A time, a year, month or day, or two of them with a slash between them; `..` leaves one side open."""
    weights_id: str | None = None
    """Whose masks; by default those that readers see, and any where mask ids are given."""
    as_of: str | None = None
    """What readers saw at this moment (ISO 8601 with zone); None is now."""


def iter_chosen(catalog: Catalog, selection: Selection) -> Iterator[Found]:
    """Yield the masks that a selection asks for, each with its scene and its weights, page by page.

    Raises:
        InputError: a condition cannot be read.
        NotInCatalog: a mask, a scene or the weights are unknown, or readers see no masks yet.
    """
    with catalog.read() as db:
        queries = _queries(db, selection)
    for query in queries:
        yield from iter_found(catalog, query)


def _queries(db: Connection, selection: Selection) -> list[Query]:
    """Return the searches that make up a selection: several where many ids or scenes are given."""
    since, until = parse_interval(selection.interval) if selection.interval is not None else (None, None)
    as_of = parse_moment(selection.as_of, "as_of") if selection.as_of is not None else None
    area = None if selection.bbox is None else area_of_box(selection.bbox)
    mask_ids = [names.get_id(db, "mask", name) for name in selection.mask_ids]
    everything = Query(
        ("masks",), area=area, since=since, until=until, as_of=as_of, weights_id=_weights_id(db, selection, as_of)
    )
    return [
        replace(everything, ids=ids, scene_ids=scene_ids)
        for ids in _groups(mask_ids, MAX_IDS)
        for scene_ids in _groups(_scene_ids(db, selection.scenes), MAX_IDS)
    ]


def _groups(values: Sequence[str], size: int) -> list[tuple[str, ...] | None]:
    """Return the values, each once, in groups; one group of None where there is no value."""
    once = tuple(dict.fromkeys(values))
    return [once[at : at + size] for at in range(0, len(once), size)] or [None]


def _weights_id(db: Connection, selection: Selection, as_of: datetime | None) -> str | None:
    if selection.weights_id is not None:
        return names.get_id(db, "weights", selection.weights_id)
    return None if selection.mask_ids else reader_rows.get_shown(db, as_of)


def _scene_ids(db: Connection, scenes: Sequence[str]) -> list[str]:
    return [scene_id for scene in scenes for scene_id in names.list_ids(db, "scene", scene)]
