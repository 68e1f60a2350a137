"""What product ids say: sensor, time, place and scale. Pure parsing of names and of Landsat's MTL text."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cloudseg.bands import (
    LANDSAT8_BANDS,
    LANDSAT_L1,
    LANDSAT_L2,
    SENTINEL2,
    SENTINEL2_BANDS,
    SENTINEL2_OFFSET,
    Radiometry,
)

# ESA, Sentinel-2 Products Specification Document, "Naming convention":
# MMM_MSIXXX_YYYYMMDDHHMMSS_Nxxyy_ROOO_Txxxxx_<discriminator>
_SENTINEL2 = re.compile(
    r"S2[A-D]_MSI(L1C|L2A)_(\d{8}T\d{6})_N(\d{4})_R\d{3}_T(\d{2}[C-X][A-Z]{2})(?![A-Z0-9])", re.I | re.A
)
# The names of the band files inside a product: T31UDQ_20240501T105031_B02.jp2, in Level-2A with _10m behind the band.
_SENTINEL2_BAND = re.compile(
    r"(?P<group>.*?)(?:(?<=[_.-])|^)(?P<band>B(?:0[1-9]|8A|1[0-2]))(?:_(?P<resolution>[126]0m))?\.(?:jp2|tiff?)$",
    re.I | re.A,
)
_SENTINEL2_TILE = re.compile(r"^T(\d{2}[C-X][A-Z]{2})_(\d{8}T\d{6})(?:_|$)", re.I | re.A)
# USGS, Landsat Collection 1 and 2 Level-1 product ids, and the scene ids from before the collections.
_LANDSAT = re.compile(
    r"L([CO])0([89])_(L1TP|L1GT|L1GS|L2SP|L2SR)_(\d{6})_(\d{8})_\d{8}_(\d{2})_(T1|T2|RT)", re.I | re.A
)
_LANDSAT_OLD = re.compile(r"L([CO])([89])(\d{6})(\d{4})(\d{3})[A-Z]{3}\d{2}", re.I | re.A)
_LANDSAT_BAND = re.compile(r"(?P<group>.+?)_(?:SR_)?(?P<band>B\d{1,2})(?P<kind>_toa|_sr)?\.tiff?$", re.I | re.A)
_OFFSET_SINCE: Final = 400
"""Processing baseline 04.00, since 2022-01-25: BOA_ADD_OFFSET and RADIO_ADD_OFFSET of -1000."""


@dataclass(frozen=True)
class Product:
    """What a product id tells."""

    sensor: str
    acquired_at: datetime | None
    place: str | None
    radiometry: Radiometry | None


def sentinel2_product(text: str) -> Product | None:
    """Read a Sentinel-2 product id anywhere in a name, or None."""
    found = _SENTINEL2.search(text)
    if found is None:
        return None
    level, time, baseline, tile = found.groups()
    radiometry = SENTINEL2_OFFSET if int(baseline) >= _OFFSET_SINCE else SENTINEL2
    return Product(f"sentinel-2-{level.lower()}", _time(time, "%Y%m%dT%H%M%S"), f"mgrs:{tile.upper()}", radiometry)


def sentinel2_tile(text: str) -> tuple[str, datetime | None] | None:
    """Read place and time of a granule's band file (`T31UDQ_20240501T105031_B02.jp2`), or None."""
    found = _SENTINEL2_TILE.search(text)
    return (f"mgrs:{found[1].upper()}", _time(found[2], "%Y%m%dT%H%M%S")) if found else None


def landsat_product(text: str) -> Product | None:
    """Read a Landsat-8 or -9 product id or an old scene id anywhere in a name, or None. Time is a day."""
    if found := _LANDSAT.search(text):
        _, number, level, path_row, day, _, _ = found.groups()
        surface = level.upper().startswith("L2")
        radiometry = LANDSAT_L2 if surface else LANDSAT_L1
        return Product(f"landsat-{number}-l{2 if surface else 1}", _time(day, "%Y%m%d"), f"wrs2:{path_row}", radiometry)
    if found := _LANDSAT_OLD.search(text):
        _, number, path_row, year, day = found.groups()
        return Product(f"landsat-{number}-l1", _time(year + day, "%Y%j"), f"wrs2:{path_row}", LANDSAT_L1)
    return None


def sentinel2_band(name: str) -> tuple[str, str, int | None] | None:
    """Split a band file's name into group, band name and metres of a Level-2A suffix; None where it is no band file."""
    found = _SENTINEL2_BAND.fullmatch(name)
    if found is None:
        return None
    resolution = int(found["resolution"][:2]) if found["resolution"] else None
    return found["group"].rstrip("_.-"), SENTINEL2_BANDS[found["band"].upper()], resolution


def landsat_band(name: str) -> tuple[str, str, str] | None:
    """Split a band file's name into group, band name and kind ('', 'toa', 'sr').

    None where it is no Landsat band file.
    """
    found = _LANDSAT_BAND.fullmatch(name)
    if found is None or landsat_product(found["group"]) is None or found["band"].upper() not in LANDSAT8_BANDS:
        return None
    return found["group"], LANDSAT8_BANDS[found["band"].upper()], (found["kind"] or "").lstrip("_").lower()


def read_mtl(text: str) -> dict[str, str]:
    """Return the `NAME = value` lines of a Landsat MTL file; quotes removed, groups flattened."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip().strip('"') for name, value in pairs}


def mtl_time(mtl: dict[str, str]) -> datetime | None:
    """Return the time of the scene's centre."""
    day, time = mtl.get("DATE_ACQUIRED", ""), mtl.get("SCENE_CENTER_TIME", "")
    return _time(f"{day}T{time[:8]}", "%Y-%m-%dT%H:%M:%S")


def mtl_radiometry(mtl: dict[str, str], band: str) -> Radiometry | None:
    """Return top-of-atmosphere reflectance of a band from its MTL, corrected for the sun's elevation, or None.

    USGS, "Using the USGS Landsat Level-1 Data Product": ρ = (REFLECTANCE_MULT * Q + REFLECTANCE_ADD) /
    sin(SUN_ELEVATION).
    """
    number = next((code[1:] for code, name in LANDSAT8_BANDS.items() if name == band), "")
    try:
        scale, offset = (float(mtl[f"REFLECTANCE_{word}_BAND_{number}"]) for word in ("MULT", "ADD"))
        height = math.sin(math.radians(float(mtl["SUN_ELEVATION"])))
    except (KeyError, ValueError):
        return None
    if not (height > 0.01 and 0 < scale < 1 and abs(offset) < 10):
        return None
    return Radiometry(
        scale / height,
        offset / height,
        0,
        f"Landsat MTL, divided by the sine of the sun's elevation {mtl['SUN_ELEVATION']}",
    )


def _time(text: str, pattern: str) -> datetime | None:
    try:
        return datetime.strptime(text, pattern).replace(tzinfo=UTC)
    except ValueError:
        return None
