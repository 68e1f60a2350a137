"""Landsat 8 and 9, one file per band.

`LC08_…_B4.TIF` with `LC08_…_MTL.txt`, or reflectance as floating point, `LC8…_B4_toa.tif`.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from cloudseg.bands import Radiometry
from cloudseg.ingest.candidate import Candidate, SourceFile, UnmatchedFile
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.layouts.base import FileListing, incomplete_scene, missing_bands, select_sources
from cloudseg.ingest.products.landsat import landsat_band, landsat_product, mtl_radiometry, mtl_time, parse_mtl

_OPTIONAL: Final = frozenset(["pan", "lwir11", "lwir12"])
"""Used with `--bands` only: the panchromatic band has another grid, thermal bands have no reflectance."""


@dataclass(frozen=True)
class LandsatBands:
    """Scale and offset from the MTL, divided by the sine of the sun's elevation.

    Without MTL: the default scale of the product, without correction for the sun.
    """

    name: str = "landsat"

    def find(self, listing: FileListing) -> list[Candidate | UnmatchedFile]:
        """Return the scenes; see `Layout.find`."""
        groups: dict[tuple[str, str], dict[str, InboxFile]] = defaultdict(dict)
        for file in listing.rasters:
            if found := landsat_band(file.name):
                group, band, _ = found
                groups[file.folder, group].setdefault(band, file)
        return [item for key, files in sorted(groups.items()) for item in self._scene(listing, *key, files)]

    def _scene(
        self, listing: FileListing, folder: str, group: str, files: dict[str, InboxFile]
    ) -> list[Candidate | UnmatchedFile]:
        if missing := missing_bands(files, listing.bands):
            return incomplete_scene(files.values(), files, missing)
        product = landsat_product(group)
        texts = [
            file for file in listing.files if file.folder == folder and file.name.lower() == f"{group}_mtl.txt".lower()
        ]
        mtl = parse_mtl(listing.text(texts[0])) if texts else {}
        wanted = {band: file for band, file in files.items() if listing.bands or band not in _OPTIONAL}
        sources = {
            band: SourceFile(file, (band,), radiometry=_radiometry(mtl, band, file)) for band, file in wanted.items()
        }
        quality = [file for file in listing.rasters if file.folder == folder and _is_quality(file.stem, group)]
        return [
            Candidate(
                group,
                self.name,
                select_sources(sources, listing.bands),
                sensor=product.sensor if product else "landsat",
                acquired_at=mtl_time(mtl) or (product.acquired_at if product else None),
                extra_files=(*texts, *files.values(), *quality),
                tags=(("wrs2", product.place.removeprefix("wrs2:")),) if product and product.place else (),
            )
        ]


def _radiometry(mtl: dict[str, str], band: str, file: InboxFile) -> Radiometry | None:
    """Return the scale from the MTL, else from the product id; None for files of reflectance (`_toa`, `_sr`)."""
    found = landsat_band(file.name)
    product = landsat_product(file.name)
    if found is None or found[2] or product is None:
        return None
    if product.sensor.endswith("-l2"):
        return product.radiometry
    return mtl_radiometry(mtl, band) or product.radiometry


def _is_quality(stem: str, group: str) -> bool:
    """Return whether a raster of the product holds quality flags or angles, not reflectance."""
    rest = stem.removeprefix(group).upper()
    return rest != stem.upper() and ("QA" in rest or rest in ("_SAA", "_SZA", "_VAA", "_VZA"))
