"""Sentinel-2, one file a band: `…_B02.jp2`, or a whole SAFE product with `GRANULE/…/IMG_DATA/…_B02.jp2` in it."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cloudseg.bands import NIR, RGB, SENTINEL2, SENTINEL2_OFFSET, Radiometry
from cloudseg.ingest.candidate import Candidate, InboxFile, SourceFile, Stray
from cloudseg.ingest.layouts.view import View, chosen, incomplete, missing_bands
from cloudseg.ingest.names import Product, sentinel2_band, sentinel2_product, sentinel2_tile

_BASELINE_4: Final = datetime(2022, 1, 25, tzinfo=UTC)
"""First day of processing baseline 04.00."""
_PRODUCT_FOLDER: Final = ".safe/"
_FULL: Final = (*RGB, NIR)
"""Of a whole product only the bands of 10 m; of loose files all, brought to the finest grid."""


@dataclass(frozen=True)
class Sentinel2Bands:
    """Place, time and baseline from the product id in the path, else from the granule's file names."""

    name: str = "sentinel2"

    def find(self, view: View) -> list[Candidate | Stray]:
        """See Layout.find."""
        groups: dict[tuple[str, str], dict[str, tuple[int, InboxFile]]] = defaultdict(dict)
        for file in view.rasters:
            if found := sentinel2_band(file.name):
                group, band, resolution = found
                files = groups[_product_folder(file), group]
                # Level-2A holds a band at several resolutions: the finest.
                if band not in files or (resolution or 0) < files[band][0]:
                    files[band] = (resolution or 0, file)
        taken = {file.path for files in groups.values() for _, file in files.values()}
        rest = [file for file in view.rasters if file.path not in taken and _PRODUCT_FOLDER in file.path.lower()]
        return [item for key, files in sorted(groups.items()) for item in self._scene(view, *key, _files(files), rest)]

    def _scene(
        self, view: View, folder: str, group: str, files: dict[str, InboxFile], rest: list[InboxFile]
    ) -> list[Candidate | Stray]:
        whole = folder.lower().endswith(_PRODUCT_FOLDER.rstrip("/"))
        wanted = view.bands or (_FULL if whole else None)
        if missing := missing_bands(files, view.bands):
            return incomplete(files.values(), files, missing)
        path = next(iter(files.values())).path
        product, tile = sentinel2_product(path), sentinel2_tile(group)
        place, acquired_at = tile or (None, None)
        radiometry = _radiometry(product, acquired_at)
        sources = {band: SourceFile(file, (band,), radiometry=radiometry) for band, file in files.items()}
        others = tuple(file for file in rest if file.path.startswith(f"{folder}/")) if whole else ()
        return [
            Candidate(
                _name(folder, group, whole),
                self.name,
                chosen(sources, wanted),
                sensor=product.sensor if product else "sentinel-2",
                acquired_at=product.acquired_at if product else acquired_at,
                place=product.place if product else place,
                companions=(*files.values(), *others),
            )
        ]


def _files(found: dict[str, tuple[int, InboxFile]]) -> dict[str, InboxFile]:
    return {band: file for band, (_, file) in found.items()}


def _product_folder(file: InboxFile) -> str:
    """Return the SAFE folder that the file lies in, else its own folder."""
    at = file.path.lower().find(_PRODUCT_FOLDER)
    return file.path[: at + len(_PRODUCT_FOLDER) - 1] if at >= 0 else file.folder


def _name(folder: str, group: str, whole: bool) -> str:
    last = folder.rpartition("/")[2]
    return last[: -len(_PRODUCT_FOLDER) + 1] if whole else group or last or "sentinel-2"


def _radiometry(product: Product | None, acquired_at: datetime | None) -> Radiometry | None:
    """From the baseline in the product id.

    A granule's file name has only the time, and the baseline follows from it.
    """
    if product is not None:
        return product.radiometry
    if acquired_at is None:
        return None
    known = SENTINEL2_OFFSET if acquired_at >= _BASELINE_4 else SENTINEL2
    return Radiometry(
        known.scale, known.offset, known.fill, f"{known.source} (assumed from the date: no baseline in the name)"
    )
