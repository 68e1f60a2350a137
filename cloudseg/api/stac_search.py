"""Search a STAC API or a static STAC catalog for masks."""

import warnings
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any, Final
from urllib.parse import SplitResult, urljoin, urlsplit

import pystac
from pystac.errors import DeprecatedWarning
from shapely.geometry import box, shape

from cloudseg.api.fetch import is_address
from cloudseg.api.masks import check_count, keep_rasters
from cloudseg.errors import InputError, StoreUnreachable
from cloudseg.ingest.stac_source.find_items import ItemFinder, is_api
from cloudseg.ingest.stac_source.hosts import HostPolicy
from cloudseg.ingest.stac_source.http_client import HttpClient, HttpOptions, Unreachable
from cloudseg.ingest.stac_source.search import Search
from cloudseg.runtime import read_settings

_COLLECTION: Final = "masks"
Box = tuple[float, float, float, float]
Interval = tuple[datetime | None, datetime | None]
_NAMES: Final = ("mask", "probability")
_TIMEOUT_S: Final = 30.0
_ATTEMPTS: Final = 3
_LONGEST_WAIT_S: Final = 30.0
"""Somebody waits for the answer; an ingest waits longer."""
_REMOTE: Final = ("https", "http", "s3")
_WEIGHTS_FIELD: Final = "cloudseg:weights_id"
_QUERYABLES: Final = "http://www.opengis.net/def/rel/ogc/1.0/queryables"
_VERSION_FIELDS: Final = ("mlm:name", "cloudseg:weights_id", "version", "cloudseg:model_version")
"""Properties of an item that may name the weights or their version."""


def search_masks(
    url: str, area: Box | None, interval: Interval, *, weights: str | None, as_of: str | None = None, limit: int
) -> list[pystac.Item]:
    """Return the items of masks with absolute addresses of their files.

    Args:
        url: landing page of an API, or address or path of a catalog or collection.
        area: west, south, east, north in degrees.
        interval: first and last moment at which the scenes were acquired, both included; None: open.
        weights: id or version of the weights; None: those that the catalog does not call deprecated, of an API those
            that it shows.
        as_of: what readers saw at this moment, for an API of cloudseg; None: now.
        limit: most items.

    Raises:
        InputError: the address is no catalog or not allowed, or there are more items.
        StoreUnreachable: the server does not answer.
    """
    try:
        with warnings.catch_warnings():
            # Whoever names weights wants what a newer model has replaced; of the others it is left out.
            warnings.simplefilter("ignore", pystac.errors.DeprecatedWarning)
            if is_address(url):
                found = _read(url, area, interval, weights, as_of)
            elif as_of is None:
                found = _walk(pystac.Catalog.from_file(url), area, interval)
            else:
                raise _no_past(url, as_of)
            items = list(islice(_masks(found, weights), limit + 1))
    except (pystac.STACError, pystac.STACTypeError, KeyError, ValueError) as error:
        raise InputError(
            "not a STAC API or catalog",
            subject=url,
            found=f"{type(error).__name__}: {error}"[:300],
            next_step="Pass the address of a landing page, a catalog.json or a collection.json.",
        ) from error
    except Unreachable as error:
        raise StoreUnreachable(
            "the catalog cannot be read", subject=url, found=error.found, next_step="Check the address; try again."
        ) from error
    except OSError as error:
        raise StoreUnreachable(
            "the catalog cannot be read", subject=url, found=str(error)[:300], next_step="Check the address; try again."
        ) from error
    check_count(len(items), limit)
    return items


def _no_past(url: str, as_of: str) -> InputError:
    return InputError(
        "a static catalog shows only what is there now",
        subject=url,
        found=f"as_of {as_of}",
        next_step="Pass the address of an API (`cloudseg serve`), or no as_of.",
    )


def _read(
    url: str, area: Box | None, interval: Interval, weights: str | None, as_of: str | None
) -> Iterator[pystac.Item]:
    """Yield the items of the collection `masks` of an API or a catalog on a server.

    Every request is bounded in time and size and goes only where an ingest may go (`HostPolicy`). The server that the
    caller names may be one of the own network.

    Raises:
        InputError: an address is not allowed, or a part of the catalog cannot be read.
        Unreachable: a server does not answer.
    """
    parts = urlsplit(url)
    policy = _policy(parts)
    client = HttpClient(HttpOptions(policy, timeout_s=_TIMEOUT_S, attempts=_ATTEMPTS, longest_wait_s=_LONGEST_WAIT_S))
    root = client.read_json(url)
    if as_of is not None and not is_api(root):
        raise _no_past(url, as_of)
    search = Search(
        (_COLLECTION,),
        area,
        None if area is None else box(*area),
        start=interval[0],
        end=interval[1],
        where=None if weights is None else _filter_of(client, url, root, weights),
        as_of=as_of,
    )
    finder = ItemFinder(client, url, search)
    for found in finder.find():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecatedWarning)  # `_is_of` decides
            item = pystac.Item.from_dict(found.values, preserve_dict=False)
        item.set_self_href(found.base)
        for name in _NAMES:
            if name in item.assets and urlsplit(href := item.assets[name].get_absolute_href() or "").scheme != "s3":
                _check_raster(policy, href, item.id)
        yield item
    if finder.unread:
        raise finder.unread[0]  # a part of the answer is not the answer


def _filter_of(client: HttpClient, url: str, root: Any, weights: str) -> dict[str, Any] | None:
    """Return a filter in CQL2 JSON for the masks of weights where the API knows such a field, None elsewhere.

    An API of cloudseg shows the masks that readers see; those of other weights are found only if they are asked for.
    """
    links = root.get("links") if is_api(root) else None
    queryables = [link.get("href") for link in links or [] if isinstance(link, dict) and link.get("rel") == _QUERYABLES]
    known = client.read_json(urljoin(url, str(queryables[0]))) if queryables else None
    fields = known.get("properties") if isinstance(known, dict) else None
    if not isinstance(fields, dict) or _WEIGHTS_FIELD not in fields:
        return None
    version = weights.removeprefix("v")
    if version.isdecimal():
        return {"op": "=", "args": [{"property": "cloudseg:model_version"}, int(version)]}
    return {"op": "=", "args": [{"property": _WEIGHTS_FIELD}, weights]}


def _policy(parts: SplitResult) -> HostPolicy:
    settings = read_settings()
    named = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else (parts.hostname or "").lower()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    private = (*settings.stac_private_hosts.lower().split(), f"{named}:{port}")
    return HostPolicy(tuple(settings.stac_hosts.lower().split()), private)


def _check_raster(policy: HostPolicy, href: str, item_id: str) -> None:
    """Check the address of a file before GDAL opens it: GDAL itself asks any host, and reads files that name others.

    Raises:
        InputError: it may not be opened.
    """
    policy.check_public(href)
    if not urlsplit(href).path.lower().endswith((".tif", ".tiff")):
        raise InputError("not the address of a GeoTIFF", subject=item_id, found=href[:200], expected="….tif")


def _walk(root: pystac.Catalog, area: Box | None, interval: Interval) -> Iterator[pystac.Item]:
    """Yield the items of a static catalog that touch the area and the interval."""
    wanted = None if area is None else box(*area)
    collections = [root] if isinstance(root, pystac.Collection) else list(root.get_children())
    masks = [child for child in collections if child.id == _COLLECTION] or [root]
    for item in masks[0].get_items(recursive=True):
        moment = item.datetime
        if moment is None or not _is_in(moment, interval):
            continue
        if wanted is None or (item.geometry is not None and shape(item.geometry).intersects(wanted)):
            yield item


def _is_in(moment: datetime, interval: Interval) -> bool:
    since, until = interval
    return (since is None or moment >= since) and (until is None or moment <= until)


def _masks(items: Iterable[pystac.Item], weights: str | None) -> Iterator[pystac.Item]:
    """Yield the items that have both rasters, with absolute addresses; see `_is_of`."""
    for item in items:
        if item.datetime is None or not _is_of(item, weights) or not keep_rasters(item):
            continue
        for asset in item.assets.values():
            asset.href = _checked(asset.get_absolute_href() or asset.href, item)
        yield item


def _is_of(item: pystac.Item, weights: str | None) -> bool:
    """Return whether a mask is by these weights; without any, whether no other mask of the scene is to be preferred."""
    if weights is None:
        return item.properties.get("deprecated") is not True
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
