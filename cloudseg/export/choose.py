"""Which masks are exported: by id, or by scene, place, time and model."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from cloudseg.catalog import Catalog, model_rows
from cloudseg.catalog.item_filter import MAX_VALUES
from cloudseg.catalog.mask_search import MAX_IDS, MAX_LIMIT, Found, Query, area_of_box, search
from cloudseg.catalog.scene_search import find_scene, find_scenes_by_name
from cloudseg.errors import InputError, NotInCatalog

_PERIOD: Final = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?")
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class Selection:
    """What is asked for; all conditions must hold. Without any, every mask of the champion."""

    mask_ids: Sequence[str] = ()
    scenes: Sequence[str] = ()
    """Names or ids of scenes."""
    bbox: Sequence[float] | None = None
    """West, south, east, north in degrees; west > east crosses the antimeridian. Footprints that touch it count."""
    interval: str | None = None
    """A time, a year, month or day, or two of them with a slash between them; `..` leaves one side open."""
    weights_id: str | None = None
    """Whose masks; by default the champion's, and any where mask ids are given."""


def iter_chosen(catalog: Catalog, selection: Selection) -> Iterator[Found]:
    """Yield the masks that a selection asks for, each with its scene and its weights, page by page.

    Raises:
        InputError: a condition cannot be read.
        NotInCatalog: a mask, a scene or the weights are unknown, or there is no champion.
    """
    with catalog.read() as db:
        queries = _queries(db, selection)
    for query in queries:
        token: str | None = None
        while True:
            with catalog.read() as db:  # closed before the caller works on the rows, which may take hours
                page = search(db, query, limit=MAX_LIMIT, token=token)
            yield from page.rows
            token = page.token
            if token is None:
                break


def parse_interval(text: str | None) -> tuple[datetime | None, datetime | None]:
    """Return the first and the last moment of an interval, both inclusive; None where it is open.

    The forms are those of STAC's parameter `datetime`, and those that pystac-client adds: `2024`, `2024-05` and
    `2024-05-01` are the whole year, month and day (UTC).

    Raises:
        InputError: it cannot be read, or ends before it begins.
    """
    if text is None:
        return None, None
    parts = text.split("/")
    try:
        if len(parts) > 2:
            raise ValueError(text)
        periods = [None if part in ("..", "") else _period(part) for part in parts]
        if not any(periods):
            raise ValueError(text)
    except ValueError as error:
        raise InputError(
            "not a time or an interval",
            subject="datetime",
            found=text[:80],
            expected="such as 2024-05, 2024-05-01/2024-06-30 or 2024-05-01T10:00:00Z/..",
        ) from error
    since, until = periods[0] and periods[0][0], periods[-1] and periods[-1][1]
    if since is not None and until is not None and until < since:
        raise InputError("the interval ends before it begins", subject="datetime", found=text[:80])
    return since, until


def _period(text: str) -> tuple[datetime, datetime]:
    found = _PERIOD.fullmatch(text)
    if found is None:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return moment, moment
    year, month, day = (int(part) if part else None for part in found.groups())
    start = datetime(year or 1, month or 1, day or 1, tzinfo=UTC)
    if day is not None:
        end = start + timedelta(days=1)
    elif month is not None:
        end = datetime(start.year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    else:
        end = datetime(start.year + 1, 1, 1, tzinfo=UTC)
    return start, end - _MICROSECOND


def _queries(db: Connection, selection: Selection) -> list[Query]:
    """Return the searches that make up a selection: several where many ids or scenes are given."""
    since, until = parse_interval(selection.interval)
    area = None if selection.bbox is None else area_of_box(selection.bbox)
    for mask_id in selection.mask_ids:
        model_rows.get_mask(db, mask_id)
    weights_id = _weights_id(db, selection)
    return [
        Query(("masks",), ids=ids, area=area, since=since, until=until, where=_where(weights_id, scene_ids))
        for ids in _groups(selection.mask_ids, MAX_IDS)
        for scene_ids in _groups(_scene_ids(db, selection.scenes), MAX_VALUES)
    ]


def _groups(values: Sequence[str], size: int) -> list[tuple[str, ...] | None]:
    """Return the values, each once, in groups; one group of None where there is no value."""
    once = tuple(dict.fromkeys(values))
    return [once[at : at + size] for at in range(0, len(once), size)] or [None]


def _where(weights_id: str | None, scene_ids: Sequence[str] | None) -> Any:
    """Return a filter in CQL2 JSON, None if nothing is filtered."""
    conditions: list[Any] = []
    if weights_id is not None:
        conditions.append({"op": "=", "args": [{"property": "cloudseg:weights_id"}, weights_id]})
    if scene_ids is not None:
        conditions.append({"op": "in", "args": [{"property": "cloudseg:scene_id"}, list(scene_ids)]})
    return {"op": "and", "args": conditions} if len(conditions) > 1 else next(iter(conditions), None)


def _weights_id(db: Connection, selection: Selection) -> str | None:
    if selection.weights_id is not None:
        return model_rows.get_weights(db, selection.weights_id).weights_id
    if selection.mask_ids:
        return None
    champion = model_rows.find_champion(db)
    if champion is None:
        raise NotInCatalog(
            "there is no champion yet",
            subject="champion",
            next_step="Name weights with --weights, or masks with --mask.",
        )
    return champion.weights_id


def _scene_ids(db: Connection, names: Sequence[str]) -> list[str]:
    found: dict[str, None] = {}
    for name in names:
        scenes = [scene] if (scene := find_scene(db, name)) else find_scenes_by_name(db, [name])
        if not scenes:
            raise NotInCatalog(
                "no scene has this name or id", subject=name, next_step="`cloudseg scenes` lists the scenes."
            )
        found.update((scene.scene_id, None) for scene in scenes)
    return list(found)
