"""A static map as SVG: land, and boxes of longitude and latitude. Plate carrée: x is longitude, y is minus latitude."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from cloudseg.catalog.data_rows import PlaceBox

_LEAST_DEGREES: Final = 24.0
"""Least width of a map: a single tile without coastline around it says nothing."""
_LEAST_BOX: Final = 0.008
"""Least side of a box, as a share of the width of the map, so that a tile on a world map can be seen."""


@dataclass(frozen=True)
class MapBox:
    """A place on the map."""

    x: float
    y: float
    width: float
    height: float
    split: str
    title: str


@dataclass(frozen=True)
class LandMap:
    """The parts of the SVG."""

    view: str
    """The `viewBox`: x, y, width, height in degrees."""
    land: str
    """The `d` of the path of the land, one part for each polygon in view."""
    boxes: list[MapBox]


def draw_places(places: Sequence[PlaceBox]) -> LandMap | None:
    """Return the map of places with the land around them; None without a place."""
    if not places:
        return None
    west, east = min(p.min_lon for p in places), max(p.max_lon for p in places)
    south, north = min(p.min_lat for p in places), max(p.max_lat for p in places)
    width = min(360.0, max(_LEAST_DEGREES, (east - west) * 1.2, (north - south) * 1.2 * 2))
    height = width / 2
    left = min(max(-180.0, (west + east - width) / 2), 180.0 - width)
    top = min(max(-90.0, -(south + north) / 2 - height / 2), 90.0 - height)
    least = width * _LEAST_BOX
    return LandMap(
        view=f"{left:.2f} {top:.2f} {width:.2f} {height:.2f}",
        land=" ".join(
            path
            for path, (x0, y0, x1, y1) in _land()
            if x0 < left + width and x1 > left and y0 < top + height and y1 > top
        ),
        boxes=[_box(place, least) for place in places],
    )


def _box(place: PlaceBox, least: float) -> MapBox:
    width, height = max(least, place.max_lon - place.min_lon), max(least, place.max_lat - place.min_lat)
    lon, lat = (place.min_lon + place.max_lon) / 2, (place.min_lat + place.max_lat) / 2
    split = place.split.replace("_", " ")
    title = f"{place.place}, {split}: {place.scenes} scenes, {place.labeled} with a label"
    return MapBox(
        round(lon - width / 2, 3), round(-lat - height / 2, 3), round(width, 3), round(height, 3), place.split, title
    )


@cache
def _land() -> list[tuple[str, tuple[float, float, float, float]]]:
    """Return each polygon of the land as a path, with its bounds x, y (the file of the map, Natural Earth 1:110m)."""
    file = resources.files("cloudseg.serve") / "static" / "land" / "land-110m.json"
    features = json.loads(file.read_text(encoding="utf-8"))["features"]
    found = []
    for feature in features:
        rings = feature["geometry"]["coordinates"]
        path = "".join("M" + " ".join(f"{lon:.1f},{-lat:.1f}" for lon, lat in ring) + "Z" for ring in rings)
        xs, ys = [lon for lon, _ in rings[0]], [-lat for _, lat in rings[0]]
        found.append((path, (min(xs), min(ys), max(xs), max(ys))))
    return found
