"""Band names and the radiometry of the sensors: how a digital number becomes a reflectance.

A canonical scene holds top-of-atmosphere reflectance × 10 000 as uint16 with 0 for no data. Ingest converts the digital
numbers of every sensor to that by the table below; no other code depends on the scale of a sensor.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

RED, GREEN, BLUE, NIR = "red", "green", "blue", "nir"
RGB: Final = (RED, GREEN, BLUE)

REFLECTANCE_SCALE: Final = 10_000
"""Canonical digital numbers per unit of reflectance."""

NO_DATA: Final = 0
"""Canonical digital number of a pixel that was not observed. A valid pixel is at least 1."""

MASK_CLEAR: Final = 0
MASK_CLOUD: Final = 1
MASK_NO_DATA: Final = 255

_GROUND: Final = ((0.08, "dark, below 0.08"), (0.2, "medium, 0.08 to 0.20"))
"""Median reflectance of clear pixels in the visible: water and forest; fields and cities; above: sand, snow, salt."""


def ground_class(reflectance: float | None) -> str:
    """Return the class of a scene's ground by the median reflectance of its clear pixels; None: there are none."""
    if reflectance is None:
        return "no clear ground"
    return next((name for below, name in _GROUND if reflectance < below), "bright, above 0.20")


@dataclass(frozen=True)
class Radiometry:
    """`reflectance = digital_number * scale + offset`; `fill` marks pixels without data."""

    scale: float
    """Reflectance per digital number."""
    offset: float
    """Reflectance of digital number 0."""
    fill: float | None
    """Digital number of a pixel without data; None: there is none."""
    source: str
    """Source of scale and offset."""
    guessed: bool = False
    """Whether scale and offset follow from a name or a date, because no metadata states them."""


SENTINEL2: Final = Radiometry(
    1e-4, 0.0, 0, "ESA S2 Products Specification: QUANTIFICATION_VALUE 10000, baselines before 04.00"
)
SENTINEL2_OFFSET: Final = Radiometry(1e-4, -0.1, 0, "ESA S2 processing baseline 04.00: RADIO_ADD_OFFSET -1000")
TRUE_COLOR: Final = Radiometry(0.3558 / 255, 0.0, None, "Sentinel-2 L1C TCI: reflectance 0..0.3558 stretched to 8 bits")
TRUE_COLOR_CATALOGUE: Final = Radiometry(
    0.7 / 255,
    0.0,
    None,
    "Sentinel-2 Cloud Mask Catalogue (Zenodo 4172871) in 8 bits: reflectance 0..0.7, measured, docs/decisions/0017",
)
LANDSAT_L1: Final = Radiometry(
    2e-5, -0.1, 0, "USGS Landsat 8-9 Level-1 default scale, not corrected for the sun's elevation", guessed=True
)
LANDSAT_L2: Final = Radiometry(
    2.75e-5, -0.2, 0, "USGS Landsat Collection 2 Level-2 default scale of surface reflectance", guessed=True
)
HLS: Final = Radiometry(1e-4, 0.0, -9999, "NASA HLS v2.0 User Guide: scale factor 0.0001, fill value -9999")
PLANET_SR: Final = Radiometry(
    1e-4, 0.0, 0, "Planet surface reflectance: scaled by 10000 (Planet Imagery Product Specification)", guessed=True
)
REFLECTANCE: Final = Radiometry(1.0, 0.0, None, "floating-point reflectance")

SENTINEL2_BANDS: Final = {
    "B01": "coastal",
    "B02": BLUE,
    "B03": GREEN,
    "B04": RED,
    "B05": "rededge071",
    "B06": "rededge075",
    "B07": "rededge078",
    "B08": NIR,
    "B8A": "nir08",
    "B09": "nir09",
    "B10": "cirrus",
    "B11": "swir16",
    "B12": "swir22",
}
LANDSAT8_BANDS: Final = {
    "B1": "coastal",
    "B2": BLUE,
    "B3": GREEN,
    "B4": RED,
    "B5": NIR,
    "B6": "swir16",
    "B7": "swir22",
    "B8": "pan",
    "B9": "cirrus",
    "B10": "lwir11",
    "B11": "lwir12",
}
"""Operational Land Imager of Landsat 8 and 9; HLS L30 has the same codes with a zero (`B05`)."""
LANDSAT_TM_BANDS: Final = {
    "B1": BLUE,
    "B2": GREEN,
    "B3": RED,
    "B4": NIR,
    "B5": "swir16",
    "B6": "lwir",
    "B7": "swir22",
    "B8": "pan",
}
"""Thematic Mapper of Landsat 4 and 5, and ETM+ of Landsat 7, which alone has B8. USGS, "What are the band designations
for the Landsat satellites?"."""
PLANETSCOPE_4_BANDS: Final = (BLUE, GREEN, RED, NIR)
PLANETSCOPE_8_BANDS: Final = ("coastal", BLUE, "green05", GREEN, "yellow", RED, "rededge", NIR)
"""PlanetScope, 4 bands and SuperDove's 8, in file order; `green05` is Planet's Green I (513 to 549 nm). Planet Imagery
Product Specification, "PlanetScope Analytic"."""
RAPIDEYE_BANDS: Final = (BLUE, GREEN, RED, "rededge", NIR)
"""RapidEye in file order. Planet Imagery Product Specification, "RapidEye Analytic"."""
_ALL_BANDS: Final = (
    *RGB,
    NIR,
    *SENTINEL2_BANDS.values(),
    *LANDSAT8_BANDS.values(),
    *LANDSAT_TM_BANDS.values(),
    *PLANETSCOPE_8_BANDS,
)
BAND_NAMES: Final = tuple(dict.fromkeys(_ALL_BANDS))
"""Every band name that a scene may carry, as in the STAC `eo` extension's common names."""
FIRST_ACQUISITION: Final = datetime(1972, 7, 23, tzinfo=UTC)
"""Launch of Landsat 1 (landsat.gsfc.nasa.gov): no scene is older."""
