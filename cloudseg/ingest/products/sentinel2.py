"""Sentinel-2: product ids and the names of band files."""

import re
from datetime import datetime
from typing import Final

from cloudseg.bands import SENTINEL2, SENTINEL2_BANDS, SENTINEL2_OFFSET
from cloudseg.ingest.products.product import Product, parse_time
from cloudseg.ingest.sensor_hints import S2, families_in

# ESA, Sentinel-2 Products Specification Document, "Naming convention":
# MMM_MSIXXX_YYYYMMDDHHMMSS_Nxxyy_ROOO_Txxxxx_<discriminator>
_PRODUCT_ID: Final = re.compile(
    r"S2[A-D]_MSI(L1C|L2A)_(\d{8}T\d{6})_N(\d{4})_R\d{3}_T(\d{2}[C-X][A-Z]{2})(?![A-Z0-9])", re.I | re.A
)
# The names of the band files inside a product: T31UDQ_20240501T105031_B02.jp2, in Level-2A with _10m behind the band.
_BAND_FILE: Final = re.compile(
    r"(?P<group>.*?)(?:(?<=[_.-])|^)(?P<band>B(?:0[1-9]|8A|1[0-2]))(?:_(?P<resolution>[126]0m))?\.(?:jp2|tiff?)$",
    re.I | re.A,
)
_TILE: Final = re.compile(r"^T(\d{2}[C-X][A-Z]{2})_(\d{8}T\d{6})(?:_|$)", re.I | re.A)
_OFFSET_SINCE: Final = 400
"""Processing baseline 04.00, since 2022-01-25: BOA_ADD_OFFSET and RADIO_ADD_OFFSET of -1000."""


def sentinel2_product(text: str) -> Product | None:
    """Return the content of a Sentinel-2 product id anywhere in a name, or None."""
    found = _PRODUCT_ID.search(text)
    if found is None:
        return None
    level, time, baseline, tile = found.groups()
    radiometry = SENTINEL2_OFFSET if int(baseline) >= _OFFSET_SINCE else SENTINEL2
    return Product(f"sentinel-2-{level.lower()}", parse_time(time, "%Y%m%dT%H%M%S"), f"mgrs:{tile.upper()}", radiometry)


def sentinel2_tile(text: str) -> tuple[str, datetime | None] | None:
    """Return place and time from the name of a granule's band file (`T31UDQ_20240501T105031_B02.jp2`), or None."""
    found = _TILE.search(text)
    return (f"mgrs:{found[1].upper()}", parse_time(found[2], "%Y%m%dT%H%M%S")) if found else None


def sentinel2_band(name: str) -> tuple[str, str, int | None] | None:
    """Split the name of a band file.

    Returns:
        The part before the band, the band's name, and the resolution in meters if the name has a Level-2A suffix.
        None if it is not a band file.
    """
    found = _BAND_FILE.fullmatch(name)
    if found is None:
        return None
    if (named := families_in(found["group"])) and S2 not in named:
        return None  # LT05_…_B04.tif: the code is another sensor's
    resolution = int(found["resolution"][:2]) if found["resolution"] else None
    return found["group"].rstrip("_.-"), SENTINEL2_BANDS[found["band"].upper()], resolution
