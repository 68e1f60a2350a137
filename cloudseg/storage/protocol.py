"""The protocol of an object store, which the rest of the code uses, and the options for S3."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, Protocol

from cloudseg.errors import ObjectCorrupt
from cloudseg.records import GdalPath, ListedObject, StoredObject

ABANDONED_AFTER_S: Final = 24 * 3600
"""Age in seconds at which an unfinished write counts as abandoned: no upload of one object takes a day."""


@dataclass(frozen=True)
class S3Options:
    """How S3 is reached, without credentials: boto3's standard chain finds those (environment, profile, role)."""

    endpoint: str | None = None
    """`http(s)://host[:port]` of the server; None: AWS."""
    link_endpoint: str | None = None
    """Address of the same server for users of presigned URLs; None: `endpoint`."""
    region: str | None = None
    """None: that of the environment or the profile."""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """Path-style or virtual-hosted-style requests; auto: path style where an endpoint is given."""
    ca_bundle: Path | None = None
    """Certificates (PEM) of the authority of an https endpoint; None: the well-known ones."""
    timeout_s: float = 60.0
    """Read timeout. SeaweedFS lets the losing writers of a contended key wait for several seconds."""
    attempts: int = 5
    """Attempts of every request, the first one included."""


class Store(Protocol):
    """Immutable objects under checked keys (`cloudseg.keys`). Safe to share between threads.

    In addition to the errors that a method lists, every method raises:

    Raises:
        StoreUnreachable: the store does not answer; a retry can help.
        StoreRefused: the store refuses the request.
        ValueError: the key is not valid.
    """

    @property
    def uri(self) -> str:
        """Address of the store, without secrets."""
        ...

    def put(self, key: str, data: bytes) -> StoredObject:
        """Create an object. If the key holds the same bytes already, nothing changes.

        Raises:
            ObjectExists: the key holds other bytes.
        """
        ...

    def put_file(self, key: str, path: Path) -> StoredObject:
        """Create an object from a file without loading it into memory; otherwise like `put`."""
        ...

    def replace(self, key: str, data: bytes, expected: bytes | None = None) -> StoredObject:
        """Write a derived object (a pointer) that may change; readers see the old or the new bytes, never a mixture.

        Args:
            key: of the object.
            data: its new bytes.
            expected: write only if the object holds just these bytes (compare and swap).

        Raises:
            ObjectExists: the object does not hold the expected bytes.
        """
        ...

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """Return the bytes of an object.

        Raises:
            ObjectMissing: there is no object under the key.
            ObjectCorrupt: the bytes do not match the checksum.
        """
        ...

    def stat(self, key: str) -> tuple[int, datetime]:
        """Return size in bytes and time of writing.

        Raises:
            ObjectMissing: there is no object under the key.
        """
        ...

    def exists(self, key: str) -> bool:
        """Return whether there is an object under the key."""
        ...

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that begin with the prefix, sorted."""
        ...

    def list_objects(self, prefix: str = "") -> Iterator[ListedObject]:
        """Yield the objects whose keys begin with the prefix, with size and time, in the order of the store.

        One request lists many objects, and none of them is kept in memory.
        """
        ...

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is not an error."""
        ...

    def local_file(self, key: str, sha256: str | None = None) -> AbstractContextManager[Path]:
        """Yield a local file with the bytes of the object, for memory mapping and for GDAL.

        Args:
            key: of the object.
            sha256: checksum in its row. The whole object is read and compared before the file is yielded.

        Raises:
            ObjectMissing: there is no object under the key.
            ObjectCorrupt: the bytes do not match the checksum.
        """
        ...

    def gdal_path(self, key: str) -> GdalPath:
        """Return what `raster.read.open_raster` reads by ranges, without a copy.

        It holds for some minutes where credentials expire.
        """
        ...

    def uri_of(self, key: str) -> str:
        """Return the URI of an object."""
        ...

    def link(self, key: str, expires_s: int) -> str:
        """Return a URL by which anyone can read the object until it expires; the object may be missing.

        Raises:
            InputError: the store has no such URLs, or none that last so long.
        """
        ...

    def clear_abandoned(self) -> int:
        """Remove the unfinished writes of killed processes that are older than a day; return how many there were."""
        ...


def compare(key: str, found: str | None, expected: str | None) -> None:
    """Compare the checksum of an object's bytes with the expected one, None for no expectation.

    Raises:
        ObjectCorrupt: they differ.
    """
    if expected is not None and found != expected:
        raise ObjectCorrupt(
            "the object's bytes do not match its checksum",
            subject=key,
            found=found,
            expected=expected,
            next_step="Restore the object from a backup; `cloudseg maintain --verify` lists every damaged one.",
        )
