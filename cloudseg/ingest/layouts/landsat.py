"""Landsat 4 to 9, Level-1 and Level-2, one file per band.

`LC08_…_B4.TIF` or `LT05_…_SR_B3.TIF` with `…_MTL.txt`, `.json` or `.xml`, or reflectance as floating point,
`LC8…_B4_toa.tif`. One file with several bands, named by its product id, is read by the metadata file beside it too.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from cloudseg.bands import NIR, RGB, Radiometry
from cloudseg.errors import BadScene
from cloudseg.ingest.candidate import Candidate, QualityFile, SourceFile, UnmatchedFile
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.layouts.base import (
    FileListing,
    incomplete_scene,
    missing_bands,
    select_sources,
    unusable_product,
)
from cloudseg.ingest.products import Product
from cloudseg.ingest.products.landsat import (
    landsat_band,
    landsat_bands,
    landsat_product,
    landsat_product_id,
    landsat_satellite,
)
from cloudseg.ingest.products.mtl import MTL_SUFFIXES, Mtl, check_mtl, mtl_radiometry, mtl_time, parse_mtl

_OPTIONAL: Final = frozenset(["pan", "lwir", "lwir11", "lwir12"])
"""Used with `--bands` only: the panchromatic band has another grid, thermal bands have no reflectance."""
_GAP_MASKS: Final = "gap_mask"
"""Folder of Landsat 7 products with the gaps of the failed scan line corrector, one file per band."""


@dataclass(frozen=True)
class LandsatBands:
    """Scale and offset from the MTL, in Level-1 divided by the sine of the sun's elevation.

    Without MTL: the product's default scale, in Level-1 without correction for the sun. Level-1 of Landsat 4 to 7 has
    no default.
    """

    name: str = "landsat"

    def find(self, listing: FileListing) -> list[Candidate | UnmatchedFile]:
        """Return the scenes; see `Layout.find`."""
        groups: dict[tuple[str, str], dict[str, InboxFile]] = defaultdict(dict)
        stacks: list[tuple[InboxFile, str]] = []
        for file in listing.rasters:
            if found := landsat_band(file.name):
                group, code, _ = found
                groups[file.folder, group.lower()].setdefault(code, file)
            elif product_id := landsat_product_id(file.stem):
                stacks.append((file, product_id))
        names = _NameIndex(listing.files)
        scenes = [
            item for (folder, _), files in sorted(groups.items()) for item in self._scene(listing, names, folder, files)
        ]
        claimed = _claimed(scenes)
        for file, product_id in stacks:
            if not _is_layer(_rest(file, product_id)) and file.path not in claimed:
                scenes += self._stack(listing, names.parts(file.folder, product_id), product_id, file)
        return scenes + _layers_alone(stacks, _claimed(scenes))

    def _scene(
        self, listing: FileListing, names: "_NameIndex", folder: str, by_code: dict[str, InboxFile]
    ) -> list[Candidate | UnmatchedFile]:
        """Return the scene of band files.

        Args:
            listing: The inbox.
            names: All of its files.
            folder: The folder of the band files.
            by_code: The band files by code.
        """
        first = landsat_band(next(iter(by_code.values())).name)
        group = first[0] if first else ""
        product = landsat_product(group)
        if product is None:  # `landsat_band` found one in every name
            return []
        others = [file for file in names.parts(folder, group) if _belongs(file, group)]
        # Bands that were cut or renamed, LC08_…_T1_cut_B4.TIF, have the metadata of the product that they are from.
        product_id = landsat_product_id(group) or group
        metadata = [file for file in names.parts(folder, product_id) if _rest(file, product_id) == "_mtl"]
        metadata = [file for file in others if _rest(file, group) == "_mtl"] or metadata
        codes = landsat_bands(landsat_satellite(product.sensor))
        files = {codes[code]: file for code, file in by_code.items()}
        if missing := missing_bands(files, listing.bands):
            return incomplete_scene(others, files, missing)
        wanted = {code: file for code, file in by_code.items() if listing.bands or codes[code] not in _OPTIONAL}
        try:
            mtl = _metadata(listing, metadata, product)
            sources = {
                codes[code]: SourceFile(
                    file, (codes[code],), radiometry=None if _is_reflectance(file) else _radiometry(mtl, product, code)
                )
                for code, file in wanted.items()
            }
        except BadScene as error:
            return [unusable_product(others, error)]
        return [
            Candidate(
                group,
                self.name,
                select_sources(sources, listing.bands),
                sensor=product.sensor,
                acquired_at=(mtl_time(mtl[0]) if mtl else None) or product.acquired_at,
                quality=_quality(others, group),
                extra_files=(*others, *metadata),
                tags=(("wrs2", product.place.removeprefix("wrs2:")),) if product.place else (),
            )
        ]

    def _stack(
        self, listing: FileListing, others: list[InboxFile], product_id: str, file: InboxFile
    ) -> list[Candidate | UnmatchedFile]:
        """Return the scene of one file with several bands that has metadata or quality of its product beside it."""
        product, quality = landsat_product(product_id), _quality(others, product_id)
        metadata = [other for other in others if _rest(other, product_id) == "_mtl"]
        if product is None or not (metadata or quality):
            return []
        try:
            mtl = _metadata(listing, metadata, product)
            radiometry = _common_radiometry(mtl, product)
        except BadScene as error:
            return [unusable_product([file], error)]
        return [
            Candidate(
                file.stem,
                self.name,
                (SourceFile(file, listing.bands, radiometry=radiometry),),
                sensor=product.sensor,
                acquired_at=(mtl_time(mtl[0]) if mtl else None) or product.acquired_at,
                quality=quality,
                extra_files=(*metadata, *(other for other in others if _is_layer(_rest(other, product_id)))),
                tags=(("wrs2", product.place.removeprefix("wrs2:")),) if product.place else (),
            )
        ]


class _NameIndex:
    """Files by folder, sorted by name, to find those of a product fast in a folder of many."""

    def __init__(self, files: Iterable[InboxFile]) -> None:
        self._folders: dict[str, list[tuple[str, InboxFile]]] = defaultdict(list)
        for file in files:
            self._folders[file.folder].append((file.name.lower(), file))
        for named in self._folders.values():
            named.sort()

    def parts(self, folder: str, group: str) -> list[InboxFile]:
        """Return the files whose names begin with that of a product, in its folder and its gap masks."""
        prefix, found = f"{group.lower()}_", []
        for where in (folder, f"{folder}/{_GAP_MASKS}".lstrip("/")):
            named = self._folders.get(where, [])
            at = bisect_left(named, prefix, key=lambda each: each[0])
            found += [file for name, file in takewhile(lambda each: each[0].startswith(prefix), named[at:])]
        return found


def is_gap_mask(file: InboxFile) -> bool:
    """Return whether a file lies among the gap masks of a product, which the producer packs one by one."""
    return file.folder.rpartition("/")[2] == _GAP_MASKS


def _quality(files: list[InboxFile], group: str) -> tuple[QualityFile, ...]:
    return tuple(QualityFile(file, "landsat_qa_pixel") for file in files if _rest(file, group) == "_qa_pixel")


def _claimed(scenes: list[Candidate | UnmatchedFile]) -> set[str]:
    return {path for scene in scenes for path in scene.claimed_paths()}


def _layers_alone(rasters: list[tuple[InboxFile, str]], claimed: set[str]) -> list[UnmatchedFile]:
    """Return the quality layers of products that have no bands here, one item for each product."""
    layers: dict[tuple[str, str], list[InboxFile]] = defaultdict(list)
    for file, product_id in rasters:
        if _is_layer(_rest(file, product_id)) and file.path not in claimed:
            layers[file.folder, product_id].append(file)
    return [unusable_product(files, _no_bands(files)) for files in layers.values()]


def _no_bands(files: list[InboxFile]) -> BadScene:
    return BadScene(
        "quality layers of a Landsat product without its bands",
        found=", ".join(file.name for file in files)[:200],
        expected="the band files of the product in the same folder",
        next_step="Put the bands into the same folder.",
    )


def _belongs(file: InboxFile, group: str) -> bool:
    """Return whether a file whose name begins with that of a group is no band of a group with a longer name."""
    found = landsat_band(file.name)
    return found is None or found[0].lower() == group.lower()


def _metadata(listing: FileListing, files: list[InboxFile], product: Product) -> list[Mtl]:
    """Return the metadata files of a product, in the order txt, json, xml.

    Raises:
        BadScene: One is damaged, or contradicts the product id.
    """
    by_suffix = {file.suffix: file for file in files}
    found = [
        parse_mtl(listing.text(by_suffix[suffix]), by_suffix[suffix].name)
        for suffix in MTL_SUFFIXES
        if suffix in by_suffix
    ]
    for mtl in found:
        check_mtl(mtl, landsat_satellite(product.sensor), product.acquired_at.date() if product.acquired_at else None)
    return found


def _is_reflectance(file: InboxFile) -> bool:
    """Return whether a band file has reflectance already: `_toa`, `_sr`."""
    found = landsat_band(file.name)
    return found is not None and found[2] != ""


def _radiometry(mtl: list[Mtl], product: Product, code: str) -> Radiometry | None:
    """Return the scale of a band from the MTL, else from the product id.

    Raises:
        BadScene: The metadata files state none or contradict each other, or there is no default scale.
    """
    level = 2 if product.sensor.endswith("-l2") else 1
    found_in = {each.name: mtl_radiometry(each, code[1:], level) for each in mtl}
    stated = [scale for scale in found_in.values() if scale is not None]
    if len({(scale.scale, scale.offset) for scale in stated}) > 1:
        raise BadScene(
            f"the metadata files of the product state different scales for {code}",
            found="; ".join(f"{name}: {scale.scale:g}, {scale.offset:g}" for name, scale in found_in.items() if scale),
            expected="the same scale in each",
            next_step="Keep the metadata file that came with the bands.",
        )
    if not stated and product.radiometry is None:
        raise BadScene(
            f"the digital numbers of Landsat {landsat_satellite(product.sensor)} have no scale without their MTL file",
            found="no metadata file",
            expected="…_MTL.txt, …_MTL.json or …_MTL.xml in the same folder",
            next_step="Put the metadata file of the product beside its bands, or use the Level-2 product.",
        )
    return stated[0] if stated else product.radiometry


def _common_radiometry(mtl: list[Mtl], product: Product) -> Radiometry | None:
    """Return the scale that red, green, blue and near infrared share; None if each has its own, or there is none.

    Raises:
        BadScene: The metadata files state none or contradict each other.
    """
    if not mtl:
        return product.radiometry
    codes = landsat_bands(landsat_satellite(product.sensor))
    found = [_radiometry(mtl, product, code) for code, band in codes.items() if band in (*RGB, NIR)]
    return found[0] if len({(scale.scale, scale.offset) for scale in found if scale}) == 1 else None


def _rest(file: InboxFile, group: str) -> str:
    """Return what follows the product id in a file's name, in lower case without suffix."""
    return file.stem.lower().removeprefix(group.lower())


def _is_layer(rest: str) -> bool:
    """Return whether a raster of the product holds quality flags or angles, not reflectance."""
    return "qa" in rest or rest in ("_saa", "_sza", "_vaa", "_vza")
