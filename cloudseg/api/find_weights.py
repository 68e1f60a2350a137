"""Find the weights that a user names: the champion, an id, a version, a file or a published address."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from cloudseg.api.fetch import fetch, is_address, read_file
from cloudseg.catalog import names
from cloudseg.catalog.promise_rows import find_promise
from cloudseg.errors import BadWeights, InputError, NotInCatalog
from cloudseg.keys import sha256_of
from cloudseg.records import Promise, Weights
from cloudseg.runtime import has_catalog, open_runtime, read_settings, s3_options
from cloudseg.storage import Store
from cloudseg.storage.protocol import compare

if TYPE_CHECKING:
    from cloudseg.settings import Settings

_ID: Final = re.compile(r"w-[0-9a-f]{1,20}")
"""A whole id, or how one begins."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_IN_PATH: Final = re.compile(r"/models/([0-9a-f]{64})/weights\.safetensors$")
"""`cloudseg.keys.weights`: the folder of published weights is their checksum."""
_ITEM_NAME: Final = re.compile(r"/item\.([0-9a-f]{12})\.json$")
"""`cloudseg.keys.weights_asset`: the name of a published item has the first digits of its checksum."""
_MULTIHASH: Final = "1220"
"""SHA-256 of 32 bytes, before the digest (STAC file extension)."""
_MAX_ITEM_BYTES: Final = 1 << 20
_FORMS: Final = "a weights id (w-…), a version (v31), champion, a weights file, or its https, s3 or file address"


@dataclass(frozen=True)
class CatalogWeights:
    """Weights of this home."""

    store: Store
    row: Weights
    promise: Promise | None
    """Thresholds that were chosen for them on held-out places."""


@dataclass(frozen=True)
class WeightsFile:
    """Weights that are in no catalog here; their bytes are those of the checksum that came with the address."""

    data: bytes
    int8: Callable[[], bytes] | None = None
    """Reads their int8 file, where the address says which it is."""


def find_weights(named: str | Path | None) -> CatalogWeights | WeightsFile:
    """Return the weights.

    Args:
        named: the champion of this home if None.

    Raises:
        NotInCatalog: there is no such row, no champion yet, or no catalog.
        InputError: the name has no such form, or the file cannot be read.
        ObjectCorrupt: the bytes do not match the checksum.
        StoreError: the store or the server fails.
    """
    settings, text = read_settings(), None if named is None else str(named)
    if text is None or (isinstance(named, str) and _is_name(text)):
        return _in_catalog(settings, text)
    if isinstance(named, str) and is_address(named):
        return _at_address(named, settings)
    path = Path(text).expanduser()
    if isinstance(named, str) and not path.exists():
        raise InputError("no such weights", subject=named, expected=_FORMS)
    return WeightsFile(read_file(path))


def _is_name(text: str) -> bool:
    return text == names.CHAMPION or bool(_ID.fullmatch(text) or names.VERSION.fullmatch(text))


def require_catalog(settings: "Settings", name: str | None) -> None:
    """Check that there is a catalog.

    Args:
        settings: of this process.
        name: what is looked up, None for the default.

    Raises:
        NotInCatalog: there is none.
    """
    if not has_catalog(settings):
        raise NotInCatalog(
            "there is no catalog to look up weights in",
            subject=name or "champion",
            found=f"no catalog.db in CLOUDSEG_HOME ({settings.home})",
            expected=_FORMS if name is None else None,
            next_step="Name the weights: --weights FILE or URL, in Python cloudseg.load(FILE or URL); "
            "or set CLOUDSEG_HOME or CLOUDSEG_CATALOG_URL.",
        )


def _in_catalog(settings: "Settings", name: str | None) -> CatalogWeights:
    require_catalog(settings, name)
    runtime = open_runtime()
    with runtime.catalog.read() as db:
        row = names.get_weights(db, name or names.CHAMPION)
        return CatalogWeights(runtime.store, row, find_promise(db, row.weights_id))


def _at_address(address: str, settings: "Settings") -> WeightsFile:
    s3 = s3_options(settings)
    if urlsplit(address).path.endswith(".json"):
        return _of_item(address, settings)
    expected = _checksum_in(address)
    if expected is None and urlsplit(address).scheme != "file":
        raise InputError(
            "the address has no checksum, so what it returns cannot be verified",
            subject=address.partition("?")[0],
            expected="…/models/SHA256/weights.safetensors, or an address that ends with #sha256=…",
            next_step="Append #sha256= and the SHA-256 of the file (sha256sum), from a source that you trust.",
        )
    data = fetch(address, s3)
    compare(address.partition("?")[0], sha256_of(data), expected)
    return WeightsFile(data)


def _checksum_in(address: str) -> str | None:
    """Return the checksum in the fragment, as pip has it, or in the path of a published object."""
    parts = urlsplit(address)
    name, _, value = parts.fragment.partition("=")
    if name == "sha256":
        if not _SHA256.fullmatch(value):
            raise InputError("not a SHA-256", subject="#sha256", found=value, expected="64 hexadecimal digits")
        return value
    found = _IN_PATH.search(parts.path)
    return found[1] if found else None


def _of_item(address: str, settings: "Settings") -> WeightsFile:
    """Return the weights that a published STAC item of a model describes, with their int8 file."""
    s3, data = s3_options(settings), fetch(address, s3_options(settings), max_bytes=_MAX_ITEM_BYTES)
    compare(address.partition("?")[0], sha256_of(data), _checksum_in(address))
    if name := _ITEM_NAME.search(urlsplit(address).path):
        compare(address.partition("?")[0], sha256_of(data)[: len(name[1])], name[1])
    try:
        assets: dict[str, Any] = json.loads(data)["assets"]
        located = {name: _asset(assets[name], address) for name in ("weights", "int8") if name in assets}
        url, sha256 = located["weights"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadWeights(
            "not the STAC item of a model",
            subject=address.partition("?")[0],
            found=f"{type(error).__name__}: {error}",
            expected="an item with an asset `weights` that has a file:checksum",
            next_step="Use the address of the item or of the weights file that `cloudseg models --json` prints.",
        ) from error

    def read(href: str, expected: str) -> bytes:
        found = fetch(href, s3)
        compare(href.partition("?")[0], sha256_of(found), expected)
        return found

    return WeightsFile(read(url, sha256), (lambda: read(*located["int8"])) if "int8" in located else None)


def _asset(asset: dict[str, Any], item: str) -> tuple[str, str]:
    """Return address and SHA-256 of an asset, which lies beside its item or has an address of the same server.

    Raises:
        ValueError: it lies elsewhere, or has no such checksum.
    """
    href, checksum = str(asset["href"]), str(asset["file:checksum"])
    if is_address(href):
        if urlsplit(href)[:2] != urlsplit(item)[:2]:
            raise ValueError(f"an asset on another server: {href}")
    else:
        name = href.removeprefix("./")
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"an asset that is not beside its item: {href}")
        href = f"{item.partition('#')[0].partition('?')[0].rpartition('/')[0]}/{name}"
    if not checksum.startswith(_MULTIHASH) or not _SHA256.fullmatch(checksum[len(_MULTIHASH) :]):
        raise ValueError(f"not a SHA-256: {checksum}")
    return href, checksum[len(_MULTIHASH) :]
