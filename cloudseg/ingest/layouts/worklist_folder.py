"""Folders that `cloudseg worklist --out` wrote: `labels/` comes back, the rest was made to be looked at."""

import logging
from collections.abc import Iterable
from typing import Final

from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.layouts.base import RASTER_SUFFIXES

log = logging.getLogger(__name__)
_MARKS: Final = ("worklist.json", "worklist.qgs")
"""Files by which such a folder is known; both lie in it."""
_LAYERS: Final = "layers/"
_PROJECT: Final = "worklist"
"""How the names of the project and of what QGIS writes beside it begin."""


def without_worklist_layers(files: Iterable[InboxFile]) -> list[InboxFile]:
    """Return the files without pictures, masks and project of worklist folders, and log what is left out.

    Without this the pictures would become scenes: a layout claims every raster. Everything else in such a folder is
    read, because its content may have been moved to the top of an inbox.
    """
    files = list(files)
    names = {file.path for file in files}
    tops = {file.folder for file in files if all(_in_folder(file.folder, mark) in names for mark in _MARKS)}
    left_out = {file.path: top for file in files for top in tops if _is_only_looked_at(file, top)}
    for top in sorted(set(left_out.values())):
        count = sum(found == top for found in left_out.values())
        log.info("%s is a worklist: %d files that were made to be looked at are not read", top or "the inbox", count)
    return [file for file in files if file.path not in left_out]


def _in_folder(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _is_only_looked_at(file: InboxFile, top: str) -> bool:
    is_project = file.folder == top and file.name.startswith(_PROJECT) and file.suffix not in RASTER_SUFFIXES
    return is_project or file.path.startswith(_in_folder(top, _LAYERS))
