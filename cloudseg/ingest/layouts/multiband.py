"""Multi-band GeoTIFF, COG or JPEG 2000: one file, one scene. Takes every raster that no other layout knows."""

from dataclasses import dataclass

from cloudseg.ingest.candidate import Candidate, InboxFile, SourceFile, Stray
from cloudseg.ingest.layouts.view import View
from cloudseg.ingest.names import landsat_product, sentinel2_product, sentinel2_tile


@dataclass(frozen=True)
class MultiBand:
    """Band names from `--bands`, else from the file's own band descriptions or colours."""

    name: str = "multiband"

    def find(self, view: View) -> list[Candidate | Stray]:
        """See Layout.find."""
        return [scene_of_one_file(file, self.name, view.bands) for file in view.rasters]


def scene_of_one_file(file: InboxFile, layout: str, bands: tuple[str | None, ...] | None) -> Candidate:
    """Return the scene of one file, with what a product id in its name tells."""
    product = sentinel2_product(file.stem) or landsat_product(file.stem)
    source = SourceFile(file, bands, radiometry=product.radiometry if product else None)
    if product is None:
        tile = sentinel2_tile(file.stem)
        place, acquired_at = tile or (None, None)
        return Candidate(
            file.stem,
            layout,
            (source,),
            place=place,
            acquired_at=acquired_at,
            sensor="sentinel-2" if tile else "unknown",
        )
    # A Landsat cell is not an MGRS square: a scene with a georeference gets the square that it lies in.
    place = product.place if (product.place or "").startswith("mgrs:") else None
    return Candidate(file.stem, layout, (source,), sensor=product.sensor, acquired_at=product.acquired_at, place=place)
