"""Which items are wanted: area, time, cloud cover and collections.

A server is asked for these items, and each item that it sends is compared again, because a static catalog filters
nothing and an API may ignore a filter that it does not know.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import shapely
from shapely.geometry import box, mapping, shape
from shapely.geometry.base import BaseGeometry

from cloudseg.errors import InputError
from cloudseg.ingest.products.sentinel2_metadata import parse_iso_time

Bounds = tuple[float, float, float, float]
"""West, south, east, north in degrees of EPSG:4326; west is greater than east across the antimeridian."""

_MAX_AOI_BYTES: Final = 1 << 20
_MAX_VERTICES: Final = 20_000
"""Of the area, which is part of each request."""
_MAX_FOOTPRINT: Final = 1_000
"""Vertices of an item's footprint; where there are more, its box counts. Whether a polygon is valid takes time that
grows with the square of them: 10 000 in a zigzag took GEOS two minutes on a busy machine."""
_PART: Final = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?", re.A)
_MOST_NUMBER: Final = 1e7
"""Of a box: degrees, or heights in meters. Keeps out NaN, infinity, and integers of JSON that no float can hold."""
_NOT_A_TIME: Final = "not a time or a range of times"


@dataclass(frozen=True)
class Search:
    """What an item must be. Made by `make_search`."""

    collections: tuple[str, ...] = ()
    bounds: Bounds | None = None
    area: BaseGeometry | None = None
    """The same as a geometry, or the polygons of a file."""
    drawn: bool = False
    """Whether the area is from a file."""
    start: datetime | None = None
    end: datetime | None = None
    """The last moment that counts."""
    max_cloud_cover: float | None = None
    """Percent."""
    where: dict[str, Any] | None = None
    """A further filter in CQL2 JSON, of an API that declares the extension Filter; `matches` does not compare it."""
    as_of: str | None = None
    """The parameter `as_of` of an API of cloudseg."""

    @property
    def interval(self) -> str | None:
        """The times as a STAC API takes them."""
        if self.start is None and self.end is None:
            return None
        return "/".join(moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else ".." for moment in (self.start, self.end))

    @property
    def geometry(self) -> dict[str, Any] | None:
        """The area as GeoJSON, None if it is a box or not given."""
        return dict(mapping(self.area)) if self.drawn and self.area is not None else None

    def matches(self, item: dict[str, Any]) -> bool:
        """Return whether an item is wanted. What it does not state does not match."""
        stated = item.get("properties")
        properties = stated if isinstance(stated, dict) else {}
        if self.collections and item.get("collection") not in self.collections:
            return False
        if self.max_cloud_cover is not None and not _is_at_most(properties.get("eo:cloud_cover"), self.max_cloud_cover):
            return False
        return self._matches_time(properties) and self._matches_area(item)

    def wants(self, collection: dict[str, Any]) -> bool:
        """Return whether items of a static collection may be wanted, by its id; those of its children may be anyway."""
        is_other = collection.get("type") == "Collection" and collection.get("id") not in self.collections
        return not (self.collections and is_other)

    def may_hold(self, collection: dict[str, Any]) -> bool:
        """Return whether a static collection or catalog may hold wanted items, by its extent."""
        extent = collection.get("extent")
        if not isinstance(extent, dict):
            return True
        boxes = _lists(extent, "spatial", "bbox")
        if self.area is not None and boxes and isinstance(boxes[0], list) and len(boxes[0]) in (4, 6):
            found = _box_of(boxes[0])
            if found is not None and not self.area.intersects(found):
                return False
        times = _lists(extent, "temporal", "interval")
        if times and isinstance(times[0], list) and len(times[0]) == 2:
            return self._overlaps(_time(times[0][0]), _time(times[0][1]))
        return True

    def _matches_time(self, properties: dict[str, Any]) -> bool:
        if self.start is None and self.end is None:
            return True
        moment = _time(properties.get("datetime"))
        first, last = _time(properties.get("start_datetime")) or moment, _time(properties.get("end_datetime")) or moment
        return (first is not None or last is not None) and self._overlaps(first, last)

    def _overlaps(self, first: datetime | None, last: datetime | None) -> bool:
        too_late = self.end is not None and first is not None and first > self.end
        too_early = self.start is not None and last is not None and last < self.start
        return not too_late and not too_early

    def _matches_area(self, item: dict[str, Any]) -> bool:
        if self.area is None:
            return True
        footprint = _footprint(item)
        return footprint is not None and bool(self.area.intersects(footprint))


def make_search(
    *,
    collections: Sequence[str] = (),
    bbox: Sequence[float] | None = None,
    aoi: str | Path | None = None,
    datetime: str | None = None,
    max_cloud_cover: float | None = None,
) -> Search:
    """Return a search.

    Args:
        collections: Ids; empty: every collection.
        bbox: West, south, east, north in degrees.
        aoi: A GeoJSON file with polygons in longitude and latitude.
        datetime: A time, a day, a month, a year, or two of them joined by `/`, `..` for an open end.
        max_cloud_cover: Percent; items that do not state their cloud cover are not wanted.

    Raises:
        InputError: A value is not valid.
    """
    if bbox is not None and aoi is not None:
        raise InputError("an area is given twice", subject="--bbox, --aoi", expected="one of them")
    if max_cloud_cover is not None and not 0 <= max_cloud_cover <= 100:
        raise InputError("not a cloud cover", subject="--max-cloud-cover", found=max_cloud_cover, expected="0 to 100")
    area = _read_area(Path(aoi)) if aoi is not None else None
    bounds: Bounds | None = None
    if bbox is not None:
        bounds = _bounds(bbox)
        area = _area(bounds)
    elif area is not None:
        west, south, east, north = area.bounds
        bounds = (west, south, east, north)
    start, end = _interval(datetime) if datetime else (None, None)
    return Search(tuple(collections), bounds, area, aoi is not None, start, end, max_cloud_cover)


def _bounds(bbox: Sequence[float]) -> Bounds:
    valid = len(bbox) == 4 and all(math.isfinite(value) for value in bbox)
    if not valid or not (-90 <= bbox[1] < bbox[3] <= 90 and -180 <= bbox[0] <= 180 and -180 <= bbox[2] <= 180):
        raise InputError(
            "not a bounding box",
            subject="--bbox",
            found=",".join(f"{value:g}" for value in bbox),
            expected="west,south,east,north in degrees, south below north",
        )
    west, south, east, north = bbox
    if west == east:
        raise InputError("the bounding box is empty", subject="--bbox", found=f"west and east are {west:g}")
    return west, south, east, north


def _area(bounds: Bounds) -> BaseGeometry:
    west, south, east, north = bounds
    if west < east:
        return box(west, south, east, north)
    return shapely.union_all([box(west, south, 180, north), box(-180, south, east, north)])


def _read_area(path: Path) -> BaseGeometry:
    try:
        content = path.read_bytes()[: _MAX_AOI_BYTES + 1]
        if len(content) > _MAX_AOI_BYTES:
            raise ValueError(f"larger than {_MAX_AOI_BYTES >> 20} MB")
        found = shapely.union_all([shape(part) for part in _geometries(json.loads(content))])
        if shapely.get_num_coordinates(found) > _MAX_VERTICES:
            raise ValueError(f"more than {_MAX_VERTICES} vertices")
        west, south, east, north = found.bounds
        if found.is_empty or found.area <= 0 or west < -180 or east > 180 or south < -90 or north > 90:
            raise ValueError("no polygon in longitude and latitude")
    except OSError as error:
        raise InputError("the area cannot be read", subject=str(path), found=error.strerror) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, shapely.errors.ShapelyError) as error:
        raise InputError(
            "the area cannot be read",
            subject=str(path),
            found=str(error)[:200],
            expected=f"GeoJSON with polygons in EPSG:4326, at most {_MAX_VERTICES} vertices",
            next_step="Convert it (GDAL: ogr2ogr -t_srs EPSG:4326 -f GeoJSON).",
        ) from error
    return found


def _geometries(values: dict[str, Any]) -> list[dict[str, Any]]:
    if values["type"] == "FeatureCollection":
        return [feature["geometry"] for feature in values["features"]]
    return [values["geometry"] if values["type"] == "Feature" else values]


def _interval(text: str) -> tuple[datetime | None, datetime | None]:
    first, slash, last = text.strip().partition("/")
    start = None if slash and first in ("..", "") else _span(text, first)[0]
    end = (None if last in ("..", "") else _span(text, last)[1]) if slash else _span(text, first)[1]
    if (start is None and end is None) or (start and end and start > end):
        raise InputError(_NOT_A_TIME, subject="--datetime", found=text, expected="a beginning before the end")
    return start, end


def _span(text: str, part: str) -> tuple[datetime, datetime]:
    """Return the first and the last moment of a year, month or day; of a time twice the same."""
    try:
        if found := _PART.fullmatch(part):
            year, month, day = (int(group or 0) for group in found.groups())
            start = datetime(year, month or 1, day or 1, tzinfo=UTC)
            if day:
                following = start + timedelta(days=1)
            elif month:
                following = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
            else:
                following = datetime(year + 1, 1, 1, tzinfo=UTC)
            return start, following - timedelta(seconds=1)
        moment = parse_iso_time(part)
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise InputError(
            _NOT_A_TIME,
            subject="--datetime",
            found=text,
            expected="2024-06-01, 2024-06, 2024-06-01T10:00:00Z, or two of them: 2024-06-01/2024-06-30, 2024-06-01/..",
        )
    return moment, moment


def _time(value: Any) -> datetime | None:
    return parse_iso_time(value) if isinstance(value, str) and len(value) < 64 else None


def _is_at_most(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


def _footprint(item: dict[str, Any]) -> BaseGeometry | None:
    """Return the footprint of an item, its box where the geometry cannot be used, None if it has neither."""
    geometry = item.get("geometry")
    if isinstance(geometry, dict):
        try:
            found = shape(geometry)
            if shapely.get_num_coordinates(found) <= _MAX_FOOTPRINT and not found.is_empty and found.is_valid:
                return found
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            IndexError,
            OverflowError,  # JSON has integers of any size
            RecursionError,
            shapely.errors.ShapelyError,
        ):
            pass  # the box decides
    values = item.get("bbox")
    return _box_of(values) if isinstance(values, list) and len(values) in (4, 6) else None


def _box_of(values: list[Any]) -> BaseGeometry | None:
    """Return a box of an item or an extent, None if its numbers are none of degrees and meters."""
    half = len(values) // 2
    if not all(isinstance(value, int | float) and -_MOST_NUMBER <= value <= _MOST_NUMBER for value in values):
        return None
    return _area((values[0], values[1], values[half], values[half + 1]))


def _lists(extent: dict[str, Any], kind: str, name: str) -> list[Any]:
    part = extent.get(kind)
    found = part.get(name) if isinstance(part, dict) else None
    return found if isinstance(found, list) else []
