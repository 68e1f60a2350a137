"""Multi-band GeoTIFF, COG or JPEG 2000: one file, one scene. Claims every raster that no other layout recognizes."""

from dataclasses import dataclass

from cloudseg.ingest.candidate import Candidate, SourceFile, UnmatchedFile
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.layouts.base import FileListing
from cloudseg.ingest.layouts.sentinel2_beside import MetadataFiles, with_metadata
from cloudseg.ingest.layouts.stac import with_item
from cloudseg.ingest.products import find_product
from cloudseg.ingest.products.sentinel2 import guess_radiometry, sentinel2_tile


@dataclass(frozen=True)
class MultiBand:
    """Band names from `--bands`, else from the file's own band descriptions or colors."""

    name: str = "multiband"

    def find(self, listing: FileListing) -> list[Candidate | UnmatchedFile]:
        """Return the scenes; see `Layout.find`."""
        metadata = MetadataFiles(listing)
        scenes = [single_file_scene(file, self.name, listing.bands) for file in listing.rasters]
        known = [with_metadata(scene, listing, metadata) for scene in scenes]
        return [with_item(scene, listing) if isinstance(scene, Candidate) else scene for scene in known]


def single_file_scene(file: InboxFile, layout: str, bands: tuple[str | None, ...] | None) -> Candidate:
    """Return the scene of one file, with sensor, time, place and scale from a product id in its name."""
    product = find_product(file.stem)
    if product is None:
        tile = sentinel2_tile(file.stem)
        place, acquired_at = tile or (None, None)
        return Candidate(
            file.stem,
            layout,
            (SourceFile(file, bands, radiometry=guess_radiometry(acquired_at) if tile else None),),
            place=place,
            acquired_at=acquired_at,
            sensor="sentinel-2" if tile else "unknown",
        )
    source = SourceFile(file, bands, radiometry=product.radiometry)
    # A WRS-2 cell is not an MGRS square: a scene with a georeference gets the square of its center.
    place = product.place if (product.place or "").startswith("mgrs:") else None
    return Candidate(file.stem, layout, (source,), sensor=product.sensor, acquired_at=product.acquired_at, place=place)
