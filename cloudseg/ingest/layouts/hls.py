"""Harmonized Landsat Sentinel-2 (HLS), one file per band: `HLS.L30.T31UDQ.2023213T105621.v2.0.B04.tif`."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from cloudseg.bands import HLS
from cloudseg.ingest.candidate import Candidate, QualityFile, SourceFile, UnmatchedFile
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.ingest.layouts.base import FileListing, incomplete_scene, missing_bands, select_sources
from cloudseg.ingest.products.hls import HLS_BANDS, hls_layer, hls_product

_OPTIONAL: Final = frozenset(["lwir11", "lwir12"])
"""Used with `--bands` only: thermal bands have no reflectance."""
_FMASK: Final = "FMASK"


@dataclass(frozen=True)
class HlsBands:
    """Surface reflectance × 10 000 with the fill value −9999; place and time from the name; Fmask as quality layer."""

    name: str = "hls"

    def find(self, listing: FileListing) -> list[Candidate | UnmatchedFile]:
        """Return the scenes; see `Layout.find`."""
        granules: dict[tuple[str, str], dict[str, InboxFile]] = defaultdict(dict)
        for file in listing.rasters:
            if found := hls_layer(file.name):
                granules[file.folder, found[0]].setdefault(found[1], file)
        return [item for (_, name), layers in sorted(granules.items()) for item in _scene(name, layers, listing.bands)]


def _scene(
    granule: str, layers: dict[str, InboxFile], bands: tuple[str | None, ...] | None
) -> list[Candidate | UnmatchedFile]:
    product = hls_product(granule)
    if product is None:  # `hls_layer` found one in every name
        return []
    codes = HLS_BANDS[product.sensor]
    files = {codes[code]: file for code, file in layers.items() if code in codes}
    if missing := missing_bands(files, bands):
        return incomplete_scene(layers.values(), files, missing)
    sources = {
        band: SourceFile(file, (band,), radiometry=HLS)
        for band, file in files.items()
        if bands or band not in _OPTIONAL
    }
    return [
        Candidate(
            granule,
            "hls",
            select_sources(sources, bands),
            sensor=product.sensor,
            acquired_at=product.acquired_at,
            place=product.place,
            quality=(QualityFile(layers[_FMASK], "hls_fmask"),) if _FMASK in layers else (),
            extra_files=tuple(layers.values()),
        )
    ]
