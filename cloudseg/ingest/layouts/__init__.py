"""The layouts that ingest supports, in the order in which they claim files.

One small module each: docs/reference/layouts.md.

A layout uses names and small metadata files only; `cloudseg.ingest.decode` opens the rasters, in another process.
"""

from collections import defaultdict
from typing import Final

from cloudseg.errors import LayoutUnknown
from cloudseg.ingest.candidate import Candidate, UnmatchedFile
from cloudseg.ingest.inbox_file import Inbox, InboxFile
from cloudseg.ingest.layouts import (
    cloud38,
    cloudsen12,
    hls,
    landsat,
    multiband,
    oncloudn,
    pairs,
    planet,
    sentinel2,
    stac,
)
from cloudseg.ingest.layouts.base import RASTER_SUFFIXES, FileListing, Layout
from cloudseg.ingest.layouts.containers import archives, products, stores
from cloudseg.ingest.layouts.distinct_names import with_distinct_names
from cloudseg.ingest.layouts.label_folder import is_in_label_folder
from cloudseg.ingest.layouts.leftovers import without_leftovers
from cloudseg.ingest.layouts.sidecars import with_sidecars
from cloudseg.ingest.layouts.stac_items import StacItems
from cloudseg.ingest.layouts.worklist_folder import without_worklist_layers

LAYOUTS: Final[tuple[Layout, ...]] = (
    pairs.Pairs(),
    cloudsen12.CloudSen12(),
    oncloudn.OnCloudN(),
    cloud38.Cloud38(),
    landsat.LandsatBands(),
    hls.HlsBands(),
    planet.Planet(),
    sentinel2.Sentinel2Bands(),
    stac.StacAssets(),
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
    files = without_leftovers(without_worklist_layers(inbox.list_files()))
    found: list[Candidate | UnmatchedFile] = [
        UnmatchedFile(file, file.reject_reason)
        for file in files
        if file.reject_reason and (file.suffix not in _IGNORED_SUFFIXES or is_in_label_folder(file))
    ]
    remaining = [file for file in files if not file.reject_reason]
    in_stores, store_paths = stores(remaining)
    found += in_stores
    # No layout sees an archive, which may hold what its product lacks, but for gap masks: those are not needed.
    packed = archives(file for file in remaining if file.path not in store_paths and not landsat.is_gap_mask(file))
    found += packed
    remaining = _without(remaining, store_paths | {item.path for item in packed})
    stac_items = StacItems(inbox, remaining)
    items: list[Candidate | UnmatchedFile] = []
    unread: list[UnmatchedFile] = []
    for known in layouts:
        if known is LAYOUTS[-1] and len(layouts) > 1:
            # Before the layout that claims every raster: what remains of a product makes no scene of its own.
            remaining = _without_products(remaining, items, unread)
        new = known.find(FileListing(tuple(remaining), bands, inbox, stac_items))
        remaining = _without(remaining, {path for item in new for path in item.claimed_paths()})
        items += new
    remaining = _without_products(remaining, items, unread)
    of_no_product = archives(remaining)
    remaining = _without(remaining, {item.path for item in of_no_product})
    # The layout of pairs has looked at every file below a folder labels/.
    is_done = is_in_label_folder if any(known.name == pairs.Pairs.name for known in layouts) else lambda _: False
    found += _unrecognized([file for file in remaining if file.suffix not in _IGNORED_SUFFIXES and not is_done(file)])
    found += [*of_no_product, *unread, *with_distinct_names(with_sidecars(items, files, inbox))]
    return sorted(found, key=lambda item: item.path)


def _without(files: list[InboxFile], paths: set[str]) -> list[InboxFile]:
    return [file for file in files if file.path not in paths]


def _without_products(
    files: list[InboxFile], items: list[Candidate | UnmatchedFile], unread: list[UnmatchedFile]
) -> list[InboxFile]:
    """Return the files outside of SAFE folders, and add an entry to `unread` for each folder that nothing has read."""
    entries, inside = products(files, [*items, *unread])
    unread += entries
    return _without(files, inside)


def _unrecognized(files: list[InboxFile]) -> list[UnmatchedFile]:
    """Return an entry for each name: `scene.hdr` and `scene.dat` are one thing."""
    groups: dict[tuple[str, str], list[InboxFile]] = defaultdict(list)
    for file in files:
        groups[file.folder, file.stem].append(file)
    return [_virtual(group[0]) if group[0].suffix == "vrt" else _unknown(group) for group in groups.values()]


def _unknown(files: list[InboxFile]) -> UnmatchedFile:
    suffixes = ", ".join(f".{file.suffix}" for file in files if file.suffix)
    return UnmatchedFile(
        files[0],
        "no layout recognizes this file",
        found=f"suffix {suffixes}" if suffixes else "a name without suffix",
        expected=", ".join(f".{suffix}" for suffix in RASTER_SUFFIXES),
        next_step="See docs/reference/layouts.md for what an inbox may hold.",
        error=LayoutUnknown,
    )


def _virtual(file: InboxFile) -> UnmatchedFile:
    return UnmatchedFile(
        file,
        "a virtual raster refers to other files and is not read",
        expected=", ".join(f".{suffix}" for suffix in RASTER_SUFFIXES),
        next_step="Put the files that it refers to into the inbox, or write one (GDAL: gdal_translate -of COG).",
        error=LayoutUnknown,
    )
