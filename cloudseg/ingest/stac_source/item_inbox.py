"""One remote STAC item as an inbox: the layout `stac` chooses among its assets as it does among files on a disk."""

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import unquote, urlsplit

from cloudseg.bands import RGB
from cloudseg.errors import BadScene
from cloudseg.ingest.candidate import Candidate
from cloudseg.ingest.inbox_file import InboxFile, NotRead, escape_name
from cloudseg.ingest.layouts.base import RASTER_SUFFIXES, FileListing
from cloudseg.ingest.layouts.stac import StacAssets
from cloudseg.ingest.layouts.stac_items import StacItems
from cloudseg.ingest.stac_item import MAX_ITEM_BYTES, parse_item
from cloudseg.ingest.stac_source.find_items import FoundItem
from cloudseg.ingest.stac_source.hosts import Refused, absolute

_ITEM: Final = "item.json"
_MAX_ASSETS: Final = 500
_SUFFIX_OF: Final = {"image/tiff": "tif", "image/vnd.stac.geotiff": "tif", "image/jp2": "jp2"}
"""Suffix by media type, for addresses that have none."""
_SHA256: Final = re.compile(r"1220([0-9a-f]{64})", re.A)
"""A multihash of SHA-256 (STAC extension `file`)."""


@dataclass(frozen=True)
class RemoteAsset:
    """A file of an item on a server."""

    key: str
    href: str
    checksum: str
    """Multihash that the item states; empty if it states none."""

    @property
    def sha256(self) -> str | None:
        """The SHA-256 that the item states, if it states that one."""
        found = _SHA256.fullmatch(self.checksum)
        return found[1] if found else None


class ItemInbox:
    """The files of one item; those that were fetched can be opened. Implements `Inbox`."""

    def __init__(self, found: FoundItem) -> None:
        """Name the item's assets like files.

        Raises:
            Refused: The item is too large.
            BadScene: It is no STAC item, or damaged.
        """
        self.uri = found.uri
        self.collection = str(found.values.get("collection"))[:200]
        self.assets: dict[str, RemoteAsset] = {}
        """By path."""
        self._local: dict[str, Path] = {}
        self._content = self._renamed(found)

    def list_files(self) -> list[InboxFile]:
        """Return the item and its assets; see `Inbox.list_files`."""
        return [InboxFile(path, self.uri) for path in (_ITEM, *self.assets)]

    @contextmanager
    def open(self, file: InboxFile) -> Iterator[IO[bytes]]:
        """Yield an open binary file; see `Inbox.open`."""
        if file.path == _ITEM:
            yield io.BytesIO(self._content)
            return
        try:
            handle = self._local[file.path].open("rb")
        except (KeyError, OSError) as error:
            raise NotRead("the file was not fetched", subject=file.path, next_step="Ingest again.") from error
        with handle:
            yield handle

    def set_local(self, path: str, copy: Path) -> None:
        """Set where the copy of a file is."""
        self._local[path] = copy

    def candidate(self, bands: tuple[str | None, ...] | None) -> Candidate:
        """Return the scene of the item: only the wanted bands, and the quality layer.

        Args:
            bands: Value of `--bands`; None: red, green and blue.

        Raises:
            BadScene: The item has no such assets, or states a scale that cannot be used.
        """
        files = self.list_files()
        stated = parse_item(files[0], self._content)
        listing = FileListing(tuple(files), bands, self, StacItems(self, files))
        found = StacAssets().find(listing)
        if not found:
            named = {band.name for asset in (stated.assets if stated else ()) for band in asset.bands if band.name}
            raise BadScene(
                "no assets of the item are its bands",
                subject=self.uri,
                found=", ".join(sorted(named)) or "no band with a common name",
                expected=", ".join(band for band in bands or RGB if band),
                next_step="Choose a collection whose items name the bands (eo:bands) of GeoTIFF or JPEG 2000 files.",
            )
        if not isinstance(found[0], Candidate):
            raise found[0].reason()
        scene = found[0]
        if bands is None and len(scene.files) > 1:
            scene = replace(scene, files=tuple(file for file in scene.files if set(file.bands or ()) & set(RGB)))
        return scene

    def _renamed(self, found: FoundItem) -> bytes:
        """Return the item with relative addresses that are valid names of files, and keep the real ones.

        Assets that can be fetched come first, GeoTIFFs before others, because the layout takes the first of a band.
        """
        assets = found.values.get("assets")
        pairs = [
            (str(key), asset)
            for key, asset in (assets.items() if isinstance(assets, dict) else ())
            if isinstance(asset, dict) and isinstance(asset.get("href"), str)
        ]
        if len(pairs) > _MAX_ASSETS:
            raise Refused("the item has too many assets", subject=self.uri, found=len(pairs), expected=_MAX_ASSETS)
        named: dict[str, Any] = {}
        for key, asset in sorted(pairs, key=lambda pair: _rank(found.base, pair[1])):
            href = _address(found.base, asset)
            path = self._free_path(key, _file_name(href, asset))
            checksum = asset.get("file:checksum")
            self.assets[path] = RemoteAsset(key, href, checksum[:200] if isinstance(checksum, str) else "")
            named[key] = asset | {"href": f"./{path}"}
        try:
            content = json.dumps(found.values | {"assets": named}).encode()
            if parse_item(InboxFile(_ITEM, self.uri), content) is None:
                raise ValueError("no STAC item")
        except (ValueError, RecursionError) as error:
            raise BadScene("not a STAC item", subject=self.uri, found=str(error)[:200]) from error
        if len(content) > MAX_ITEM_BYTES:
            raise Refused("the item is too large", subject=self.uri, expected=f"at most {MAX_ITEM_BYTES >> 20} MB")
        return content

    def _free_path(self, key: str, name: str) -> str:
        folder = _plain(key)[:60] or "asset"
        path = f"{folder}/{name}"
        while path in self.assets:
            folder += "_"
            path = f"{folder}/{name}"
        return path


def _rank(base: str, asset: dict[str, Any]) -> tuple[bool, bool]:
    href = _address(base, asset)
    return not href.startswith(("https://", "http://")), not _file_name(href, asset).endswith((".tif", ".tiff"))


def _address(base: str, asset: dict[str, Any]) -> str:
    """Return the address of an asset; of those of the extension `alternate-assets` one on the web, if it is not."""
    main = absolute(base, asset["href"])
    alternate = asset.get("alternate")
    others = (
        [each.get("href") for each in alternate.values() if isinstance(each, dict)]
        if isinstance(alternate, dict)
        else []
    )
    found = [main, *(absolute(base, href) for href in others if isinstance(href, str))]
    return next((href for href in found if href.startswith(("https://", "http://"))), main)


def _file_name(href: str, asset: dict[str, Any]) -> str:
    """Return the name of the file: that of the address, with a suffix that says what it is."""
    try:
        name = _plain(unquote(urlsplit(href).path).rpartition("/")[2])[-120:].lstrip(".")
    except ValueError:
        name = ""
    stem, dot, suffix = name.rpartition(".")
    if dot and suffix.lower() in RASTER_SUFFIXES:
        return f"{stem or 'file'}.{suffix.lower()}"
    media_type = str(asset.get("type", "")).partition(";")[0].strip().lower()
    return f"{name or 'file'}.{_SUFFIX_OF[media_type]}" if media_type in _SUFFIX_OF else name or "file"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", escape_name(text))
