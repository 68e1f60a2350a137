"""Landsat-8 and -9, one file a band.

`LC08_…_B4.TIF` with `LC08_…_MTL.txt`, or reflectance as floats, `LC8…_B4_toa.tif`.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from cloudseg.bands import Radiometry
from cloudseg.ingest.candidate import Candidate, InboxFile, SourceFile, Stray
from cloudseg.ingest.layouts.view import View, chosen, incomplete, missing_bands
from cloudseg.ingest.names import landsat_band, landsat_product, mtl_radiometry, mtl_time, read_mtl

_LEFT_OUT: Final = frozenset(["pan", "lwir11", "lwir12"])
"""Panchromatic has another grid and thermal bands are no reflectance: taken with `--bands` only, if at all."""


@dataclass(frozen=True)
class LandsatBands:
    """Scale and offset from the MTL, divided by the sine of the sun's elevation.

    Without MTL the usual ones, without the sun.
    """

    name: str = "landsat"

    def find(self, view: View) -> list[Candidate | Stray]:
        """See Layout.find."""
        groups: dict[tuple[str, str], dict[str, InboxFile]] = defaultdict(dict)
        for file in view.rasters:
            if found := landsat_band(file.name):
                group, band, _ = found
                groups[file.folder, group].setdefault(band, file)
        return [item for key, files in sorted(groups.items()) for item in self._scene(view, *key, files)]

    def _scene(self, view: View, folder: str, group: str, files: dict[str, InboxFile]) -> list[Candidate | Stray]:
        if missing := missing_bands(files, view.bands):
            return incomplete(files.values(), files, missing)
        product = landsat_product(group)
        texts = [
            file for file in view.files if file.folder == folder and file.name.lower() == f"{group}_mtl.txt".lower()
        ]
        mtl = read_mtl(view.text(texts[0])) if texts else {}
        wanted = {band: file for band, file in files.items() if view.bands or band not in _LEFT_OUT}
        sources = {
            band: SourceFile(file, (band,), radiometry=_radiometry(mtl, band, file)) for band, file in wanted.items()
        }
        quality = [file for file in view.rasters if file.folder == folder and _is_quality(file.stem, group)]
        return [
            Candidate(
                group,
                self.name,
                chosen(sources, view.bands),
                sensor=product.sensor if product else "landsat",
                acquired_at=mtl_time(mtl) or (product.acquired_at if product else None),
                companions=(*texts, *files.values(), *quality),
                tags=(("wrs2", product.place.removeprefix("wrs2:")),) if product and product.place else (),
            )
        ]


def _radiometry(mtl: dict[str, str], band: str, file: InboxFile) -> Radiometry | None:
    """From the MTL, else what the product id says; None where the numbers are reflectance already (`_toa`, `_sr`)."""
    found = landsat_band(file.name)
    product = landsat_product(file.name)
    if found is None or found[2] or product is None:
        return None
    if product.sensor.endswith("-l2"):
        return product.radiometry
    return mtl_radiometry(mtl, band) or product.radiometry


def _is_quality(stem: str, group: str) -> bool:
    """Return whether a raster holds flags or angles of the product rather than reflectance."""
    rest = stem.removeprefix(group).upper()
    return rest != stem.upper() and ("QA" in rest or rest in ("_SAA", "_SZA", "_VAA", "_VZA"))
