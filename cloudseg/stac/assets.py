"""What the STAC items of masks and of weights share: how they are written, and how their assets name stored objects."""

import pystac
from pystac.extensions.file import FileExtension

from cloudseg.keys import canonical_json
from cloudseg.records import StoredObject


def item_bytes(item: pystac.Item) -> bytes:
    """Return an item as canonical JSON, with its links and hrefs as they are: the same item produces the same bytes."""
    return canonical_json(item.to_dict(include_self_link=False, transform_hrefs=False))


def add_asset(item: pystac.Item, name: str, stored: StoredObject, asset: pystac.Asset) -> None:
    """Add an asset with the size and the checksum of the stored object that it refers to.

    The checksum is a multihash (STAC file extension): 12 for SHA-256, 20 for 32 bytes, then the digest, hexadecimal.
    """
    item.add_asset(name, asset)
    FileExtension.ext(asset, add_if_missing=True).apply(checksum=f"1220{stored.sha256}", size=stored.size)
