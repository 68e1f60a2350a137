"""Where the files of a Sentinel-2 product lie, and which of them belong to one acquisition."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.products.sentinel2 import sentinel2_band, sentinel2_bucket_tile

SAFE_SUFFIX: Final = ".safe"
_RESOLUTION: Final = re.compile(r"R[126]0m", re.I | re.A)
"""Folders of the resolutions in Level-2A."""
_SIDE_FOLDERS: Final = frozenset(("preview", "qi", "qi_data", "auxiliary", "aux_data", "html", "rep_info", "datastrip"))
"""Folders of a product, in SAFE and in the AWS buckets, without band files of the image."""
_OTHER_LAYER: Final = re.compile(
    r"(?:TCI|SCL|AOT|WVP|PVI|CLD|SNW|DDV|VIS|CLDPRB|SNWPRB|MSK_\w+|preview|thumbnail|browse|true_color|L2A_PVI)"
    r"(?:_[126]0m)?",
    re.I | re.A,
)
"""Rasters of a product that are no bands: true color, scene classification, aerosol, water vapor, previews, masks."""
_MASK: Final = re.compile(r"(?:.*_)?MSK_\w+", re.I | re.A)
_SCL: Final = re.compile(r"(?:.*[_.-])?SCL(?:_(?P<resolution>[126]0)m)?\.(?:jp2|tiff?)|.*_SCL_L2A_.*", re.I | re.A)


@dataclass(frozen=True, order=True)
class Granule:
    """The key of one acquisition of one tile."""

    root: str
    """The SAFE folder; else the folder of the bands, without `R10m` and the like."""
    folder: str
    """The granule's folder inside a SAFE, else the same as `root`."""
    prefix: str
    """What the names of its band files begin with; empty for plain `B02.jp2`."""

    @property
    def is_safe(self) -> bool:
        """Whether it is part of a SAFE product."""
        return self.root.lower().endswith(SAFE_SUFFIX)

    def metadata_folders(self) -> list[str]:
        """Return the folders in which metadata of this granule may lie."""
        folders = {self.root, self.folder}
        if self.folder.rpartition("/")[2].upper() == "IMG_DATA":  # a product whose folder is not called .SAFE
            granule = self.folder.rpartition("/")[0]
            folders.add(granule)
            if granule.rpartition("/")[0].rpartition("/")[2].upper() == "GRANULE":
                folders.add(granule.rpartition("/")[0].rpartition("/")[0])
        return sorted(folders)


@dataclass
class GranuleFiles:
    """The files of one acquisition of one tile."""

    bands: dict[str, InboxFile] = field(default_factory=dict)
    """The finest file of each band."""
    others: list[InboxFile] = field(default_factory=list)
    """Coarser copies, other layers, and in a product every other file."""
    has_resolution_folders: bool = False

    def scene_classification(self) -> InboxFile | None:
        """Return the finest scene classification (SCL) of Level-2A, or None."""
        found = [(int(match["resolution"] or 0), file) for file in self.others if (match := _SCL.fullmatch(file.name))]
        return min(found)[1] if found else None


def group_files(files: Iterable[InboxFile]) -> dict[Granule, GranuleFiles]:
    """Return the acquisitions among the files; each has at least one band file."""
    listed = list(files)
    ranked: dict[Granule, dict[str, list[tuple[int, InboxFile]]]] = defaultdict(lambda: defaultdict(list))
    for file in listed:
        found = sentinel2_band(file.name)
        if found and not _is_aside(file):
            prefix, band, resolution = found
            ranked[_granule(file, prefix)][band].append((resolution or _folder_resolution(file), file))
    groups: dict[Granule, GranuleFiles] = {}
    for key, bands in sorted(ranked.items()):
        groups[key] = GranuleFiles(
            # Level-2A has a band at several resolutions: use the finest.
            {band: min(copies)[1] for band, copies in bands.items()},
            [file for copies in bands.values() for _, file in sorted(copies)[1:]],
            any(
                _RESOLUTION.fullmatch(file.folder.rpartition("/")[2]) for copies in bands.values() for _, file in copies
            ),
        )
    _add_others(groups, listed)
    return groups


def _add_others(groups: dict[Granule, GranuleFiles], files: list[InboxFile]) -> None:
    """Assign every other file of a product, and other layers beside loose band files, to their acquisitions."""
    taken = {file.path for group in groups.values() for file in (*group.bands.values(), *group.others)}
    by_root: dict[str, list[Granule]] = defaultdict(list)
    for key in groups:
        by_root[key.root].append(key)
    for file in files:
        root = _root(file)
        if file.path in taken or root not in by_root:
            continue
        keys = by_root[root]
        if keys[0].is_safe:
            own = [key for key in keys if file.path.startswith(f"{key.folder}/")]
            groups[(own or keys)[0]].others.append(file)
        elif owner := _acquisition_of(keys, file):
            groups[owner].others.append(file)


def _acquisition_of(keys: list[Granule], file: InboxFile) -> Granule | None:
    """Return the acquisition to which a file beside loose band files belongs, or None."""
    for key in sorted(keys, key=lambda each: len(each.prefix), reverse=True):
        rest = file.stem.removeprefix(key.prefix).lstrip("_.-") if file.stem.startswith(key.prefix) else ""
        if rest and _OTHER_LAYER.fullmatch(rest):
            return key
    alone = keys[0] if len(keys) == 1 else None
    return alone if alone and (_is_aside(file) or _MASK.fullmatch(file.stem)) else None


def _granule(file: InboxFile, prefix: str) -> Granule:
    root = _root(file)
    folder = root
    if root.lower().endswith(SAFE_SUFFIX):
        parts = file.path[len(root) + 1 :].split("/")
        at = next((index for index, part in enumerate(parts) if part.upper() == "GRANULE"), None)
        if at is not None and at + 2 < len(parts):
            folder = "/".join((root, *parts[: at + 2]))
    return Granule(root, folder, prefix)


def _root(file: InboxFile) -> str:
    """Return the SAFE folder that contains the file, else its folder without those of resolution and side files."""
    at = file.path.lower().find(f"{SAFE_SUFFIX}/")
    if at >= 0:
        return file.path[: at + len(SAFE_SUFFIX)]
    above, _, last = file.folder.rpartition("/")
    return above if _RESOLUTION.fullmatch(last) or last.lower() in _SIDE_FOLDERS else file.folder


def _is_aside(file: InboxFile) -> bool:
    """Return whether a file is no band of the image: previews, quality masks of each band (`MSK_QUALIT_B02.jp2`)."""
    return file.folder.rpartition("/")[2].lower() in _SIDE_FOLDERS or bool(re.match(r"MSK_", file.name, re.I | re.A))


def _folder_resolution(file: InboxFile) -> int:
    last = file.folder.rpartition("/")[2]
    return int(last[1:3]) if _RESOLUTION.fullmatch(last) else 0


def unique_names(groups: Iterable[Granule]) -> dict[Granule, str]:
    """Return a name for each acquisition; those of one product differ by the tile, else by the granule."""
    names: dict[Granule, str] = {}
    by_root: dict[str, list[Granule]] = defaultdict(list)
    for key in groups:
        by_root[key.root].append(key)
    for root, keys in by_root.items():
        last = root.rpartition("/")[2]
        for key in keys:
            if not key.is_safe:
                bucket = sentinel2_bucket_tile(f"{root}/")
                names[key] = key.prefix or (bucket[2] if bucket else last) or "sentinel-2"
                continue
            product = last[: -len(SAFE_SUFFIX)]
            tiles = [_tile(each) for each in keys]
            suffix = _tile(key) if len(set(tiles)) == len(tiles) else key.prefix or key.folder.rpartition("/")[2]
            names[key] = f"{product}_{suffix}" if len(keys) > 1 else product
    return names


def _tile(key: Granule) -> str:
    """Return the MGRS tile in the granule's names, as in `T34UCC`; empty if there is none."""
    found = re.search(r"(?:^|_)(T\d{2}[C-X][A-Z]{2})(?:_|$)", f"{key.folder.rpartition('/')[2]}_{key.prefix}", re.A)
    return found[1] if found else ""
