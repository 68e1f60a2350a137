"""What the rest of the code may ask of an object store."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from cloudseg.errors import SettingsError
from cloudseg.records import StoredObject


class Store(Protocol):
    """Immutable objects under checked keys (`cloudseg.keys`). Safe to share between threads.

    Every method raises StoreUnreachable where the store does not answer, ValueError for a key that is none.
    """

    @property
    def uri(self) -> str:
        """Where the store is, for people: no secrets."""
        ...

    def put(self, key: str, data: bytes) -> StoredObject:
        """Create an object. The same bytes under the same key again: nothing changes.

        Raises ObjectExists where other bytes stand under the key.
        """
        ...

    def put_file(self, key: str, path: Path) -> StoredObject:
        """Create an object from a file without loading it into memory; otherwise like `put`."""
        ...

    def replace(self, key: str, data: bytes) -> StoredObject:
        """Write a derived object (a pointer) that may change; readers see the old or the new bytes, never a mixture."""
        ...

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """Give an object's bytes. Raises ObjectMissing, and ObjectCorrupt where the checksum does not match."""
        ...

    def stat(self, key: str) -> tuple[int, datetime]:
        """Give size in bytes and time of writing. Raises ObjectMissing."""
        ...

    def exists(self, key: str) -> bool:
        """Tell whether an object is there."""
        ...

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """Give the keys that begin with the prefix, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...

    def local_file(self, key: str) -> AbstractContextManager[Path]:
        """Lend a readable local file with the object's bytes, for memory mapping. Raises ObjectMissing."""
        ...

    def gdal_path(self, key: str) -> str:
        """Give the name under which GDAL opens the object by ranges, without a copy."""
        ...

    def uri_of(self, key: str) -> str:
        """Give the address of an object for people and STAC items."""
        ...


def open_store(url: str) -> Store:
    """Open the store of a `file://` URL or a folder; the folder is made when absent.

    Raises SettingsError for a scheme that no store speaks.
    """
    from cloudseg.storage.local import LocalStore

    parts = urlsplit(url)
    if parts.scheme == "" or (len(parts.scheme) == 1 and url[1:3] == ":\\"):
        return LocalStore(Path(url))
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return LocalStore(Path(unquote(parts.path)))
    raise SettingsError(
        "no store speaks this scheme", subject="CLOUDSEG_STORE_URL", found=parts.scheme, expected="a folder or file:///folder",
        next_step="Set CLOUDSEG_STORE_URL to a folder.",
    )  # fmt: skip
