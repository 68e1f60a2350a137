"""The files of a label: hash them together, and copy them side by side for the decoder."""

from pathlib import Path
from typing import Final

from cloudseg import keys
from cloudseg.ingest.candidate import LabelFile
from cloudseg.ingest.inbox_file import Inbox, InboxFile, copy_file, hash_file

Hashes = dict[str, str]
"""Hex SHA-256 by path."""
POLYGON_SUFFIXES: Final = ("gpkg", "geojson", "fgb", "shp")
"""Formats of polygons; a copy keeps its suffix, by which the decoder chooses how to read it."""


def hash_label(inbox: Inbox, label: LabelFile, *, max_bytes: int) -> Hashes:
    """Return the hashes of a label and its sidecars.

    Raises:
        NotRead: A file cannot be read, or is larger than `max_bytes`.
    """
    return {file.path: hash_file(inbox, file, max_bytes=max_bytes) for file in label.claimed_files()}


def label_hash(label: LabelFile, hashes: Hashes) -> str:
    """Return the hash that determines a label's id: that of its file, or of the file and its sidecars if it has any."""
    own = hashes[label.file.path]
    if not label.sidecars:
        return own
    sidecars = [[_ending(label.file, file), hashes[file.path]] for file in label.sidecars]
    return keys.sha256_of(keys.canonical_json(["label", 1, own, sorted(sidecars)]))


def copy_label(inbox: Inbox, label: LabelFile, hashes: Hashes, folder: Path, *, max_bytes: int) -> Path:
    """Copy a label and its sidecars to `folder` and return the label's copy.

    Raises:
        NotRead: A file cannot be read, or has changed since it was hashed.
    """
    suffix = label.file.suffix
    copy = folder / (f"label.{suffix}" if suffix in POLYGON_SUFFIXES else "label")
    copy_file(inbox, label.file, hashes[label.file.path], copy, max_bytes=max_bytes)
    for file in label.sidecars:
        copy_file(inbox, file, hashes[file.path], folder / f"label{_ending(label.file, file)}", max_bytes=max_bytes)
    return copy


def _ending(label: InboxFile, file: InboxFile) -> str:
    """Return what distinguishes a sidecar's name from the label's: `.msk`, `.aux.xml`, or `.dbf` of a Shapefile."""
    if file.name.lower().startswith(f"{label.name.lower()}."):
        return file.name[len(label.name) :].lower()
    return f".{file.suffix}"
