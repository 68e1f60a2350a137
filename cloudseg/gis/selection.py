"""Choose the masks for a place and a time, and explain why there are none."""

from collections.abc import Sequence
from datetime import datetime

import shapely
from shapely.geometry.base import BaseGeometry
from sqlalchemy import Connection

from cloudseg.catalog import Catalog, model_rows
from cloudseg.catalog.area_search import (
    Available,
    MaskFilter,
    MaskOfScene,
    count_available,
    iter_masks,
    list_mask_ids,
)
from cloudseg.errors import DataError, NotInCatalog
from cloudseg.gis.area_stats import AreaIndex, grid_outline
from cloudseg.gis.areas import Area
from cloudseg.raster.footprint import footprint_bounds


def find_mask_ids(
    db: Connection,
    areas: Sequence[Area],
    *,
    since: datetime | None,
    until: datetime | None,
    weights_id: str | None,
) -> list[str]:
    """Return the ids of the masks whose scenes may meet the areas, in the order of acquisition.

    Args:
        db: the catalog.
        areas: the places; one box around them is searched.
        since: first moment; None: open.
        until: last moment, included; None: open.
        weights_id: masks by these weights; None: of each scene the one of the newest champion.

    Raises:
        NotInCatalog: the weights are unknown, or there is no champion whose masks could be meant.
        DataError: there is no such mask; the message has what there is.
    """
    _check_weights(db, weights_id)
    box = bounds_of([area.lonlat for area in areas])
    wanted = MaskFilter(box, since, until, weights_id)
    found = list_mask_ids(db, wanted)
    if not found:
        raise _error(db, wanted)
    return found


def select_masks(
    catalog: Catalog,
    areas: Sequence[Area],
    *,
    since: datetime | None,
    until: datetime | None,
    weights_id: str | None,
) -> list[MaskOfScene]:
    """Return the masks whose grids meet the areas; otherwise like `find_mask_ids`.

    Raises:
        NotInCatalog: the weights are unknown, or there is no champion whose masks could be meant.
        DataError: there is no such mask.
    """
    with catalog.read() as db:
        mask_ids = find_mask_ids(db, areas, since=since, until=until, weights_id=weights_id)
    index = AreaIndex(areas)
    found = [mask for mask in iter_masks(catalog, mask_ids) if index.meeting(grid_outline(mask))]
    if not found:
        raise nothing_found(catalog, areas, since=since, until=until, weights_id=weights_id)
    return found


def bounds_of(lonlat: Sequence[BaseGeometry]) -> tuple[float, float, float, float]:
    """Return west, south, east, north of geometries cut at 180°; west > east where they cross it."""
    return footprint_bounds(shapely.geometrycollections([shapely.box(*part.bounds) for part in _parts(lonlat)]))


def nothing_found(
    catalog: Catalog,
    areas: Sequence[Area],
    *,
    since: datetime | None,
    until: datetime | None,
    weights_id: str | None,
) -> DataError:
    """Return the error for masks whose bounds meet the areas' bounds, but not the areas."""
    with catalog.read() as db:
        return _error(db, MaskFilter(bounds_of([area.lonlat for area in areas]), since, until, weights_id))


def _error(db: Connection, wanted: MaskFilter) -> DataError:
    """Return the error for a search without a result, with what there is at this place and in this time."""
    here = count_available(db, wanted._replace(since=None, until=None))
    then = count_available(db, wanted._replace(box=None))
    west, south, east, north = wanted.box or (-180.0, -90.0, 180.0, 90.0)
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


def _check_weights(db: Connection, weights_id: str | None) -> None:
    if weights_id is not None:
        model_rows.get_weights(db, weights_id)
    elif model_rows.find_champion(db) is None:
        raise NotInCatalog(
            "there is no champion yet",
            subject="champion",
            next_step="Run `cloudseg retrain`, or name the weights of the masks with --weights.",
        )


def _parts(lonlat: Sequence[BaseGeometry]) -> list[BaseGeometry]:
    return [part for geometry in lonlat for part in shapely.get_parts(geometry)]
