"""Files of an inbox that no one meant to hand in: what systems, archivers and downloads leave behind.

They are passed over without an entry; docs/reference/layouts.md lists them. Every other unknown file is quarantined.
"""

from typing import Final

from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.layouts.label_folder import is_in_label_folder

_NAMES: Final = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini"))
"""What Windows writes into folders that it shows; in lower case."""
_FOLDERS: Final = frozenset(("__macosx", "$recycle.bin", "system volume information", "@eadir", "lost+found"))
"""Folders of macOS archives, Windows, Synology and Linux file systems; in lower case."""
_SUFFIXES: Final = ("~", ".lock", ".lck", ".gpkg-shm")
"""Backups and locks of editors and of GIS programs that have a file open."""
_OPEN_DATABASE: Final = (".gpkg-wal", ".gpkg-journal")
"""Changes that are not in a GeoPackage itself: among labels they must not get lost, elsewhere no GeoPackage is read."""
_PREFIXES: Final = ("~$",)
"""Locks of office programs."""
_DOWNLOAD_STATES: Final = (".aria2", ".st")
"""aria2 and axel write `<name>.aria2` and `<name>.st` beside `<name>` until that is complete, and then remove it."""
_DOWNLOAD_FOLDER: Final = ".download"
"""Safari downloads into a folder `<name>.download`."""


def without_leftovers(files: list[InboxFile]) -> list[InboxFile]:
    """Return the files without leftovers, and without those that are still being downloaded."""
    paths = {file.path for file in files}
    unfinished = {path + state for path in paths for state in _DOWNLOAD_STATES if path + state in paths}
    unfinished |= {path.rpartition(".")[0] for path in unfinished}
    unfinished |= {path for path in paths if path.endswith(".aria2")}
    return [file for file in files if file.path not in unfinished and not _is_leftover(file)]


def _is_leftover(file: InboxFile) -> bool:
    name = file.name.lower()
    folders = file.folder.lower().split("/")
    return (
        name in _NAMES
        or name.endswith(_SUFFIXES)
        or (name.endswith(_OPEN_DATABASE) and not is_in_label_folder(file))
        or name.startswith(_PREFIXES)
        or any(folder in _FOLDERS or folder.endswith(_DOWNLOAD_FOLDER) for folder in folders)
    )
