"""List the wanted items of a STAC API (with pystac-client), a static catalog, an item collection or a single item."""

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from cloudseg.errors import CloudsegError, InputError, SettingsError
from cloudseg.ingest.inbox_file import NotRead
from cloudseg.ingest.stac_source.hosts import Refused, absolute
from cloudseg.ingest.stac_source.http_client import HttpClient, shown
from cloudseg.ingest.stac_source.search import Search

log = logging.getLogger(__name__)
PREFIX: Final = "stac+"
MAX_EXAMINED: Final = 200_000
"""Items and catalogs of one ingest; a catalog whose links never end must end too."""
_PAGE: Final = 100
_SEARCH: Final = "https://api.stacspec.org/v1."
"""Begin of the conformance classes of STAC API 1.x, betas included."""


@dataclass(frozen=True)
class FoundItem:
    """An item as a server sent it."""

    values: dict[str, Any]
    uri: str
    """Address of the item, for users and for the catalog."""
    base: str
    """Address that relative links of the item refer to."""


class ItemFinder:
    """Lists the items of one source."""

    def __init__(self, client: HttpClient, url: str, search: Search) -> None:
        """Read nothing yet.

        Args:
            client: Makes the requests.
            url: Landing page of an API, catalog, collection, item or item collection, without `stac+`.
            search: Which items are wanted.
        """
        self._client, self._url, self._search = client, url, search
        self.unread: list[CloudsegError] = []
        """Catalogs and items of a static catalog that could not be read."""

    def find(self) -> Iterator[FoundItem]:
        """Yield the wanted items: those of an API as it sorts them, of a static catalog in the order of its links.

        Raises:
            InputError: The address is no STAC, or is not allowed.
            NotRead: The server does not answer.
            SettingsError: An API needs pystac-client, which is not installed.
        """
        root = self._client.read_json(self._url)
        kind = root.get("type") if isinstance(root, dict) else None
        if kind in ("Feature", "FeatureCollection"):
            yield from self._of_features(root)
        elif kind not in ("Catalog", "Collection"):
            raise InputError(
                "no STAC catalog, collection or item is at this address",
                subject=shown(self._url),
                found=f"type {kind}"[:60] if isinstance(root, dict) else type(root).__name__,
                next_step="Give the landing page of the API, or catalog.json.",
            )
        elif is_api(root):
            yield from self._of_api(root)
        else:
            yield from self._of_catalog(root)

    def _of_features(self, root: dict[str, Any]) -> Iterator[FoundItem]:
        features = [root] if root["type"] == "Feature" else root.get("features")
        for values in features if isinstance(features, list) else []:
            if isinstance(values, dict) and self._search.matches(values):
                yield self._item(values, self._url, is_alone=values is root)

    def _of_api(self, root: dict[str, Any]) -> Iterator[FoundItem]:
        """Yield the items of an API. pystac-client knows paging and the extensions; requests are made by `client`."""
        try:
            from cloudseg.ingest.stac_source.api_search import search_api  # pystac-client is an extra
        except ImportError as error:
            raise SettingsError(
                "a STAC API needs pystac-client",
                subject=shown(self._url),
                found=f"no module {error.name}",
                next_step="Install the extra: pip install 'cloudseg[stac]'.",
            ) from error
        found = search_api(self._client, self._url, root, self._search, page=_PAGE)
        for examined, values in enumerate(found, 1):
            if examined > MAX_EXAMINED:
                self._stop(examined)
                return
            if isinstance(values, dict) and self._search.matches(values):
                yield self._item(values, self._url)

    def _of_catalog(self, root: dict[str, Any]) -> Iterator[FoundItem]:
        """Yield the items of a static catalog. Each address is read once, so links in a loop end.

        Items that a catalog within a collection lists are of this collection: those of another one are not read.
        """
        waiting: deque[tuple[str, dict[str, Any], bool]] = deque([(self._url, root, True)])
        seen = {self._url}
        while waiting:
            url, catalog, wanted = waiting.popleft()
            if not self._search.may_hold(catalog):
                continue
            wanted = self._search.wants(catalog) if catalog.get("type") == "Collection" else wanted
            for rel in ("item", "child") if wanted else ("child",):
                for target in (absolute(url, href) for href in _links(catalog, rel)):
                    if target in seen:
                        continue
                    if len(seen) > MAX_EXAMINED:
                        self._stop(len(seen))
                        return
                    seen.add(target)
                    values = self._read(target) or {}
                    if values.get("type") == "Feature" and self._search.matches(values):
                        yield self._item(values, target, is_alone=True)
                    elif values.get("type") in ("Catalog", "Collection"):
                        waiting.append((target, values, wanted))

    def _read(self, url: str) -> dict[str, Any] | None:
        """Return a part of a static catalog; one that cannot be read is noted and passed over."""
        try:
            values = self._client.read_json(url)
        except (NotRead, Refused) as error:
            log.warning("%s", error)
            self.unread.append(error)
            return None
        return values if isinstance(values, dict) else None

    def _item(self, values: dict[str, Any], base: str, *, is_alone: bool = False) -> FoundItem:
        """Return an item with its address: the link `self` if it is of the server that sent the item.

        Args:
            values: The item.
            base: The address of the answer that held it.
            is_alone: Whether that answer was this item and nothing else.
        """
        own = next((absolute(base, href) for href in _links(values, "self")), base if is_alone else None)
        if own is not None and _host(own) != _host(base):
            own = base if is_alone else None
        if own is not None:
            return FoundItem(values, shown(own), own)
        collection, name = (quote(str(values.get(part))[:200], safe="") for part in ("collection", "id"))
        return FoundItem(values, f"{shown(self._url).rstrip('/')}/collections/{collection}/items/{name}", base)

    def _stop(self, examined: int) -> None:
        log.warning("stopped after %d entries of %s: narrow the search", examined, shown(self._url))


def source_url(source: str) -> str | None:
    """Return the address of a source `stac+https://…`, None if it is another source."""
    return source.removeprefix(PREFIX) if source.startswith(PREFIX) else None


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return None


def is_api(root: Any) -> bool:
    """Return whether a landing page declares a search of items."""
    classes = root.get("conformsTo") if isinstance(root, dict) else None
    named = isinstance(classes, list) and any(isinstance(each, str) and each.startswith(_SEARCH) for each in classes)
    return named and bool(_links(root, "search"))


def _links(values: dict[str, Any], rel: str) -> list[str]:
    links = values.get("links")
    return [
        link["href"]
        for link in (links if isinstance(links, list) else [])
        if isinstance(link, dict) and link.get("rel") == rel and isinstance(link.get("href"), str) and link["href"]
    ]
