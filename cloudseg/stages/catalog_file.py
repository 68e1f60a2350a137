"""Where an embedded catalog lies: whether it is a file, on what kind of drive, and how full its disk is."""

import os
import shutil
import stat
from pathlib import Path
from typing import Final

from cloudseg.catalog import Catalog
from cloudseg.errors import SettingsError

_NETWORK_DRIVES: Final = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "9p",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.s3fs",
        "lustre",
    }
)
"""Types of file systems (/proc/mounts) that are on another machine."""
_LEAST_FREE: Final = 256 << 20
"""Bytes: a write-ahead log grows by about as much in a long ingest (sqlite.org/wal.html, "Avoiding Excessively Large
WAL Files")."""


def check_catalog_file(catalog: Catalog) -> None:
    """Check that an embedded catalog is a regular file, or nothing yet.

    Raises:
        SettingsError: it is a device, a pipe, a socket or a folder.
    """
    path = _file_of(catalog)
    try:
        mode = path.stat().st_mode if path is not None else None
    except OSError:  # opening it says why
        return
    if mode is not None and not stat.S_ISREG(mode):
        raise SettingsError(
            "the catalog is not a regular file",
            subject=catalog.uri,
            found=_kind(mode),
            expected="a SQLite file, or nothing yet",
            next_step="Set CLOUDSEG_HOME to another folder, or remove what is there.",
        )


def describe_catalog_disk(catalog: Catalog, mounts: Path = Path("/proc/mounts")) -> str | None:
    """Return what is wrong with the place of an embedded catalog, None if nothing is.

    Args:
        catalog: of the settings.
        mounts: the system's list of mounted file systems.
    """
    path = _file_of(catalog)
    if path is None:
        return None
    folder = path.parent
    kind = _drive(folder.resolve(), mounts)
    if kind in _NETWORK_DRIVES:
        return (
            f"{folder} is on a network drive ({kind}), where SQLite's locks do not work reliably and a catalog can be "
            "damaged: move CLOUDSEG_HOME to a local disk, or use PostgreSQL"
        )
    free = shutil.disk_usage(folder).free if folder.is_dir() else None
    if free is not None and free < _LEAST_FREE:
        return f"the disk of the catalog is nearly full: {free >> 20} MB are free in {folder}"
    return None


def _file_of(catalog: Catalog) -> Path | None:
    url = catalog.engine.url
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")):
        return None
    return Path(url.database).absolute()


def _kind(mode: int) -> str:
    kinds = {stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a folder")


def _drive(folder: Path, mounts: Path) -> str | None:
    """Return the type of the file system that holds a folder: that of the longest mount point above it."""
    best: tuple[int, str | None] = (-1, None)
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return None
    for fields in (line.split(" ") for line in lines):
        if len(fields) < 3:
            continue
        # Blanks and the like are octal there (proc(5), getmntent(3)).
        point = os.fsdecode(os.fsencode(fields[1]).decode("unicode_escape").encode("latin-1"))
        if folder.is_relative_to(point) and len(point) >= best[0]:
            best = (len(point), fields[2])
    return best[1]
