"""Sentinel-2, one file per band: `…_B02.jp2`, or a whole SAFE product with `GRANULE/…/IMG_DATA/…_B02.jp2` in it."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cloudseg.bands import NIR, RGB, SENTINEL2, SENTINEL2_OFFSET, Radiometry
from cloudseg.ingest.candidate import Candidate, SourceFile, UnmatchedFile
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.layouts.base import FileListing, incomplete_scene, missing_bands, select_sources
from cloudseg.ingest.products import Product
from cloudseg.ingest.products.sentinel2 import sentinel2_band, sentinel2_product, sentinel2_tile

_BASELINE_4: Final = datetime(2022, 1, 25, tzinfo=UTC)
"""First day of processing baseline 04.00."""
_PRODUCT_FOLDER: Final = ".safe/"
_PRODUCT_BANDS: Final = (*RGB, NIR)
"""Of a whole product only the bands of 10 m; of separate files all, resampled to the finest grid."""


@dataclass(frozen=True)
class Sentinel2Bands:
    """Place, time and baseline from the product id in the path, else from the granule's file names."""

    name: str = "sentinel2"

    def find(self, listing: FileListing) -> list[Candidate | UnmatchedFile]:
        """Return the scenes; see `Layout.find`."""
        groups: dict[tuple[str, str], dict[str, tuple[int, InboxFile]]] = defaultdict(dict)
        for file in listing.rasters:
            if found := sentinel2_band(file.name):
                group, band, resolution = found
                files = groups[_product_folder(file), group]
                # Level-2A has a band at several resolutions: use the finest.
                if band not in files or (resolution or 0) < files[band][0]:
                    files[band] = (resolution or 0, file)
        claimed = {file.path for files in groups.values() for _, file in files.values()}
        rest = [file for file in listing.rasters if file.path not in claimed and _PRODUCT_FOLDER in file.path.lower()]
        return [
            item for key, files in sorted(groups.items()) for item in self._scene(listing, *key, _files(files), rest)
        ]

    def _scene(
        self, listing: FileListing, folder: str, group: str, files: dict[str, InboxFile], rest: list[InboxFile]
    ) -> list[Candidate | UnmatchedFile]:
        whole = folder.lower().endswith(_PRODUCT_FOLDER.rstrip("/"))
        wanted = listing.bands or (_PRODUCT_BANDS if whole else None)
        if missing := missing_bands(files, listing.bands):
            return incomplete_scene(files.values(), files, missing)
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
                select_sources(sources, wanted),
                sensor=product.sensor if product else "sentinel-2",
                acquired_at=product.acquired_at if product else acquired_at,
                place=product.place if product else place,
                extra_files=(*files.values(), *others),
            )
        ]


def _files(found: dict[str, tuple[int, InboxFile]]) -> dict[str, InboxFile]:
    return {band: file for band, (_, file) in found.items()}


def _product_folder(file: InboxFile) -> str:
    """Return the SAFE folder that contains the file, else its own folder."""
    at = file.path.lower().find(_PRODUCT_FOLDER)
    return file.path[: at + len(_PRODUCT_FOLDER) - 1] if at >= 0 else file.folder


def _name(folder: str, group: str, whole: bool) -> str:
    last = folder.rpartition("/")[2]
    return last[: -len(_PRODUCT_FOLDER) + 1] if whole else group or last or "sentinel-2"


def _radiometry(product: Product | None, acquired_at: datetime | None) -> Radiometry | None:
    """Return the scale from the baseline in the product id, else from the time in a granule's file name."""
    if product is not None:
        return product.radiometry
    if acquired_at is None:
        return None
    known = SENTINEL2_OFFSET if acquired_at >= _BASELINE_4 else SENTINEL2
    return Radiometry(
        known.scale, known.offset, known.fill, f"{known.source} (assumed from the date: no baseline in the name)"
    )
