"""Private folders below the system's temporary folder, and the removal of those that a killed process left.

The owner holds a lock (flock) on its folder for as long as it lives; the kernel releases it however the owner ends. So
a folder whose lock is free is abandoned, and whoever gets that lock may remove it.
"""

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
"""Bytes; with less left on its disk a decoder that fails probably failed for that reason."""


@contextmanager
def scratch_directory(purpose: str) -> Iterator[Path]:
    """Yield a new empty folder that only this user can enter; it is removed at the end.

    Abandoned ones of this user are removed first.

    `purpose` becomes part of its name, for the person who looks at a full disk.

    Raises SettingsError where no temporary folder can be written.
    """
    try:
        top = Path(tempfile.gettempdir())
        _remove_abandoned(top)
        folder, lock = _locked_folder(top, purpose)
    except OSError as error:
        raise SettingsError(
            "no temporary folder can be written",
            subject="TMPDIR",
            found=error.strerror or error,
            next_step="Name a folder with room for the largest scene in TMPDIR.",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def check_room(folder: Path, error: InputError) -> None:
    """Tell a full disk from a bad file, so that a good file is never quarantined for it.

    Raises StoreUnreachable where the disk of the folder is full: a retry can help, and `error` is what it led to.
    """
    free = shutil.disk_usage(folder).free
    if free < _LEAST_FREE:
        raise StoreUnreachable(
            "the disk of the temporary folder is full",
            subject=str(folder.parent),
            found=f"{free >> 20} MB free after: {error.what}",
            expected=f"at least {_LEAST_FREE >> 20} MB",
            next_step="Make room, or name another folder in TMPDIR; then ingest again.",
        ) from error


def _locked_folder(top: Path, purpose: str) -> tuple[Path, int]:
    """Make a folder and lock it.

    Between the two another process may take it for abandoned; then another one is made.
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
            continue  # its owner lives
        finally:
            os.close(lock)


def _open_folder(folder: Path) -> int | None:
    """Open a folder to lock it; None where it is gone, a link, or another user's."""
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None


def _is_same(folder: Path, lock: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(lock))
    except FileNotFoundError:
        return False
