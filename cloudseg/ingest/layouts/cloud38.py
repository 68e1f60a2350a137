"""38-Cloud patches (Mohajerani and Saeedi 2018, 2019).

`red_patch_<n>_<row>_by_<col>_<Landsat scene>.TIF` and one file for each further band and the mask.

All in one folder, or as published: `train_red/`, `train_green/`, …, `train_gt/`, `test_red/`, …
"""

import re
from collections import defaultdict
from dataclasses import dataclass

from cloudseg.bands import BLUE, GREEN, NIR, RED
from cloudseg.ingest.candidate import Candidate, LabelFile, SourceFile, UnmatchedFile
from cloudseg.ingest.class_mappings import BINARY_255
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.layouts.base import FileListing, incomplete_scene, missing_bands, select_sources
from cloudseg.ingest.products.landsat import landsat_product

_PATCH = re.compile(r"(red|green|blue|nir|gt|truecolor)_(patch_\d+_\d+_by_\d+_(L.+))", re.I | re.A)
_FOLDER = re.compile(r"(train|test)_(red|green|blue|nir|gt)", re.I | re.A)
_BANDS = (RED, GREEN, BLUE, NIR)


@dataclass(frozen=True)
class Cloud38:
    """Landsat 8 Level-1 digital numbers without georeference; place and time from the scene id in the name."""

    name: str = "38cloud"

    def find(self, listing: FileListing) -> list[Candidate | UnmatchedFile]:
        """Return the scenes; see `Layout.find`."""
        patches: dict[tuple[str, str], dict[str, InboxFile]] = defaultdict(dict)
        for file in listing.rasters:
            if found := _PATCH.fullmatch(file.stem):
                patches[_dataset_part(file.folder), found[2]].setdefault(found[1].lower(), file)
        return [
            item for (_, name), files in sorted(patches.items()) for item in self._scene(name, files, listing.bands)
        ]

    def _scene(
        self, name: str, files: dict[str, InboxFile], wanted: tuple[str | None, ...] | None
    ) -> list[Candidate | UnmatchedFile]:
        product = landsat_product(name)
        scale = product.radiometry if product else None
        bands = {band: SourceFile(files[band], (band,), radiometry=scale) for band in _BANDS if band in files}
        if missing := missing_bands(bands, wanted):
            return incomplete_scene(files.values(), bands, missing)
        if product is None:
            return [
                UnmatchedFile(
                    file,
                    "the file name has no Landsat scene id, so the place is unknown",
                    expected="…_LC08_L1TP_PPPRRR_YYYYMMDD_…",
                )
                for file in files.values()
            ]
        return [
            Candidate(
                name,
                self.name,
                select_sources(bands, wanted),
                sensor=product.sensor,
                acquired_at=product.acquired_at,
                place=product.place,
                needs_georeference=False,
                extra_files=tuple(files.values()),
                label=LabelFile(files["gt"], "38-cloud", (BINARY_255,)) if "gt" in files else None,
            )
        ]


def _dataset_part(folder: str) -> str:
    """Return what the band folders of the published data set share: the parent folder and `train` or `test`."""
    above, _, last = folder.rpartition("/")
    found = _FOLDER.fullmatch(last)
    return f"{above}/{found[1].lower()}" if found else folder
