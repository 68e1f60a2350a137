"""The layouts that ingest supports, in the order in which they claim files.

One small module each: docs/reference/layouts.md.

A layout uses names and small metadata files only; `cloudseg.ingest.decode` opens the rasters, in another process.
"""

from typing import Final

from cloudseg.errors import LayoutUnknown
from cloudseg.ingest.candidate import Candidate, UnmatchedFile
from cloudseg.ingest.inbox_file import Inbox, InboxFile
from cloudseg.ingest.layouts import cloud38, cloudsen12, landsat, multiband, oncloudn, pairs, sentinel2
from cloudseg.ingest.layouts.base import RASTER_SUFFIXES, FileListing, Layout
from cloudseg.ingest.layouts.worklist_folder import without_worklist_layers

LAYOUTS: Final[tuple[Layout, ...]] = (
    pairs.Pairs(),
    cloudsen12.CloudSen12(),
    oncloudn.OnCloudN(),
    cloud38.Cloud38(),
    landsat.LandsatBands(),
    sentinel2.Sentinel2Bands(),
    multiband.MultiBand(),
)
"""Order matters: the last one claims every remaining raster."""

_IGNORED_SUFFIXES: Final = frozenset(
    (
        *("md", "txt", "xml", "json", "geojson", "html", "csv", "pdf", "jpg", "jpeg", "png"),
        *("gml", "safe", "met", "dtd", "xsd", "gfs", "ovr", "msk", "tfw", "tifw", "j2w", "prj", "qml", "qgz"),
        *("sha256", "md5"),
    )
)
"""Suffixes of files that accompany rasters and are ignored; any other unrecognized file is quarantined."""


def layout_names() -> list[str]:
    """Return the values that `--layout` accepts."""
    return [layout.name for layout in LAYOUTS]


def find_candidates(
    inbox: Inbox, *, layout: str | None = None, bands: tuple[str | None, ...] | None = None
) -> list[Candidate | UnmatchedFile]:
    """Return what the files of an inbox may become, sorted by path.

    Every raster is part of a candidate or an unmatched file.

    Args:
        inbox: The files.
        layout: Use only the layout of this name; None: try all.
        bands: Names of the bands of multi-band files, None for one that is not wanted.

    Raises:
        LayoutUnknown: There is no layout of this name.
    """
    layouts = [known for known in LAYOUTS if layout in (None, known.name)]
    if not layouts:
        raise LayoutUnknown("no such layout", subject=str(layout), expected=", ".join(layout_names()))
    files = without_worklist_layers(inbox.list_files())
    found: list[Candidate | UnmatchedFile] = [
        UnmatchedFile(file, file.reject_reason)
        for file in files
        if file.reject_reason and file.suffix not in _IGNORED_SUFFIXES
    ]
    remaining = [file for file in files if not file.reject_reason]
    for known in layouts:
        items = known.find(FileListing(tuple(remaining), bands, inbox))
        claimed = {path for item in items for path in item.claimed_paths()}
        remaining = [file for file in remaining if file.path not in claimed]
        found += items
    found += [_unrecognized(file) for file in remaining if file.suffix not in _IGNORED_SUFFIXES]
    return sorted(found, key=lambda item: item.path)


def _unrecognized(file: InboxFile) -> UnmatchedFile:
    return UnmatchedFile(
        file,
        "no layout recognizes this file",
        found=f"suffix .{file.suffix}" if file.suffix else "a name without suffix",
        expected=", ".join(f".{suffix}" for suffix in RASTER_SUFFIXES),
        next_step="See docs/reference/layouts.md for what an inbox may hold.",
        error=LayoutUnknown,
    )
