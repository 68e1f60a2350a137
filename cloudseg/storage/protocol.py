"""What the rest of the code may ask of an object store."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, Protocol

from cloudseg.records import GdalPath, ListedObject, StoredObject

ABANDONED_AFTER_S: Final = 24 * 3600
"""An unfinished write this old has lost its writer: no upload of one object takes a day."""


@dataclass(frozen=True)
class S3Options:
    """How S3 is reached.

    Credentials are no part of it: the standard chain of boto3 finds them (environment, profile, role).
    """

    endpoint: str | None = None
    """`http(s)://host[:port]` of the server; None: AWS."""
    link_endpoint: str | None = None
    """The same server as people reach it, for presigned links; None: `endpoint`."""
    region: str | None = None
    """None: what environment or profile say."""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """Whether the bucket's name stands in the path or in the host; auto: in the path where an endpoint is given."""
    ca_bundle: Path | None = None
    """Certificates (PEM) of the authority behind an https endpoint; None: the well-known ones."""
    timeout_s: float = 60.0
    """Longest silence of the server. SeaweedFS lets the losers of a contended key wait for several seconds."""
    attempts: int = 5
    """Of every request, the first one included."""


class Store(Protocol):
    """Immutable objects under checked keys (`cloudseg.keys`). Safe to share between threads.

    Every method raises StoreUnreachable where the store does not answer, StoreRefused where it will not serve us,
    ValueError for a key that is none.
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

    def replace(self, key: str, data: bytes, expected: bytes | None = None) -> StoredObject:
        """Write a derived object (a pointer) that may change; readers see the old or the new bytes, never a mixture.

        With `expected` only where the object holds just these bytes (compare and swap): raises ObjectExists otherwise.
        """
        ...

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """Return an object's bytes. Raises ObjectMissing, and ObjectCorrupt where the checksum does not match."""
        ...

    def stat(self, key: str) -> tuple[int, datetime]:
        """Return size in bytes and time of writing. Raises ObjectMissing."""
        ...

    def exists(self, key: str) -> bool:
        """Return whether an object is there."""
        ...

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that begin with the prefix, sorted."""
        ...

    def list_objects(self, prefix: str = "") -> Iterator[ListedObject]:
        """Yield what `list_keys` gives, in the store's own order, with size and time.

        One question for many objects, none held.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...

    def local_file(self, key: str) -> AbstractContextManager[Path]:
        """Yield a readable local file with the object's bytes, for memory mapping. Raises ObjectMissing."""
        ...

    def gdal_path(self, key: str) -> GdalPath:
        """Return what `raster.read.open_raster` opens by ranges, without a copy.

        Good for some minutes where credentials expire.
        """
        ...

    def uri_of(self, key: str) -> str:
        """Return the address of an object for people and STAC items."""
        ...

    def link(self, key: str, expires_s: int) -> str:
        """Return a URL that anyone may read the object with until it expires.

        Whether the object exists is not looked at.

        Raises InputError where the store has no such links, or not for so long.
        """
        ...

    def clear_abandoned(self) -> int:
        """Remove what killed writers left unfinished more than a day ago; tell how much that was."""
        ...
