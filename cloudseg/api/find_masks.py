"""Find published masks of this home for `open_masks`, and describe them as STAC items for odc-stac."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pystac
from pystac.extensions.projection import ProjectionExtension
from rasterio.crs import CRS
from shapely import from_wkb
from shapely.geometry import mapping
from sqlalchemy import ColumnElement, Select, and_, func, or_, select

from cloudseg.catalog import tables as t
from cloudseg.catalog.session import fetch
from cloudseg.errors import InputError
from cloudseg.records import Mask, Scene
from cloudseg.storage import Store

Box = tuple[float, float, float, float]
BAD_TIME: Final = "2024-05-01, 2024-05, 2024-05-01/2024-06-30, ../2024-06-30, or times like 2024-05-01T10:30:00Z"


@dataclass(frozen=True)
class Interval:
    """Times from `since` to before `until`; None: open."""

    since: datetime | None
    until: datetime | None


def parse_box(bbox: Sequence[float] | None) -> Box | None:
    """Return west, south, east, north in degrees; west may be greater than east, across 180°.

    Raises:
        InputError: it has not four numbers in range.
    """
    if bbox is None:
        return None
    numbers = [float(value) for value in bbox]
    if len(numbers) == 4:
        west, south, east, north = numbers
        if -180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and west != east:
            return west, south, east, north
    raise InputError(
        "not a bounding box", subject="bbox", found=list(bbox), expected="west, south, east, north in degrees"
    )


def parse_interval(text: str | None) -> Interval:
    """Return the interval that a text means, as in a STAC search: a date, a time, or two with a slash.

    Raises:
        InputError: it means none.
    """
    if text is None:
        return Interval(None, None)
    first, slash, last = str(text).partition("/")
    try:
        since = None if slash and first in ("", "..") else _span(first)[0]
        until = None if slash and last in ("", "..") else _span(last if slash else first)[1]
    except ValueError as error:
        raise InputError("not a date or interval", subject="datetime", found=text, expected=BAD_TIME) from error
    if since is not None and until is not None and until <= since:
        raise InputError("the interval ends before it begins", subject="datetime", found=text, expected=BAD_TIME)
    return Interval(since, until)


def _span(text: str) -> tuple[datetime, datetime]:
    """Return the beginning and the end of a year, month, day or second in UTC."""
    digits = text.split("-")
    if len(digits) == 1 and len(text) == 4:
        return datetime(int(text), 1, 1, tzinfo=UTC), datetime(int(text) + 1, 1, 1, tzinfo=UTC)
    if len(digits) == 2:
        year, month = map(int, digits)
        following = (year + 1, 1) if month == 12 else (year, month + 1)
        return datetime(year, month, 1, tzinfo=UTC), datetime(*following, 1, tzinfo=UTC)
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if len(text) == 10:
        return moment, datetime.fromordinal(moment.toordinal() + 1).replace(tzinfo=UTC)
    return moment, moment.replace(microsecond=0).fromtimestamp(int(moment.timestamp()) + 1, UTC)


def find_masks(
    db: Any, bbox: Box | None, interval: Interval, *, weights_id: str, limit: int
) -> list[tuple[Mask, Scene]]:
    """Return the masks of certain weights whose scene has a time and bounds there, oldest scene first.

    Args:
        db: a connection to the catalog.
        bbox: only scenes whose bounds touch it.
        interval: only scenes acquired in it.
        weights_id: whose masks.
        limit: most masks that are returned.
    """
    wanted = _select(bbox, interval, weights_id).order_by(t.scene.c.acquired_at, t.scene.c.scene_id).limit(limit)
    ids = [row.mask_id for row in db.execute(wanted)]
    masks = {mask.mask_id: mask for mask in _by_id(db, Mask, t.mask, "mask_id", ids)}
    scenes = {
        scene.scene_id: scene
        for scene in _by_id(db, Scene, t.scene, "scene_id", [mask.scene_id for mask in masks.values()])
    }
    return [(masks[mask_id], scenes[masks[mask_id].scene_id]) for mask_id in ids]


def _by_id(db: Any, kind: Any, table: Any, column: str, ids: Sequence[str]) -> list[Any]:
    page = 1000  # values in one statement; SQLite allows 32 766
    return [
        row
        for at in range(0, len(ids), page)
        for row in fetch(db, kind, select(table).where(table.c[column].in_(ids[at : at + page])))
    ]


def count_without_time(db: Any, bbox: Box | None, *, weights_id: str) -> int:
    """Return how many masks there have a scene without a time."""
    found = select(func.count()).select_from(
        select(t.mask.c.mask_id)
        .join(t.scene)
        .where(_of(weights_id), t.scene.c.acquired_at.is_(None), _touches(bbox))
        .subquery()
    )
    return int(db.execute(found).scalar_one())


def _select(bbox: Box | None, interval: Interval, weights_id: str) -> Select[Any]:
    s = t.scene.c
    times: list[ColumnElement[bool]] = [s.acquired_at.is_not(None)]
    times += [s.acquired_at >= interval.since] if interval.since is not None else []
    times += [s.acquired_at < interval.until] if interval.until is not None else []
    return select(t.mask.c.mask_id).join(t.scene).where(_of(weights_id), *times, _touches(bbox))


def _of(weights_id: str) -> Any:
    """Return the condition that a mask is the one that these weights have of its scene, no variant."""
    return and_(t.mask.c.weights_id == weights_id, ~t.mask.c.is_variant)


def _touches(bbox: Box | None) -> Any:
    """Return the condition that the bounds of a scene touch the box; either may cross 180°, then west > east."""
    s = t.scene.c
    if bbox is None:
        return s.min_lon.is_not(None)
    west, south, east, north = bbox
    if west <= east:
        lon = or_(
            and_(s.min_lon <= s.max_lon, s.min_lon <= east, s.max_lon >= west),
            and_(s.min_lon > s.max_lon, or_(s.min_lon <= east, s.max_lon >= west)),
        )
    else:
        lon = or_(s.min_lon > s.max_lon, s.max_lon >= west, s.min_lon <= east)
    return and_(lon, s.min_lat <= north, s.max_lat >= south)


def mask_items(found: Sequence[tuple[Mask, Scene]], store: Store) -> list[pystac.Item]:
    """Return what odc-stac needs to know about masks: time, grid, and absolute paths by which GDAL opens the files."""
    items = []
    for mask, scene in found:
        item = pystac.Item(
            id=mask.mask_id,
            geometry=mapping(from_wkb(scene.footprint_wkb)),
            bbox=[float(value or 0) for value in (scene.min_lon, scene.min_lat, scene.max_lon, scene.max_lat)],
            datetime=scene.acquired_at,
            properties={"platform": scene.sensor, "cloudseg:scene_id": scene.scene_id},
        )
        code = ":".join(CRS.from_user_input(scene.crs).to_authority() or ())
        a, b, c, d, e, f = scene.transform
        ProjectionExtension.ext(item, add_if_missing=True).apply(
            code=code or None,
            wkt2=None if code else CRS.from_user_input(scene.crs).to_wkt(version="WKT2_2019"),
            shape=[scene.height, scene.width],
            transform=[a, b, c, d, e, f, 0.0, 0.0, 1.0],
        )
        for name, key in (("mask", mask.key), ("probability", mask.companions["probability"]["key"])):
            item.add_asset(name, pystac.Asset(str(store.gdal_path(key)), media_type=pystac.MediaType.COG))
        items.append(item)
    return items
