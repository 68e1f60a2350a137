"""Archives, folders that are one store, and product folders: one quarantine entry each instead of one for each file."""

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from cloudseg.errors import LayoutUnknown
from cloudseg.ingest.candidate import Candidate, UnmatchedFile
from cloudseg.ingest.inbox_file import InboxFile

_ARCHIVE: Final = re.compile(
    r"\.(?P<kind>zip|7z|rar|tar|tgz|tbz2?|txz|tar\.(?:gz|bz2|xz|zst)|gz|bz2|xz|zst)$", re.I | re.A
)
_UNPACK: Final = {
    "zip": "unzip",
    "7z": "7z x",
    "rar": "unrar x",
    "gz": "gunzip",
    "bz2": "bunzip2",
    "xz": "unxz",
    "zst": "unzstd",
}
"""Command by kind of archive; every other kind is a tar."""
_STORES: Final = {
    "zarr": "a Zarr store",
    "n5": "an N5 store",
    "gdb": "a file geodatabase",
    "sen3": "a Sentinel-3 product",
}
"""Folders that are one thing, by the suffix of their name."""
_PRODUCT: Final = "safe"
"""Suffix of a folder in ESA's Standard Archive Format for Europe."""


def archives(files: Iterable[InboxFile]) -> list[UnmatchedFile]:
    """Return an entry for each archive that says how to unpack it."""
    return [_archive(file, found["kind"].lower()) for file in files if (found := _ARCHIVE.search(file.name))]


def is_archive(file: InboxFile) -> bool:
    """Return whether a file is an archive, by its name."""
    return _ARCHIVE.search(file.name) is not None


def _archive(file: InboxFile, kind: str) -> UnmatchedFile:
    return UnmatchedFile(
        file,
        "an archive is not read: unpack it first",
        found=f"suffix .{kind}",
        expected="the files themselves",
        next_step=f"In its folder: {_UNPACK.get(kind, 'tar xf')} {shlex.quote(file.name)}; then remove the archive.",
        error=LayoutUnknown,
    )


def stores(files: Iterable[InboxFile]) -> tuple[list[UnmatchedFile], set[str]]:
    """Return an entry for each folder that is a store, and the paths of the files in them."""
    inside = _by_folder(files, _STORES)
    found = [
        UnmatchedFile(
            _folder_entry(folder, members[0]),
            f"{_STORES[folder.rpartition('.')[2].lower()]} is not read",
            found=f"a folder of {len(members)} files",
            expected="GeoTIFF or JPEG 2000 rasters",
            next_step="Write the bands to a GeoTIFF (GDAL: gdal_translate -of COG).",
            error=LayoutUnknown,
        )
        for folder, members in inside.items()
    ]
    return found, {file.path for members in inside.values() for file in members}


def products(
    files: Iterable[InboxFile], items: Iterable[Candidate | UnmatchedFile]
) -> tuple[list[UnmatchedFile], set[str]]:
    """Return an entry for each SAFE folder that no layout has read, and the paths of the files that remain in all.

    What remains of a product that a layout has read or refused is passed over: metadata, quality indicators, style
    sheets.

    Args:
        files: Those that no layout claims.
        items: What the layouts have found, and the entries of such folders.
    """
    inside = _by_folder(files, {_PRODUCT: ""})
    known = [path for item in items for path in (item.path, *item.claimed_paths())]
    found = [
        UnmatchedFile(
            _folder_entry(folder, members[0]),
            "no layout recognizes this product",
            found=f"a folder of {len(members)} files, none of them a band of Sentinel-2",
            expected="GRANULE/<granule>/IMG_DATA/…_B02.jp2 and the other bands",
            next_step="Check that the download is complete; only optical products can be read.",
            error=LayoutUnknown,
        )
        for folder, members in inside.items()
        if not any(f"{path}/".startswith(f"{folder}/") for path in known)
    ]
    return found, {file.path for members in inside.values() for file in members}


def _by_folder(files: Iterable[InboxFile], suffixes: Mapping[str, str]) -> dict[str, list[InboxFile]]:
    """Return the files by the outermost folder above them whose name has one of these suffixes."""
    found: dict[str, list[InboxFile]] = defaultdict(list)
    for file in files:
        parts = file.path.split("/")[:-1]
        at = next(
            (i for i, part in enumerate(parts) if part.rpartition(".")[2].lower() in suffixes and "." in part), None
        )
        if at is not None:
            found["/".join(parts[: at + 1])].append(file)
    return dict(found)


def _folder_entry(folder: str, member: InboxFile) -> InboxFile:
    """Return a folder as an entry that is never opened, with an address like that of its member."""
    below = member.path.count("/") - folder.count("/")
    return InboxFile(folder, member.uri.rsplit("/", below)[0], "a folder, not a file")
