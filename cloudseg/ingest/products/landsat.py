"""Landsat 8 and 9: product ids, names of band files, and the MTL metadata file."""

import math
import re
from datetime import datetime
from typing import Final

from cloudseg.bands import LANDSAT8_BANDS, LANDSAT_L1, LANDSAT_L2, Radiometry
from cloudseg.ingest.products.product import Product, parse_time

# USGS, Landsat Collection 1 and 2 Level-1 product ids, and the scene ids from before the collections.
_PRODUCT_ID: Final = re.compile(
    r"L([CO])0([89])_(L1TP|L1GT|L1GS|L2SP|L2SR)_(\d{6})_(\d{8})_\d{8}_(\d{2})_(T1|T2|RT)", re.I | re.A
)
_SCENE_ID: Final = re.compile(r"L([CO])([89])(\d{6})(\d{4})(\d{3})[A-Z]{3}\d{2}", re.I | re.A)
_BAND_FILE: Final = re.compile(r"(?P<group>.+?)_(?:SR_)?(?P<band>B\d{1,2})(?P<kind>_toa|_sr)?\.tiff?$", re.I | re.A)
_MIN_SUN: Final = 0.01
"""Sine of the lowest elevation of the sun that is accepted."""


def landsat_product(text: str) -> Product | None:
    """Return the content of a Landsat 8 or 9 product id or older scene id in a name, or None. Time is a day."""
    if found := _PRODUCT_ID.search(text):
        _, number, level, path_row, day, _, _ = found.groups()
        surface = level.upper().startswith("L2")
        radiometry = LANDSAT_L2 if surface else LANDSAT_L1
        sensor = f"landsat-{number}-l{2 if surface else 1}"
        return Product(sensor, parse_time(day, "%Y%m%d"), f"wrs2:{path_row}", radiometry)
    if found := _SCENE_ID.search(text):
        _, number, path_row, year, day = found.groups()
        return Product(f"landsat-{number}-l1", parse_time(year + day, "%Y%j"), f"wrs2:{path_row}", LANDSAT_L1)
    return None


def landsat_band(name: str) -> tuple[str, str, str] | None:
    """Split the name of a band file.

    Returns:
        The part before the band, the band's name, and '', 'toa' or 'sr'. None if it is not a Landsat band file.
    """
    found = _BAND_FILE.fullmatch(name)
    if found is None or landsat_product(found["group"]) is None or found["band"].upper() not in LANDSAT8_BANDS:
        return None
    return found["group"], LANDSAT8_BANDS[found["band"].upper()], (found["kind"] or "").lstrip("_").lower()


def parse_mtl(text: str) -> dict[str, str]:
    """Return the `NAME = value` lines of an MTL file, without quotes and groups."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip().strip('"') for name, value in pairs}


def mtl_time(mtl: dict[str, str]) -> datetime | None:
    """Return the acquisition time of the scene's center."""
    day, time = mtl.get("DATE_ACQUIRED", ""), mtl.get("SCENE_CENTER_TIME", "")
    return parse_time(f"{day}T{time[:8]}", "%Y-%m-%dT%H:%M:%S")


def mtl_radiometry(mtl: dict[str, str], band: str) -> Radiometry | None:
    """Return the scale to top-of-atmosphere reflectance, corrected for the sun's elevation, or None.

    USGS, "Using the USGS Landsat Level-1 Data Product": ρ = (REFLECTANCE_MULT * Q + REFLECTANCE_ADD) /
    sin(SUN_ELEVATION).
    """
    number = next((code[1:] for code, name in LANDSAT8_BANDS.items() if name == band), "")
    try:
        scale, offset = (float(mtl[f"REFLECTANCE_{name}_BAND_{number}"]) for name in ("MULT", "ADD"))
        sine = math.sin(math.radians(float(mtl["SUN_ELEVATION"])))
    except (KeyError, ValueError):
        return None
    if not (sine > _MIN_SUN and 0 < scale < 1 and abs(offset) < 10):
        return None
    source = f"Landsat MTL, divided by the sine of the sun's elevation {mtl['SUN_ELEVATION']}"
    return Radiometry(scale / sine, offset / sine, 0, source)
