"""Sentinel-2, one file per band: `…_B02.jp2`, a SAFE product of either format, or the folders of the AWS buckets."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from cloudseg.bands import NIR, RED, RGB
from cloudseg.errors import BadScene
from cloudseg.ingest.candidate import Candidate, QualityFile, SourceFile, UnmatchedFile
from cloudseg.ingest.layouts.base import FileListing, incomplete_scene, missing_bands, select_sources, unusable_product
from cloudseg.ingest.layouts.sentinel2_beside import Beside, MetadataFiles, band_radiometry, damage_tags
from cloudseg.ingest.layouts.sentinel2_files import Granule, GranuleFiles, group_files, unique_names
from cloudseg.ingest.products.sentinel2 import guess_radiometry
from cloudseg.ingest.products.sentinel2_metadata import Sentinel2Metadata
from cloudseg.ingest.products.sentinel2_radiometry import Sentinel2Evidence
from cloudseg.ingest.stac_item import StacItem

_Value = TypeVar("_Value")

_PRODUCT_BANDS: Final = (*RGB, NIR)
"""Of a whole product only the bands of 10 m; of separate files all, resampled to the finest grid."""


@dataclass(frozen=True)
class Sentinel2Bands:
    """Scale from the metadata beside the bands, else from the baseline in the product id; the date only guesses.

    Place and time from the product id in the path, else from the file names, else from the metadata.
    """

    name: str = "sentinel2"

    def find(self, listing: FileListing) -> list[Candidate | UnmatchedFile]:
        """Return the scenes; see `Layout.find`."""
        groups = group_files(listing.files)
        names = unique_names(groups)
        metadata = MetadataFiles(listing)
        beside = Counter(key.root for key in groups)
        return [
            item
            for key, files in groups.items()
            for item in self._scene(listing, key, files, names[key], metadata, alone=beside[key.root] == 1)
        ]

    def _scene(
        self,
        listing: FileListing,
        key: Granule,
        files: GranuleFiles,
        name: str,
        metadata: MetadataFiles,
        *,
        alone: bool,
    ) -> list[Candidate | UnmatchedFile]:
        everything = (*files.bands.values(), *files.others)
        first = files.bands.get(RED) or next(iter(files.bands.values()))
        if missing := missing_bands(files.bands, listing.bands):
            (entry, *_) = incomplete_scene([first], files.bands, missing)
            return [replace(entry, extra_files=everything)]
        try:
            return [self._candidate(listing, key, files, name, metadata.of(key, first, alone=alone))]
        except BadScene as error:
            return [unusable_product(everything, error)]

    def _candidate(
        self, listing: FileListing, key: Granule, files: GranuleFiles, name: str, found: Beside
    ) -> Candidate:
        whole = key.is_safe or files.has_resolution_folders
        wanted = listing.bands or (_PRODUCT_BANDS if whole else None)
        items: list[StacItem] = [item for file in files.bands.values() for item, _ in listing.items.of(file)]
        facts = found.facts
        stated: list[StacItem | Sentinel2Metadata] = [*items, *found.metadata]
        acquired_at = facts.acquired_at or _first(each.acquired_at for each in stated) or facts.day
        evidence = Sentinel2Evidence(
            name,
            found.product,
            guess_radiometry(acquired_at),
            found.metadata,
            (*found.damaged, *_damaged_items(listing, key)),
        )
        sources = {
            band: SourceFile(file, (band,), radiometry=band_radiometry(evidence, listing, facts, band, file))
            for band, file in files.bands.items()
        }
        scl = files.scene_classification()
        return Candidate(
            name,
            self.name,
            select_sources(sources, wanted),
            quality=(QualityFile(scl, "sentinel2_scl"),) if scl else (),
            sensor=found.product.sensor if found.product else _sensor(items, found.metadata),
            acquired_at=acquired_at,
            # Files called B02.tif, as in the chips of On Cloud N, may carry the time in a tag.
            time_in_tags=acquired_at is None and not key.prefix,
            place=facts.place or _first(each.place for each in stated),
            extra_files=(*files.bands.values(), *files.others),
            tags=damage_tags(evidence.damaged),
        )


def _damaged_items(listing: FileListing, key: Granule) -> list[str]:
    return [text for folder in key.metadata_folders() for text in listing.items.damaged(folder)]


def _sensor(items: list[StacItem], metadata: tuple[Sentinel2Metadata, ...]) -> str:
    named = _first(item.sensor for item in items if item.is_sentinel2)
    level = _first(each.level for each in metadata)
    return named or (f"sentinel-2-{level}" if level else "sentinel-2")


def _first(values: "Iterable[_Value | None]") -> "_Value | None":
    return next((value for value in values if value), None)
