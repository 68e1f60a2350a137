"""Sentinel-2: product ids, granule ids and the names of band files."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from cloudseg.bands import SENTINEL2, SENTINEL2_BANDS, SENTINEL2_OFFSET, Radiometry
from cloudseg.ingest.products.product import Product, parse_time
from cloudseg.ingest.sensor_hints import S2, families_in

# ESA, Sentinel-2 Products Specification Document, "Naming convention":
# MMM_MSIXXX_YYYYMMDDHHMMSS_Nxxyy_ROOO_Txxxxx_<discriminator>
_PRODUCT_ID: Final = re.compile(
    r"S2[A-D]_MSI(L1C|L2A)_(\d{8}T\d{6})_N(\d{4})_R\d{3}_T(\d{2}[C-X][A-Z]{2})(?![A-Z0-9])", re.I | re.A
)
# The same document, issue 13, before December 2016: the product holds many granules and names no tile; the time behind
# V is that of sensing, the first one that of processing.
_OLD_PRODUCT_ID: Final = re.compile(
    r"S2[AB]_(?:OPER|USER)_PRD_MSI(L1C|L2A)_\w{4}_\d{8}T\d{6}_R\d{3}_V(\d{8}T\d{6})_\d{8}T\d{6}", re.I | re.A
)
# A granule of that format, also the TILE_ID of later metadata. The first time is that of processing.
_GRANULE_ID: Final = re.compile(
    r"S2[A-D]_(?:OPER|USER)_MSI_(L1C|L2A)_TL_\w{4}_\d{8}T\d{6}_A\d{6}_T(\d{2}[C-X][A-Z]{2})(?:_N(\d{2}\.\d{2}))?"
    r"(?![A-Z0-9])",
    re.I | re.A,
)
# The names of the band files inside a product: T31UDQ_20240501T105031_B02.jp2, in Level-2A with _10m behind the band.
_BAND_FILE: Final = re.compile(
    r"(?P<group>.*?)(?:(?<=[_.-])|^)(?P<band>B(?:0[1-9]|8A|1[0-2]))(?:_(?P<resolution>[126]0m))?\.(?:jp2|tiff?)$",
    re.I | re.A,
)
_TILE: Final = re.compile(r"^(?:L2A_)?T(\d{2}[C-X][A-Z]{2})_(\d{8}T\d{6})(?:_|$)", re.I | re.A)
# sentinel-s2-l1c and sentinel-s2-l2a on AWS: tiles/<zone>/<latitude band>/<square>/<year>/<month>/<day>/<sequence>/
_BUCKET: Final = re.compile(r"(?:^|/)(\d{1,2})/([C-X])/([A-Z]{2})/(20\d{2})/(\d{1,2})/(\d{1,2})/(\d{1,2})(?:/|$)", re.A)
# Element84 earth-search, COGs and items: S2A_31UDQ_20190501_0_L2A
_COG_ID: Final = re.compile(r"S2[A-D]_(\d{1,2})([C-X])([A-Z]{2})_(20\d{6})_\d{1,2}_L(?:1C|2A)(?![A-Z0-9])", re.A)
OFFSET_SINCE: Final = 400
"""Processing baseline 04.00, since 2022-01-25: BOA_ADD_OFFSET and RADIO_ADD_OFFSET of -1000."""
_LOCAL_SINCE: Final = 9900
"""Baselines 99.xx: made by a user with Sen2Cor; they say nothing about the offset."""
_FIRST_DAY: Final = datetime(2022, 1, 25, tzinfo=UTC)
"""First day of processing baseline 04.00."""


def sentinel2_product(text: str) -> Product | None:
    """Return the content of a Sentinel-2 product id or old granule id anywhere in a path, or None."""
    if found := _PRODUCT_ID.search(text):
        level, time, baseline, tile = found.groups()
        acquired_at = parse_time(time, "%Y%m%dT%H%M%S")
        radiometry = baseline_radiometry(int(baseline)) or guess_radiometry(acquired_at)
        return Product(f"sentinel-2-{level.lower()}", acquired_at, f"mgrs:{tile.upper()}", radiometry)
    product, granule = _OLD_PRODUCT_ID.search(text), _GRANULE_ID.search(text)
    found = product or granule
    if found is None:
        return None
    acquired_at = parse_time(product[2], "%Y%m%dT%H%M%S") if product else None
    number = parse_baseline(granule[3]) if granule else None
    # The last product of the old format is of baseline 02.04.
    radiometry = (baseline_radiometry(number) if number is not None else None) or SENTINEL2
    place = f"mgrs:{granule[2].upper()}" if granule else None
    return Product(f"sentinel-2-{found[1].lower()}", acquired_at, place, radiometry)


def parse_baseline(text: str | None) -> int | None:
    """Return a processing baseline as a number, '05.09' as 509; None if there is none or it is not a baseline."""
    found = re.fullmatch(r"(\d{2})\.?(\d{2})", text.strip(), re.A) if text else None
    return int(found[1] + found[2]) if found else None


def baseline_radiometry(baseline: int | None) -> Radiometry | None:
    """Return the scale of a processing baseline of ESA; None for a local one (99.xx), which says nothing."""
    if baseline is None or baseline >= _LOCAL_SINCE:
        return None
    return SENTINEL2_OFFSET if baseline >= OFFSET_SINCE else SENTINEL2


def guess_radiometry(acquired_at: datetime | None, because: str = "no metadata, no baseline in the name") -> Radiometry:
    """Return the scale that products of this date had when they were first processed, marked as a guess."""
    if acquired_at is None:
        return replace(SENTINEL2, source=f"{SENTINEL2.source} (guessed: {because}, no date)", guessed=True)
    known = SENTINEL2_OFFSET if acquired_at >= _FIRST_DAY else SENTINEL2
    return replace(
        known, source=f"{known.source} (guessed from the date {acquired_at:%Y-%m-%d}: {because})", guessed=True
    )


def sentinel2_tile(text: str) -> tuple[str, datetime | None] | None:
    """Return place and time from the name of a granule's band file (`T31UDQ_20240501T105031_B02.jp2`), or None."""
    found = _TILE.search(text)
    return (f"mgrs:{found[1].upper()}", parse_time(found[2], "%Y%m%dT%H%M%S")) if found else None


def sentinel2_bucket_tile(path: str) -> tuple[str, datetime | None, str] | None:
    """Return place, day and a name from a path of the AWS buckets, or None.

    Args:
        path: As in `tiles/31/U/DQ/2019/5/1/0/B02.jp2` or `S2A_31UDQ_20190501_0_L2A/B04.tif`.
    """
    if found := _COG_ID.search(path):
        zone, band, square, day = found.groups()
        return f"mgrs:{int(zone):02d}{band}{square}", parse_time(day, "%Y%m%d"), found[0]
    found = _BUCKET.search(path)
    if found is None:
        return None
    zone, band, square, year, month, day, sequence = found.groups()
    tile = f"{int(zone):02d}{band}{square}"
    acquired_at = parse_time(f"{year}-{month}-{day}", "%Y-%m-%d")
    return f"mgrs:{tile}", acquired_at, f"T{tile}_{year}{int(month):02d}{int(day):02d}_{sequence}"


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
