"""Addresses: of a stored object for its readers, and of the documents of the catalog for each other.

The documents name everything by an absolute address, because clients pass items on without the file that they came
from (rows of a GeoParquet file, answers of an API), and a relative one cannot be resolved then.
"""

from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import pystac

from cloudseg import keys
from cloudseg.storage import Store

JSON: Final = pystac.MediaType.JSON
GEOJSON: Final = pystac.MediaType.GEOJSON


class StacSettings(Protocol):
    """The settings that decide what is in the catalog."""

    @property
    def public_url(self) -> str | None:
        """Address under which readers see the keys of the store."""
        ...

    @property
    def stac_license(self) -> str:
        """SPDX identifier or address of the license."""
        ...

    @property
    def stac_provider(self) -> str:
        """Name of who publishes, and optionally their address."""
        ...


class _HasPublicUrl(Protocol):
    @property
    def public_url(self) -> str | None: ...


def href(store: Store, settings: _HasPublicUrl, key: str) -> str:
    """Return the absolute address of an object for its readers.

    With CLOUDSEG_PUBLIC_URL it is `<public_url>/<key>`; otherwise the address in the store: `s3://…`, or the path of
    the file, which more clients open than a `file://` URL (GDAL does not).
    """
    if settings.public_url:
        return f"{settings.public_url.rstrip('/')}/{key}"
    uri = store.uri_of(key)
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme == "file" else uri


@dataclass(frozen=True)
class Site:
    """Where the documents of the catalog are and how they name each other; a STAC API overrides the addresses."""

    store: Store
    settings: StacSettings

    def object(self, key: str) -> str:
        """Return the address of a stored object."""
        return href(self.store, self.settings, key)

    def root(self) -> str:
        """Return the address of the root catalog."""
        return self.object(keys.STAC_ROOT)

    def collection(self, collection: str) -> str:
        """Return the address of a collection."""
        return self.object(keys.stac_collection(collection))

    def parent(self, collection: str, month: str) -> str:
        """Return the address of what lists the items of a month."""
        return self.object(keys.stac_month(collection, month))

    def item(self, collection: str, month: str, item_id: str) -> str:
        """Return the address of an item."""
        return self.object(keys.stac_item(collection, month, item_id))

    def structure(self, collection: str, month: str, item_id: str) -> list[pystac.Link]:
        """Return the links that place an item in the catalog: self, root, parent and collection."""
        return [
            pystac.Link("self", self.item(collection, month, item_id), GEOJSON),
            pystac.Link("root", self.root(), JSON),
            pystac.Link("parent", self.parent(collection, month), JSON),
            pystac.Link("collection", self.collection(collection), JSON),
        ]
