"""Search a STAC API or a static STAC catalog for masks."""

import warnings
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any, Final
from urllib.parse import urlsplit

import pystac
from pystac_client import Client
from pystac_client.exceptions import APIError
from shapely.geometry import box, shape

from cloudseg.api.fetch import is_address
from cloudseg.api.masks import check_count, keep_rasters
from cloudseg.errors import InputError, StoreUnreachable

_COLLECTION: Final = "masks"
Box = tuple[float, float, float, float]
Interval = tuple[datetime | None, datetime | None]
_REMOTE: Final = ("https", "http", "s3")
_WEIGHTS_FIELD: Final = "cloudseg:weights_id"
_VERSION_FIELDS: Final = ("mlm:name", "cloudseg:weights_id", "version", "cloudseg:model_version")
"""Properties of an item that may name the weights or their version."""


def search_masks(
    url: str,
    area: Box | None,
    interval: Interval,
    when: str | None,
    *,
    weights: str | None,
    as_of: str | None = None,
    limit: int,
) -> list[pystac.Item]:
    """Return the items of masks with absolute addresses of their files.

    Args:
        url: landing page of an API, or address or path of a catalog or collection.
        area: west, south, east, north in degrees.
        interval: first and last moment at which the scenes were acquired, both included; None: open.
        when: the same as a text, for an API.
        weights: id or version of the weights; None: an API chooses, of a static catalog what is not deprecated.
        as_of: what readers saw at this moment, for an API of cloudseg; None: now.
        limit: most items.

    Raises:
        InputError: the address is no catalog, or there are more items.
        StoreUnreachable: the server does not answer.
    """
    try:
        with warnings.catch_warnings():
            # Whoever names weights wants what a newer model has replaced; of the others it is left out.
            warnings.simplefilter("ignore", pystac.errors.DeprecatedWarning)
            root = pystac.Catalog.from_file(url) if not is_address(url) else None
            client = Client.open(url, parameters={"as_of": as_of} if as_of else None) if root is None else None
            if client is not None and client.conforms_to("ITEM_SEARCH"):
                search = client.search(
                    collections=[_COLLECTION],
                    bbox=area,
                    datetime=when,
                    max_items=limit + 1,
                    filter=_filter_of(client, weights) if weights is not None else None,
                )
                found: Iterable[pystac.Item] = search.items()
            elif as_of is not None:
                raise InputError(
                    "a static catalog shows only what is there now",
                    subject=url,
                    found=f"as_of {as_of}",
                    next_step="Pass the address of an API (`cloudseg serve`), or no as_of.",
                )
            else:
                found = _walk(root or pystac.Catalog.from_file(url), area, interval, deprecated=weights is not None)
            items = list(islice(_masks(found, weights), limit + 1))
    except (pystac.STACError, pystac.STACTypeError, KeyError, ValueError) as error:
        raise InputError(
            "not a STAC API or catalog",
            subject=url,
            found=f"{type(error).__name__}: {error}"[:300],
            next_step="Pass the address of a landing page, a catalog.json or a collection.json.",
        ) from error
    except (APIError, OSError) as error:
        raise StoreUnreachable(
            "the catalog cannot be read", subject=url, found=str(error)[:300], next_step="Check the address; try again."
        ) from error
    check_count(len(items), limit)
    return items


def _filter_of(client: Client, weights: str) -> dict[str, Any] | None:
    """Return a filter in CQL2 JSON for the masks of weights where the API knows such a field, None elsewhere."""
    if not client.conforms_to("FILTER") or _WEIGHTS_FIELD not in client.get_queryables().get("properties", {}):
        return None
    version = weights.removeprefix("v")
    if version.isdecimal():
        return {"op": "=", "args": [{"property": "cloudseg:model_version"}, int(version)]}
    return {"op": "=", "args": [{"property": _WEIGHTS_FIELD}, weights]}


def _walk(root: pystac.Catalog, area: Box | None, interval: Interval, *, deprecated: bool) -> Iterator[pystac.Item]:
    """Yield the items of a static catalog that touch the area and the interval."""
    wanted = None if area is None else box(*area)
    collections = [root] if isinstance(root, pystac.Collection) else list(root.get_children())
    masks = [child for child in collections if child.id == _COLLECTION] or [root]
    for item in masks[0].get_items(recursive=True):
        moment = item.datetime
        if moment is None or not _is_in(moment, interval):
            continue
        if not deprecated and item.properties.get("deprecated"):
            continue
        if wanted is None or (item.geometry is not None and shape(item.geometry).intersects(wanted)):
            yield item


def _is_in(moment: datetime, interval: Interval) -> bool:
    since, until = interval
    return (since is None or moment >= since) and (until is None or moment <= until)


def _masks(items: Iterable[pystac.Item], weights: str | None) -> Iterator[pystac.Item]:
    """Yield the items that have both rasters, of certain weights, with absolute addresses."""
    for item in items:
        if item.datetime is None or (weights is not None and not _is_of(item, weights)) or not keep_rasters(item):
            continue
        for asset in item.assets.values():
            asset.href = _checked(asset.get_absolute_href() or asset.href, item)
        yield item


def _is_of(item: pystac.Item, weights: str) -> bool:
    values = {str(item.properties.get(name)) for name in _VERSION_FIELDS}
    return bool(values & {weights, weights.removeprefix("v")})


def _checked(href: str, item: pystac.Item) -> str:
    """Return the address of a raster: a file only where the catalog itself is one.

    Raises:
        InputError: the address is of another kind.
    """
    source: Any = item.get_self_href() or ""
    local = not is_address(source)
    scheme = urlsplit(href).scheme
    if scheme in _REMOTE or (local and scheme in ("", "file")):
        return href
    raise InputError(
        "the catalog refers to a file that is not opened",
        subject=item.id,
        found=href,
        expected="an https or s3 address" + (" or a path" if local else ""),
    )
