"""Files below a folder `labels/`: labels with their sidecars, harmless files, and whatever cannot be used.

Nothing there is passed over without a word: a folder's other files become one quarantine entry, and archives one each.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cloudseg.errors import BadLabel
from cloudseg.ingest.candidate import UnmatchedFile
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.label_files import POLYGON_SUFFIXES
from cloudseg.ingest.layouts.base import RASTER_SUFFIXES, FileListing
from cloudseg.ingest.layouts.containers import is_archive
from cloudseg.ingest.layouts.sidecars import may_state

LABELS: Final = "labels"
RASTERS: Final = (*RASTER_SUFFIXES, "png")
_HARMLESS: Final = frozenset(("qml", "qgs", "qgz", "qmd", "sld", "md", "txt", "sha256", "md5", "ini", "db"))
"""Notes, styles and projects of QGIS, checksums, and what file managers leave behind."""
_SHAPEFILE_READ: Final = ("dbf", "shx", "prj", "cpg")
_SHAPEFILE_NEEDED: Final = ("dbf", "shx")
_SHAPEFILE_UNREAD: Final = ("qpj", "sbn", "sbx", "qix", "fix", "atx")
_RASTER_UNREAD: Final = ("tfw", "tifw", "tiffw", "wld", "pgw", "pngw", "j2w", "prj")
"""World files: the georeference is read from inside the file, and a PNG has none."""
_AFTER_NAME: Final = (".ovr", ".xml", ".aux.xml", ".msk")
_OPEN_DATABASE: Final = ("-wal", "-journal")
"""What SQLite writes beside a GeoPackage that is open: changes that are not in the file itself."""
_STATED_BY_PAM: Final = ("nodatavalue", "categorynames")
"""Elements of a band in an `.aux.xml` that concern a label."""
_SHOWN: Final = 8

Key = tuple[str, str]
"""The parent of the folder `labels`, and the path below it without suffix; Unicode normal form C."""


@dataclass(frozen=True)
class FoundLabel:
    """A label and the files that are read together with it."""

    file: InboxFile
    sidecars: tuple[InboxFile, ...]


@dataclass(frozen=True)
class LabelFolder:
    """What a listing has below folders `labels/`."""

    tops: frozenset[str]
    """Parents of these folders."""
    labels: dict[Key, list[FoundLabel]]
    """Rasters before polygons."""
    refused: list[UnmatchedFile]


def find_labels(listing: FileListing) -> LabelFolder:
    """Return the labels of a listing, and one unmatched file for everything else in each folder."""
    below = files_below(listing.files, LABELS)
    labels: dict[Key, list[FoundLabel]] = defaultdict(list)
    refused: list[UnmatchedFile] = []
    folders: dict[str, list[tuple[Key, InboxFile]]] = defaultdict(list)
    for key, file in below:
        folders[file.folder].append((key, file))
    for entries in folders.values():
        files = [file for _, file in entries]
        rest = set(files)
        for key, file in entries:
            if file.suffix not in (*RASTERS, *POLYGON_SUFFIXES):
                continue
            beside = [other for other in files if _belongs_to(other, file)]
            rest -= {file, *beside}
            if (problem := _problem(file, beside)) is not None:
                refused.append(problem)
            else:
                labels[key].append(FoundLabel(file, _read_with(file, beside, listing)))
        if others := sorted(file for file in rest if not (_is_harmless(file) or is_archive(file))):
            refused.append(_refuse(others))
    for found in labels.values():
        found.sort(key=lambda label: (label.file.suffix in POLYGON_SUFFIXES, label.file))
    return LabelFolder(frozenset(key[0] for key, _ in below), dict(labels), refused)


def files_below(files: Iterable[InboxFile], folder: str) -> list[tuple[Key, InboxFile]]:
    """Return the files below folders of this name, each with its key."""
    found = []
    for file in files:
        parts = file.path.split("/")
        at = next((i for i in range(len(parts) - 2, -1, -1) if parts[i].lower() == folder), None)
        if at is not None:
            top = "".join(f"{part}/" for part in parts[:at])
            key = top, "/".join([*parts[at + 1 : -1], file.stem])
            found.append(((unicodedata.normalize("NFC", key[0]), unicodedata.normalize("NFC", key[1])), file))
    return found


def is_in_label_folder(file: InboxFile) -> bool:
    """Return whether a file lies below a folder `labels/`."""
    return bool(files_below([file], LABELS))


def _belongs_to(other: InboxFile, label: InboxFile) -> bool:
    """Return whether a file accompanies a label, by its name."""
    name, own = other.name.lower(), label.name.lower()
    if name.removeprefix(own) in (*_AFTER_NAME, *_OPEN_DATABASE, "-shm") and name.startswith(own):
        return True
    if other.stem.lower() != label.stem.lower():
        return False
    if label.suffix == "shp":
        return other.suffix in (*_SHAPEFILE_READ, *_SHAPEFILE_UNREAD)
    return other.suffix in _RASTER_UNREAD and label.suffix in RASTERS


def _problem(label: InboxFile, beside: Sequence[InboxFile]) -> UnmatchedFile | None:
    """Return why a label cannot be read, by the names beside it."""
    if is_open := [file for file in beside if file.name.lower().endswith(_OPEN_DATABASE)]:
        return UnmatchedFile(
            label,
            "the GeoPackage is open in a program and has changes beside it",
            found=", ".join(file.name for file in is_open),
            expected="the file alone",
            next_step="Save the layer and close the project (in QGIS), then copy the file again.",
            error=BadLabel,
            extra_files=tuple(beside),
        )
    suffixes = {file.suffix for file in beside}
    if label.suffix == "shp" and (missing := [part for part in _SHAPEFILE_NEEDED if part not in suffixes]):
        return UnmatchedFile(
            label,
            f"the Shapefile lacks {', '.join(f'.{part}' for part in missing)}",
            found=", ".join(sorted(f".{suffix}" for suffix in suffixes)) or "only .shp",
            expected=".shp, .shx, .dbf, .prj of one name",
            next_step="Copy all files of the Shapefile, or save the polygons as a GeoPackage.",
            error=BadLabel,
            extra_files=tuple(beside),
        )
    return None


def _read_with(label: InboxFile, beside: Sequence[InboxFile], listing: FileListing) -> tuple[InboxFile, ...]:
    """Return the files that are read together with a label.

    An `.aux.xml` only if it states nodata or class names: QGIS writes one with statistics for every file it shows, and
    a label must not become another one by being looked at.
    """
    if label.suffix == "shp":
        return tuple(file for file in beside if file.suffix in _SHAPEFILE_READ and file.stem.lower() == _stem(label))
    if label.suffix in POLYGON_SUFFIXES:
        return ()
    own = label.name.lower()
    return tuple(
        file
        for file in beside
        if file.name.lower() == f"{own}.msk"
        or (file.name.lower() == f"{own}.aux.xml" and may_state(listing.inbox, file, _STATED_BY_PAM))
    )


def _stem(file: InboxFile) -> str:
    return file.stem.lower()


def _is_harmless(file: InboxFile) -> bool:
    return file.suffix in _HARMLESS or file.stem.lower() == "readme"


def _refuse(files: Sequence[InboxFile]) -> UnmatchedFile:
    names = ", ".join(file.name for file in files[:_SHOWN])
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    geojson = " GeoJSON needs the suffix .geojson." if any(file.suffix == "json" for file in files) else ""
    return UnmatchedFile(
        files[0],
        f"{len(files)} file{'s' if len(files) > 1 else ''} in a folder labels/ cannot be used as a label",
        found=f"{names}{more}",
        expected=", ".join(f".{suffix}" for suffix in (*RASTERS, *POLYGON_SUFFIXES)),
        next_step=f"Save them in one of these formats, or move them elsewhere.{geojson}",
        error=BadLabel,
        extra_files=tuple(files[1:]),
    )
