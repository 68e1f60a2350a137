"""38-Cloud patches (Mohajerani and Saeedi 2018, 2019).

`red_patch_<n>_<row>_by_<col>_<Landsat scene>.TIF` and its sisters.

All in one folder, or as published: `train_red/`, `train_green/`, …, `train_gt/`, `test_red/`, …
"""

import re
from collections import defaultdict
from dataclasses import dataclass

from cloudseg.bands import BLUE, GREEN, NIR, RED
from cloudseg.ingest.candidate import BINARY_255, Candidate, InboxFile, LabelFile, SourceFile, Stray
from cloudseg.ingest.layouts.view import View, chosen, incomplete, missing_bands
from cloudseg.ingest.names import landsat_product

_PATCH = re.compile(r"(red|green|blue|nir|gt|truecolor)_(patch_\d+_\d+_by_\d+_(L.+))", re.I | re.A)
_FOLDER = re.compile(r"(train|test)_(red|green|blue|nir|gt)", re.I | re.A)
_BANDS = (RED, GREEN, BLUE, NIR)


@dataclass(frozen=True)
class Cloud38:
    """Landsat-8 Level-1 numbers without georeference: the scene id in the name gives place and time."""

    name: str = "38cloud"

    def find(self, view: View) -> list[Candidate | Stray]:
        """See Layout.find."""
        patches: dict[tuple[str, str], dict[str, InboxFile]] = defaultdict(dict)
        for file in view.rasters:
            if found := _PATCH.fullmatch(file.stem):
                patches[_family(file.folder), found[2]].setdefault(found[1].lower(), file)
        return [item for (_, name), files in sorted(patches.items()) for item in self._scene(name, files, view.bands)]

    def _scene(
        self, name: str, files: dict[str, InboxFile], wanted: tuple[str | None, ...] | None
    ) -> list[Candidate | Stray]:
        product = landsat_product(name)
        scale = product.radiometry if product else None
        bands = {band: SourceFile(files[band], (band,), radiometry=scale) for band in _BANDS if band in files}
        if missing := missing_bands(bands, wanted):
            return incomplete(files.values(), bands, missing)
        if product is None:
            return [
                Stray(
                    file,
                    "the name holds no Landsat scene id, so the patch has no place",
                    expected="…_LC08_L1TP_PPPRRR_YYYYMMDD_…",
                )
                for file in files.values()
            ]
        return [
            Candidate(
                name,
                self.name,
                chosen(bands, wanted),
                sensor=product.sensor,
                acquired_at=product.acquired_at,
                place=product.place,
                needs_georeference=False,
                companions=tuple(files.values()),
                label=LabelFile(files["gt"], "38-cloud", (BINARY_255,)) if "gt" in files else None,
            )
        ]


def _family(folder: str) -> str:
    """Return what the sister folders of the published data set share.

    The folder above and whether it trains or tests.
    """
    above, _, last = folder.rpartition("/")
    found = _FOLDER.fullmatch(last)
    return f"{above}/{found[1].lower()}" if found else folder
