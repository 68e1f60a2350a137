"""CloudSEN12 (Aybar et al. 2022): a folder with `S2L1C.tif` and the label `manual_hq.tif`."""

from dataclasses import dataclass

from cloudseg.bands import RGB, SENTINEL2, SENTINEL2_BANDS
from cloudseg.ingest.candidate import Candidate, LabelFile, SourceFile, UnmatchedFile
from cloudseg.ingest.class_mappings import CLOUDSEN12
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.layouts.base import FileListing

_IMAGE, _LABEL = "s2l1c.tif", "manual_hq.tif"


@dataclass(frozen=True)
class CloudSen12:
    """Three bands: red, green, blue. Thirteen: all of Sentinel-2 in ESA's order. Reflectance × 10 000."""

    name: str = "cloudsen12"

    def find(self, listing: FileListing) -> list[Candidate | UnmatchedFile]:
        """Return the scenes; see `Layout.find`."""
        folders = [(path, files) for path, files in listing.by_folder().items() if _IMAGE in files]
        return [self._scene(path, files[_IMAGE], files.get(_LABEL)) for path, files in folders]

    def _scene(self, folder: str, image: InboxFile, label: InboxFile | None) -> Candidate:
        # The data set was made before processing baseline 04.00: no offset (its paper, section "Data collection").
        source = SourceFile(image, bands=RGB, other_bands=(tuple(SENTINEL2_BANDS.values()),), radiometry=SENTINEL2)
        return Candidate(
            folder.rpartition("/")[2] or image.stem,
            self.name,
            (source,),
            sensor="sentinel-2-l1c",
            label=LabelFile(label, "cloudsen12", (CLOUDSEN12,)) if label else None,
        )
