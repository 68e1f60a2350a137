"""Landsat 4 to 9: product ids and the names of band files."""

import re
from collections.abc import Mapping
from typing import Final

from cloudseg.bands import LANDSAT8_BANDS, LANDSAT_L1, LANDSAT_L2, LANDSAT_TM_BANDS
from cloudseg.ingest.products.product import Product, parse_time

# USGS, Landsat Collection 1 and 2 product ids, the scene ids from before the collections, and Earth Engine's short ids.
# LC, LO: Landsat 8 and 9. LE: Landsat 7. LT: Landsat 4 and 5 (LT08 is thermal only).
_MISSION: Final = r"(?<![A-Z0-9])(?:L[CO]{zero}[89]|LE{zero}7|LT{zero}[45])"
_PRODUCT_ID: Final = re.compile(
    rf"({_MISSION.format(zero='0')})_(L1TP|L1GT|L1GS|L2SP|L2SR)_(\d{{6}})_(\d{{8}})_\d{{8}}_(\d{{2}})_(T1|T2|RT)",
    re.I | re.A,
)
_SCENE_ID: Final = re.compile(rf"({_MISSION.format(zero='')})(\d{{6}})(\d{{4}})(\d{{3}})[A-Z]{{3}}\d{{2}}", re.I | re.A)
_SHORT_ID: Final = re.compile(rf"({_MISSION.format(zero='0')})_(\d{{6}})_(\d{{8}})(?!\d)", re.I | re.A)
_BAND_FILE: Final = re.compile(r"(?P<group>.+?)_(?:S[RT]_)?(?P<band>B\d{1,2})(?P<kind>_toa|_sr)?\.tiff?$", re.I | re.A)


def landsat_product(text: str) -> Product | None:
    """Return the content of a Landsat 4 to 9 product id, older scene id or Earth Engine id in a name, or None.

    Time is a day. Level-1 of Landsat 4 to 7 has no radiometry: its scale differs from scene to scene.
    """
    if found := _PRODUCT_ID.search(text):
        mission, level, path_row, day, _, _ = found.groups()
        surface = level.upper().startswith("L2")
        level_1 = LANDSAT_L1 if mission[-1] in "89" else None
        sensor = f"landsat-{mission[-1]}-l{2 if surface else 1}"
        radiometry = LANDSAT_L2 if surface else level_1
        return Product(sensor, parse_time(day, "%Y%m%d"), f"wrs2:{path_row}", radiometry)
    if found := _SCENE_ID.search(text):
        mission, path_row, year, day = found.groups()
        radiometry = LANDSAT_L1 if mission[-1] in "89" else None
        return Product(f"landsat-{mission[-1]}-l1", parse_time(year + day, "%Y%j"), f"wrs2:{path_row}", radiometry)
    if found := _SHORT_ID.search(text):  # the id does not say whether the numbers are Level-1, reflectance or Level-2
        mission, path_row, day = found.groups()
        return Product(f"landsat-{mission[-1]}", parse_time(day, "%Y%m%d"), f"wrs2:{path_row}", None)
    return None


def landsat_product_id(text: str) -> str | None:
    """Return the product id of a collection, or the older scene id, in a name, or None."""
    found = _PRODUCT_ID.search(text) or _SCENE_ID.search(text)
    return found[0] if found else None


def landsat_bands(satellite: str) -> Mapping[str, str]:
    """Return the band names by code of a satellite.

    Args:
        satellite: `4` to `9`.
    """
    return LANDSAT8_BANDS if satellite in ("8", "9") else LANDSAT_TM_BANDS


def landsat_satellite(sensor: str) -> str:
    """Return the number of the satellite of `Product.sensor`."""
    return sensor.split("-")[1]


def landsat_band(name: str) -> tuple[str, str, str] | None:
    """Split the name of a band file.

    Returns:
        The part before the band, the band's code (`B4`), and '', 'toa' or 'sr'. None if it is not a Landsat band file.
    """
    found = _BAND_FILE.fullmatch(name)
    product = landsat_product(found["group"]) if found else None
    if found is None or product is None or product.sensor.count("-") < 2:
        return None  # Earth Engine's short id does not say which scale a band file has
    code = found["band"].upper()
    if code not in landsat_bands(landsat_satellite(product.sensor)):
        return None
    return found["group"], code, (found["kind"] or "").lstrip("_").lower()
