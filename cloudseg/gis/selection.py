"""Choose the masks for a place and a time, and explain why there are none."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import shapely
from shapely.geometry.base import BaseGeometry
from sqlalchemy import Connection

from cloudseg.catalog import Catalog, model_rows, reader_rows
from cloudseg.catalog.mask_query import OLDEST_FIRST, Available, Query
from cloudseg.catalog.mask_search import count_masks, iter_found
from cloudseg.catalog.search_area import area_of_box
from cloudseg.errors import DataError
from cloudseg.gis.area_stats import AreaIndex, grid_outline
from cloudseg.gis.areas import Area
from cloudseg.gis.mask_of_scene import MaskOfScene, mask_of
from cloudseg.raster.footprint import footprint_bounds


@dataclass(frozen=True)
class Wanted:
    """Which masks are used, besides the place."""

    since: datetime | None = None
    """First moment of acquisition; None: open. With either end given, scenes without a time are left out."""
    until: datetime | None = None
    """Last moment, included; None: open."""
    weights_id: str | None = None
    """Masks by these weights; None: those that readers see."""
    as_of: datetime | None = None
    """What was stored and seen at this moment; None: now."""


def query_of(areas: Sequence[Area], wanted: Wanted) -> Query:
    """Return the search for the masks whose scenes may meet the areas, in the order of acquisition.

    One box around the areas is searched, and only bounds are compared: pixels decide what an area covers.
    """
    return Query(
        ("masks",),
        area=area_of_box(bounds_of([area.lonlat for area in areas])),
        bounds_only=True,
        since=wanted.since,
        until=wanted.until,
        undated=wanted.since is None and wanted.until is None,
        weights_id=wanted.weights_id,
        as_of=wanted.as_of,
        sort=OLDEST_FIRST,
    )


def count_wanted(catalog: Catalog, areas: Sequence[Area], wanted: Wanted) -> int:
    """Return how many masks `iter_wanted` yields.

    Raises:
        NotInCatalog: the weights are unknown, or readers see no masks yet.
        DataError: there is no such mask; the message has what there is.
    """
    query = query_of(areas, wanted)
    with catalog.read() as db:
        _check_weights(db, wanted)
        count = count_masks(db, query).masks
        if not count:
            raise _error(db, areas, query)
    return count


def iter_wanted(catalog: Catalog, areas: Sequence[Area], wanted: Wanted) -> Iterator[MaskOfScene]:
    """Yield the masks whose scenes may meet the areas, in the order of acquisition, page by page."""
    return map(mask_of, iter_found(catalog, query_of(areas, wanted)))


def select_masks(catalog: Catalog, areas: Sequence[Area], wanted: Wanted) -> list[MaskOfScene]:
    """Return the masks whose grids meet the areas, in the order of acquisition.

    Raises:
        NotInCatalog: the weights are unknown, or readers see no masks yet.
        DataError: there is no such mask; the message has what there is.
    """
    with catalog.read() as db:
        _check_weights(db, wanted)
    index = AreaIndex(areas)
    found = [mask for mask in iter_wanted(catalog, areas, wanted) if index.meeting(grid_outline(mask))]
    if not found:
        raise nothing_found(catalog, areas, wanted)
    return found


def bounds_of(lonlat: Sequence[BaseGeometry]) -> tuple[float, float, float, float]:
    """Return west, south, east, north of geometries cut at 180°; west > east where they cross it."""
    return footprint_bounds(shapely.geometrycollections([shapely.box(*part.bounds) for part in _parts(lonlat)]))


def nothing_found(catalog: Catalog, areas: Sequence[Area], wanted: Wanted) -> DataError:
    """Return the error for masks whose bounds meet the areas' bounds, but not the areas."""
    with catalog.read() as db:
        return _error(db, areas, query_of(areas, wanted))


def _error(db: Connection, areas: Sequence[Area], query: Query) -> DataError:
    """Return the error for a search without a result, with what there is at this place and in this time."""
    here = count_masks(db, replace(query, since=None, until=None, undated=True))
    then = count_masks(db, replace(query, area=None))
    west, south, east, north = bounds_of([area.lonlat for area in areas])
    return DataError(
        "no published mask covers this place in this time",
        subject=f"lon {west:.3f} to {east:.3f}, lat {south:.3f} to {north:.3f}",
        found=f"{_words(here)} at this place in any time; {_words(then)} in this time at any place",
        next_step="Choose another place or time; `cloudseg masks` lists masks, `cloudseg predict --new` makes them.",
    )


def _words(available: Available) -> str:
    if available.masks == 0:
        return "no mask"
    masks = "1 mask" if available.masks == 1 else f"{available.masks} masks"
    if available.first is None or available.last is None:
        return masks
    return f"{masks} ({available.first:%Y-%m-%d} to {available.last:%Y-%m-%d})"


def _check_weights(db: Connection, wanted: Wanted) -> None:
    if wanted.weights_id is not None:
        model_rows.get_weights(db, wanted.weights_id)
    else:
        reader_rows.get_shown(db, wanted.as_of)


def _parts(lonlat: Sequence[BaseGeometry]) -> list[BaseGeometry]:
    return [part for geometry in lonlat for part in shapely.get_parts(geometry)]
