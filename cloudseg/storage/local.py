"""A folder as object store: create-only by hard link, atomic replacement by rename, everything fsynced.

One machine (or a file system with working hard links); several processes may write at once.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from cloudseg.errors import ObjectCorrupt, ObjectExists, ObjectMissing, StoreUnreachable
from cloudseg.keys import checked, sha256_of
from cloudseg.records import StoredObject

_INCOMING = ".incoming"


class LocalStore:
    """Objects as plain files under `root`; unfinished writes lie in `root/.incoming` and are never listed."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        try:
            (self.root / _INCOMING).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnreachable("the store's folder cannot be made", subject=str(self.root), found=error.strerror) from error

    @property
    def uri(self) -> str:
        """`file:///…`."""
        return self.root.as_uri()

    def put(self, key: str, data: bytes) -> StoredObject:
        """See Store.put."""
        with self._incoming() as (handle, path):
            handle.write(data)
            return self._link(path, handle, StoredObject(key=checked(key), sha256=sha256_of(data), size=len(data)))

    def put_file(self, key: str, path: Path) -> StoredObject:
        """See Store.put_file."""
        with path.open("rb") as source, self._incoming() as (handle, incoming):
            shutil.copyfileobj(source, handle, 1 << 20)
            handle.flush()
            sha256, size = file_sha256(incoming), incoming.stat().st_size
            return self._link(incoming, handle, StoredObject(key=checked(key), sha256=sha256, size=size))

    def replace(self, key: str, data: bytes) -> StoredObject:
        """See Store.replace."""
        target = self._path(key)
        with self._incoming() as (handle, path):
            handle.write(data)
            _sync(handle)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
            _sync_folder(target.parent)
        return StoredObject(key=key, sha256=sha256_of(data), size=len(data))

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """See Store.get."""
        try:
            data = self._path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise self._missing(key) from error
        if sha256 is not None and (found := sha256_of(data)) != sha256:
            raise ObjectCorrupt(
                "the object's bytes do not match its checksum", subject=key, found=found, expected=sha256,
                next_step="Run `cloudseg maintain`; restore the object from a backup.",
            )  # fmt: skip
        return data

    def stat(self, key: str) -> tuple[int, datetime]:
        """See Store.stat."""
        try:
            found = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._missing(key) from error
        return found.st_size, datetime.fromtimestamp(found.st_mtime, UTC)

    def exists(self, key: str) -> bool:
        """See Store.exists."""
        return self._path(key).is_file()

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """See Store.list_keys."""
        keys = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        return iter(sorted(key for key in keys if key.startswith(prefix) and not key.startswith(_INCOMING)))

    def delete(self, key: str) -> None:
        """See Store.delete."""
        self._path(key).unlink(missing_ok=True)

    @contextmanager
    def local_file(self, key: str) -> Iterator[Path]:
        """See Store.local_file."""
        path = self._path(key)
        if not path.is_file():
            raise self._missing(key)
        yield path

    def gdal_path(self, key: str) -> str:
        """See Store.gdal_path."""
        return str(self._path(key))

    def uri_of(self, key: str) -> str:
        """See Store.uri_of."""
        return self._path(key).as_uri()

    def _path(self, key: str) -> Path:
        return self.root / checked(key)

    def _missing(self, key: str) -> ObjectMissing:
        return ObjectMissing("no object under this key", subject=key, found=f"nothing in {self.uri}", next_step="Run `cloudseg doctor`.")

    @contextmanager
    def _incoming(self) -> Iterator[tuple[IO[bytes], Path]]:
        try:
            handle = tempfile.NamedTemporaryFile(dir=self.root / _INCOMING, delete=False)  # noqa: SIM115
        except OSError as error:
            raise StoreUnreachable("the store cannot be written", subject=self.uri, found=error.strerror) from error
        path = Path(handle.name)
        try:
            with handle:
                yield handle, path
        except OSError as error:
            raise StoreUnreachable("writing to the store failed", subject=self.uri, found=error.strerror) from error
        finally:
            path.unlink(missing_ok=True)

    def _link(self, path: Path, handle: IO[bytes], stored: StoredObject) -> StoredObject:
        """Give the finished file its name; os.link fails where the name is taken, so two writers cannot both win."""
        _sync(handle)
        path.chmod(0o644)
        target = self._path(stored.key)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except FileExistsError as error:
            if target.stat().st_size != stored.size or file_sha256(target) != stored.sha256:
                found = file_sha256(target)
                raise ObjectExists(
                    "other bytes stand under this key", subject=stored.key, found=found, expected=stored.sha256,
                    next_step="Objects are never overwritten: find out which writer made the other one.",
                ) from error  # fmt: skip
            os.utime(target)  # young again: maintenance must not take it for an old orphan before its row is there
        _sync_folder(target.parent)
        return stored


def file_sha256(path: Path) -> str:
    """Give the hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync(handle: IO[bytes]) -> None:
    handle.flush()
    os.fsync(handle.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable (fsync(2): syncing a file does not sync its folder's entry)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
