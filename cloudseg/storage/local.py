"""A directory as object store: create-only by hard link, atomic replacement by rename, everything fsynced.

One machine (or a file system with working hard links); several processes may write at once.
"""

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from cloudseg.errors import InputError, ObjectExists, ObjectMissing, StoreUnreachable
from cloudseg.keys import checked, is_key, sha256_of
from cloudseg.records import GdalPath, ListedObject, StoredObject
from cloudseg.storage.protocol import ABANDONED_AFTER_S, compare

_INCOMING = ".incoming"
_MISSING_ERRORS = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class LocalStore:
    """Objects as plain files below `root`; unfinished writes are in `root/.incoming` and are never listed."""

    def __init__(self, root: Path) -> None:
        """Create the directory if it is missing.

        Raises:
            StoreUnreachable: the directory cannot be created.
        """
        self.root = root.absolute()
        try:
            (self.root / _INCOMING).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnreachable(
                "the store's directory cannot be created", subject=str(self.root), found=error.strerror
            ) from error

    @property
    def uri(self) -> str:
        """`file:///…`."""
        return self.root.as_uri()

    def put(self, key: str, data: bytes) -> StoredObject:
        """See Store.put."""
        stored = StoredObject(key=checked(key), sha256=sha256_of(data), size=len(data))
        with self._incoming() as (handle, path):
            handle.write(data)
            self._link(path, handle, stored)
        return stored

    def put_file(self, key: str, path: Path) -> StoredObject:
        """See Store.put_file."""
        checked(key)
        with path.open("rb") as source, self._incoming() as (handle, incoming):
            shutil.copyfileobj(source, handle, 1 << 20)
            handle.flush()
            # Hash what was written, not what was read: the source may have changed under the copy.
            stored = StoredObject(key=key, sha256=file_sha256(incoming), size=incoming.stat().st_size)
            self._link(incoming, handle, stored)
        return stored

    def replace(self, key: str, data: bytes, expected: bytes | None = None) -> StoredObject:
        """See Store.replace."""
        target = self._path(key)
        with self._incoming() as (handle, path), self._replace_lock():
            if expected is not None and (not target.is_file() or target.read_bytes() != expected):
                raise ObjectExists(
                    "the object is not what the writer expected", subject=key, next_step="Read it again."
                )
            handle.write(data)
            _finish(handle, path)
            self._make_folder(target)
            path.replace(target)
            _sync_folder(target.parent)
        return StoredObject(key=key, sha256=sha256_of(data), size=len(data))

    @contextmanager
    def _replace_lock(self) -> Iterator[None]:
        """Hold the lock of compare and swap; the kernel releases it however the process ends."""
        lock = os.open(self.root / _INCOMING, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """See Store.get."""
        self.stat(key)  # a pipe would be waited for
        with self._reading(key):
            data = self._path(key).read_bytes()
        if sha256 is not None:
            compare(key, sha256_of(data), sha256)
        return data

    def stat(self, key: str) -> tuple[int, datetime]:
        """See Store.stat."""
        with self._reading(key):
            found = self._path(key).stat()
        if not stat.S_ISREG(found.st_mode):
            raise self._missing(key)
        return found.st_size, datetime.fromtimestamp(found.st_mtime, UTC)

    def exists(self, key: str) -> bool:
        """See Store.exists."""
        try:
            self.stat(key)
        except ObjectMissing:
            return False
        return True

    def list_objects(self, prefix: str = "") -> Iterator[ListedObject]:
        """See Store.list_objects."""
        for key in self._keys(prefix):
            with suppress(ObjectMissing):  # deleted since it was listed
                size, written_at = self.stat(key)
                yield ListedObject(key=key, size=size, written_at=written_at)

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """See Store.list_keys. Files whose names are not valid keys (such as `.DS_Store`) are skipped."""
        return iter(sorted(self._keys(prefix)))

    def _keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with the prefix, in the order of the file system."""
        # The prefix may end in the middle of a name, so the folder before its last slash is walked.
        folder = self.root / checked(prefix.rpartition("/")[0]) if "/" in prefix else self.root
        try:
            for parent, names in _files_under(folder):
                inside = "" if parent == self.root else f"{parent.relative_to(self.root).as_posix()}/"
                yield from (key for name in names if (key := inside + name).startswith(prefix) and is_key(key))
        except OSError as error:
            raise StoreUnreachable("the store cannot be listed", subject=self.uri, found=error.strerror) from error

    def delete(self, key: str) -> None:
        """See Store.delete."""
        with self._reading(key), suppress(ObjectMissing):
            self.stat(key)
            self._path(key).unlink(missing_ok=True)

    @contextmanager
    def local_file(self, key: str, sha256: str | None = None) -> Iterator[Path]:
        """See Store.local_file."""
        self.stat(key)
        path = self._path(key)
        if sha256 is not None:
            with self._reading(key):
                found = file_sha256(path)
            compare(key, found, sha256)
        yield path

    def gdal_path(self, key: str) -> GdalPath:
        """See Store.gdal_path."""
        return GdalPath(str(self._path(key)), check=lambda: self.stat(key))

    def uri_of(self, key: str) -> str:
        """See Store.uri_of."""
        return self._path(key).as_uri()

    def link(self, key: str, expires_s: int) -> str:
        """See Store.link: a local store has none and raises InputError."""
        raise InputError(
            "a local store has no links that expire",
            subject=checked(key),
            found=self.uri_of(key),
            expected="a store on S3",
            next_step="Copy the file, or keep the store on S3 (CLOUDSEG_STORE_URL=s3://...).",
        )

    def clear_abandoned(self) -> int:
        """See Store.clear_abandoned."""
        try:
            return remove_abandoned((self.root / _INCOMING).iterdir())
        except OSError as error:
            raise StoreUnreachable("the store cannot be cleared", subject=self.uri, found=error.strerror) from error

    def _path(self, key: str) -> Path:
        return self.root / checked(key)

    def _missing(self, key: str) -> ObjectMissing:
        return ObjectMissing(
            "no object under this key", subject=key, found=f"nothing in {self.uri}", next_step="Run `cloudseg doctor`."
        )

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        """Turn errors of the file system into ObjectMissing and StoreUnreachable."""
        try:
            yield
        except _MISSING_ERRORS as error:
            raise self._missing(key) from error
        except OSError as error:
            raise StoreUnreachable("the store cannot be read", subject=key, found=error.strerror) from error

    @contextmanager
    def _incoming(self) -> Iterator[tuple[IO[bytes], Path]]:
        """Yield an unfinished file that is removed at the end, whatever happens."""
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

    def _link(self, path: Path, handle: IO[bytes], stored: StoredObject) -> None:
        """Link the complete file under its key; if the name exists, os.link fails, so only one writer succeeds."""
        _finish(handle, path)
        target = self._path(stored.key)
        self._make_folder(target)
        try:
            os.link(path, target)
        except FileExistsError as error:
            found = file_sha256(target) if target.is_file() else "a folder of other objects"
            if found != stored.sha256:
                raise ObjectExists(
                    "the key holds other bytes",
                    subject=stored.key,
                    found=found,
                    expected=stored.sha256,
                    next_step="Objects are never overwritten: find out which writer made the other one.",
                ) from error
            os.utime(target)  # maintenance must not consider it an old orphan before its row is written
        _sync_folder(target.parent)

    def _make_folder(self, target: Path) -> None:
        """Create the directories of a key, each durable before the next.

        Raises:
            ObjectExists: one of them is an object.
        """
        try:
            _make_durable(target.parent)
        except (FileExistsError, NotADirectoryError) as error:
            raise ObjectExists(
                "this key needs a directory where there is an object",
                subject=target.relative_to(self.root).as_posix(),
                next_step="No key may be the prefix folder of another: see cloudseg.keys.",
            ) from error


def _make_durable(folder: Path) -> None:
    """Create a directory with its parents; each entry is on disk before the next is made."""
    if folder.is_dir():
        return
    _make_durable(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _files_under(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield a directory and those below it with the names of their files, without unfinished writes."""
    for parent, folders, names in os.walk(folder, onerror=_raise_unless_gone):
        if _INCOMING in folders:
            folders.remove(_INCOMING)
        yield Path(parent), names


def _raise_unless_gone(error: OSError) -> None:
    """Ignore a directory that was removed during `os.walk`; raise any other error."""
    if not isinstance(error, _MISSING_ERRORS):
        raise error


def remove_abandoned(paths: Iterable[Path]) -> int:
    """Remove the files whose last write is older than a day; return how many there were."""
    removed = 0
    for path in paths:
        with suppress(FileNotFoundError):  # another process removes them too
            if path.stat().st_mtime < time.time() - ABANDONED_AFTER_S:
                path.unlink()
                removed += 1
    return removed


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file, without loading it into memory."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _finish(handle: IO[bytes], path: Path) -> None:
    """Make the bytes durable and the file readable by others (temporary files are not)."""
    handle.flush()
    path.chmod(0o644)
    os.fsync(handle.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable (fsync(2): syncing a file does not sync its folder's entry)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
