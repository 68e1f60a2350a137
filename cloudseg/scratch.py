"""Scratch directories below the system's temporary directory, removed even after the process that made them was killed.

A process holds a lock (flock) on its scratch directory while it runs, and the kernel releases the lock however the
process ends. A directory whose lock is free is therefore abandoned, and the process that takes the lock may remove it.
"""

import errno
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cloudseg.errors import InputError, SettingsError, StoreUnreachable

log = logging.getLogger(__name__)
_PREFIX: Final = "cloudseg-work-"
_LEAST_FREE: Final = 64 << 20
"""Bytes: a decoder that fails with less left on its disk probably failed for that reason."""


@contextmanager
def scratch_directory(purpose: str) -> Iterator[Path]:
    """Yield a new empty directory that only this user can enter and that is removed at the end.

    Abandoned scratch directories of this user are removed first.

    Args:
        purpose: part of the name, for an operator who cleans up a full disk.

    Raises:
        SettingsError: the temporary directory cannot be written.
    """
    try:
        top = Path(tempfile.gettempdir())
        _remove_abandoned(top)
        folder, lock = _locked_folder(top, purpose)
    except OSError as error:
        raise SettingsError(
            "the temporary directory cannot be written",
            subject="TMPDIR",
            found=error.strerror or error,
            next_step="Set TMPDIR to a directory with room for the largest scene.",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def check_room(folder: Path, error: InputError) -> None:
    """Distinguish a full disk from a bad file, so that a good file is never quarantined because of the disk.

    Args:
        folder: the scratch directory in which the decoder worked.
        error: the error that it ended with.

    Raises:
        StoreUnreachable: the disk of the directory is full; a retry can help.
    """
    free = shutil.disk_usage(folder).free
    if free < _LEAST_FREE:
        raise StoreUnreachable(
            "the disk of the temporary directory is full",
            subject=str(folder.parent),
            found=f"{free >> 20} MB free after: {error.what}",
            expected=f"at least {_LEAST_FREE >> 20} MB",
            next_step="Free space, or set TMPDIR to another directory; then ingest again.",
        ) from error


def cannot_write(folder: Path, error: OSError, *, expected: str | None = None) -> StoreUnreachable:
    """Return the error of a write below the temporary directory that failed: usually its disk is full.

    Args:
        folder: the temporary directory.
        error: what the system said.
        expected: how much room is needed, if that is known.
    """
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StoreUnreachable(
        f"the disk of the temporary directory {'is full' if full else 'cannot be written'}",
        subject=str(folder),
        found=error.strerror or str(error),
        expected=expected,
        next_step="Make room, or set TMPDIR to another directory.",
    )


def copy_file(source: Path, to: Path) -> Path:
    """Copy a file into a scratch directory and return the copy.

    Args:
        source: a file of this service.
        to: path of the copy, in a scratch directory.

    Raises:
        StoreUnreachable: the disk has no room for it; a retry can help.
    """
    try:
        return Path(shutil.copyfile(source, to))
    except OSError as error:
        raise cannot_write(to.parent, error, expected=f"{source.stat().st_size} bytes free") from error


def reserve_file(path: Path, size: int) -> None:
    """Create a file of zeros with its blocks on the disk, so that it can be mapped.

    Without them a full disk ends the process that writes to the map with SIGBUS, and no error says why.

    Args:
        path: of the file, in a scratch directory.
        size: bytes, at least 1.

    Raises:
        StoreUnreachable: the disk has no room for it; a retry can help.
    """
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise cannot_write(path.parent.parent, error, expected=f"{size} bytes free") from error


def _locked_folder(top: Path, purpose: str) -> tuple[Path, int]:
    """Make a directory and lock it; return its path and the descriptor that holds the lock.

    Between the two steps another process may consider the directory abandoned and remove it; then a new one is made.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}-", dir=top))
        lock = _open_folder(folder)
        if lock is None:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_same(folder, lock):
            return folder, lock
        os.close(lock)


def _remove_abandoned(top: Path) -> None:
    """Remove the scratch directories of this user whose lock is free."""
    for folder in sorted(top.glob(f"{_PREFIX}*")):
        lock = _open_folder(folder)
        if lock is None:
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                log.info("removed %s, which a killed process had left", folder)
        except BlockingIOError:
            continue  # its process still runs
        finally:
            os.close(lock)


def _open_folder(folder: Path) -> int | None:
    """Open a directory in order to lock it; None if it is missing, a link, or another user's."""
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None


def _is_same(folder: Path, lock: int) -> bool:
    """Return whether the path still names the directory that was locked."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(lock))
    except FileNotFoundError:
        return False
