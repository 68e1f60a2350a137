"""On Cloud N chips (DrivenData, Microsoft, Radiant Earth 2021).

A folder with `B02.tif`, `B03.tif`, `B04.tif`, `B08.tif`, `label.tif`.

As published, the chips are in `train_features/<chip>/` and their labels in `train_labels/<chip>.tif`. A folder of band
files with neither label nor that place may hold any Sentinel-2 product: the layout `sentinel2` reads it.
"""

from dataclasses import dataclass

from cloudseg.bands import SENTINEL2, SENTINEL2_BANDS
from cloudseg.errors import BadScene
from cloudseg.ingest.candidate import Candidate, LabelFile, SourceFile, UnmatchedFile
from cloudseg.ingest.class_mappings import BINARY
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.layouts.base import FileListing, incomplete_scene, missing_bands, select_sources, unusable_product
from cloudseg.ingest.layouts.sentinel2_beside import MetadataFiles, band_radiometry
from cloudseg.ingest.layouts.sentinel2_files import Granule
from cloudseg.ingest.products.sentinel2_radiometry import Sentinel2Evidence

_FEATURES, _TEST_FEATURES, _LABELS = "train_features", "test_features", "train_labels"
_FILES = {f"{code.lower()}.tif": band for code, band in SENTINEL2_BANDS.items()}


@dataclass(frozen=True)
class OnCloudN:
    """Reflectance × 10 000 without offset, unless metadata lies beside; acquisition time in TIFFTAG_DATETIME."""

    name: str = "oncloudn"

    def find(self, listing: FileListing) -> list[Candidate | UnmatchedFile]:
        """Return the scenes; see `Layout.find`."""
        found: list[Candidate | UnmatchedFile] = []
        folders = listing.by_folder()
        metadata = MetadataFiles(listing)
        for folder, files in folders.items():
            bands = {band: files[name] for name, band in _FILES.items() if name in files}
            above, _, chip = folder.rpartition("/")
            label = files.get("label.tif")
            if label is None and above.endswith(_FEATURES):
                label = folders.get(f"{above.removesuffix(_FEATURES)}{_LABELS}", {}).get(f"{chip.lower()}.tif")
            if bands and (label or above.endswith((_FEATURES, _TEST_FEATURES))):
                found += self._scene(listing, folder, bands, label, metadata)
        return found

    def _scene(
        self,
        listing: FileListing,
        folder: str,
        bands: dict[str, InboxFile],
        label: InboxFile | None,
        metadata: MetadataFiles,
    ) -> list[Candidate | UnmatchedFile]:
        if missing := missing_bands(bands, listing.bands):
            return incomplete_scene(bands.values(), bands, missing)
        first = next(iter(bands.values()))
        try:
            beside = metadata.of(Granule(folder, folder, ""), first, alone=True)
            # The data set has no metadata; the same names with metadata beside them are another product.
            evidence = Sentinel2Evidence(folder, beside.product, SENTINEL2, beside.metadata, beside.damaged)
            scales = {
                band: band_radiometry(evidence, listing, beside.facts, band, file) for band, file in bands.items()
            }
        except BadScene as error:
            return [unusable_product([*bands.values(), *([label] if label else [])], error)]
        sources = select_sources(
            {band: SourceFile(file, (band,), radiometry=scales[band]) for band, file in bands.items()}, listing.bands
        )
        return [
            Candidate(
                folder.rpartition("/")[2] or "chip",
                self.name,
                sources,
                sensor="sentinel-2-l1c",
                time_in_tags=True,
                extra_files=tuple(bands.values()),
                label=LabelFile(label, "on-cloud-n", (BINARY,)) if label else None,
            )
        ]
