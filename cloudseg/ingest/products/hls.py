"""Harmonized Landsat Sentinel-2 (HLS): the names of its files.

NASA, "HLS v2.0 User Guide": `HLS.<L30 or S30>.T<MGRS tile>.<year, day of year>T<time>.v<version>.<layer>.tif`.
"""

import re
from typing import Final

from cloudseg.bands import HLS, LANDSAT8_BANDS, SENTINEL2_BANDS
from cloudseg.ingest.products.product import Product, parse_time

_GRANULE: Final = re.compile(
    r"HLS\.(?P<kind>[LS]30)\.T(?P<tile>\d{2}[C-X][A-Z]{2})\.(?P<time>\d{7}T\d{6})\.v\d+\.\d+", re.I | re.A
)
_LAYER: Final = re.compile(rf"(?P<granule>{_GRANULE.pattern})\.(?P<layer>[A-Za-z0-9]+)\.tiff?", re.I | re.A)
HLS_BANDS: Final = {
    "hls-l30": {f"B{int(code[1:]):02}": name for code, name in LANDSAT8_BANDS.items() if name != "pan"},
    "hls-s30": SENTINEL2_BANDS,
}
"""Band names by sensor and code."""


def hls_product(text: str) -> Product | None:
    """Return the content of an HLS granule id in a name, or None."""
    found = _GRANULE.search(text)
    if found is None:
        return None
    place = f"mgrs:{found['tile'].upper()}"
    return Product(f"hls-{found['kind'].lower()}", parse_time(found["time"].upper(), "%Y%jT%H%M%S"), place, HLS)


def hls_layer(name: str) -> tuple[str, str] | None:
    """Split the name of a file into the granule id and the layer (`B04`, `FMASK`), or return None."""
    found = _LAYER.fullmatch(name)
    return (found["granule"], found["layer"].upper()) if found else None
