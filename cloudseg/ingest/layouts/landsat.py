"""Landsat 4 to 9, Level-1 and Level-2, one file per band.

`LC08_…_B4.TIF` or `LT05_…_SR_B3.TIF` with `…_MTL.txt`, `.json` or `.xml`, or reflectance as floating point,
`LC8…_B4_toa.tif`.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from cloudseg.bands import Radiometry
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
from cloudseg.ingest.products.landsat import landsat_band, landsat_bands, landsat_product, landsat_satellite
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
        for file in listing.rasters:
            if found := landsat_band(file.name):
                group, code, _ = found
                groups[file.folder, group].setdefault(code, file)
        return [item for key, files in sorted(groups.items()) for item in self._scene(listing, *key, files)]

    def _scene(
        self, listing: FileListing, folder: str, group: str, by_code: dict[str, InboxFile]
    ) -> list[Candidate | UnmatchedFile]:
        product = landsat_product(group)
        if product is None:  # `landsat_band` found one in every name
            return []
        codes = landsat_bands(landsat_satellite(product.sensor))
        files = {codes[code]: file for code, file in by_code.items()}
        others = [file for file in listing.files if _is_part(file, folder, group)]
        if missing := missing_bands(files, listing.bands):
            return incomplete_scene(_unique([*files.values(), *others]), files, missing)
        wanted = {code: file for code, file in by_code.items() if listing.bands or codes[code] not in _OPTIONAL}
        try:
            mtl = _metadata(listing, others, group, product)
            sources = {
                codes[code]: SourceFile(file, (codes[code],), radiometry=_radiometry(mtl, product, code, file))
                for code, file in wanted.items()
            }
        except BadScene as error:
            return [unusable_product(_unique([*files.values(), *others]), error)]
        return [
            Candidate(
                group,
                self.name,
                select_sources(sources, listing.bands),
                sensor=product.sensor,
                acquired_at=(mtl_time(mtl[0]) if mtl else None) or product.acquired_at,
                quality=tuple(
                    QualityFile(file, "landsat_qa_pixel") for file in others if _rest(file, group) == "_qa_pixel"
                ),
                extra_files=(*files.values(), *others),
                tags=(("wrs2", product.place.removeprefix("wrs2:")),) if product.place else (),
            )
        ]


def _metadata(listing: FileListing, files: list[InboxFile], group: str, product: Product) -> list[Mtl]:
    """Return the metadata files of a product, in the order txt, json, xml.

    Raises:
        BadScene: One is damaged, or contradicts the product id.
    """
    by_suffix = {file.suffix: file for file in files if _rest(file, group) == "_mtl"}
    found = [
        parse_mtl(listing.text(by_suffix[suffix]), by_suffix[suffix].name)
        for suffix in MTL_SUFFIXES
        if suffix in by_suffix
    ]
    for mtl in found:
        check_mtl(mtl, landsat_satellite(product.sensor), product.acquired_at.date() if product.acquired_at else None)
    return found


def _radiometry(mtl: list[Mtl], product: Product, code: str, file: InboxFile) -> Radiometry | None:
    """Return the scale from the MTL, else from the product id; None for files of reflectance (`_toa`, `_sr`).

    Raises:
        BadScene: The metadata files state none or contradict each other, or there is no default scale.
    """
    found = landsat_band(file.name)
    if found is None or found[2]:
        return None
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


def _is_part(file: InboxFile, folder: str, group: str) -> bool:
    """Return whether a file belongs to the product: it has its name, and lies beside the bands or in `gap_mask`."""
    above, _, last = file.folder.rpartition("/")
    beside = file.folder == folder or (last.lower() == _GAP_MASKS and above == folder)
    return beside and _rest(file, group) is not None


def _rest(file: InboxFile, group: str) -> str | None:
    """Return what follows the product id in a file's name, in lower case without suffix; None for other products."""
    name = file.stem.lower()
    return name.removeprefix(group.lower()) if name.startswith(f"{group.lower()}_") else None


def _unique(files: list[InboxFile]) -> list[InboxFile]:
    return list({file.path: file for file in files}.values())
