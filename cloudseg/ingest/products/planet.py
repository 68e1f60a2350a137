"""PlanetScope and RapidEye: the names of their files, and the coefficients of radiance products.

Planet, "Imagery Product Specification": `20230801_105621_12_2456_3B_AnalyticMS_SR_8b.tif`,
`2459608_2012-06-04_RE3_3A_Analytic.tif`.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from cloudseg.bands import PLANET_SR, PLANETSCOPE_4_BANDS, PLANETSCOPE_8_BANDS, RAPIDEYE_BANDS, Radiometry
from cloudseg.errors import BadScene
from cloudseg.ingest.products.product import Product, parse_time

_PLANETSCOPE: Final = r"(?P<ps_time>\d{8}_\d{6})(?:_\d{2})?_(?:[0-9a-f]{4})"
_ORTHO_TILE: Final = r"\d{6,8}_\d{7}_(?P<tile_day>\d{4}-\d{2}-\d{2})_[0-9a-f]{4}"
_RAPIDEYE: Final = r"\d{7}_(?P<re_day>\d{4}-\d{2}-\d{2})_RE[1-5]"
_RAPIDEYE_ID: Final = r"(?P<re_time>\d{8}_\d{6})_\d{7}_RapidEye-[1-5]"
_FILE: Final = re.compile(
    rf"(?P<scene>(?:{_RAPIDEYE_ID}|{_RAPIDEYE}|{_ORTHO_TILE}|{_PLANETSCOPE}))"
    r"_(?:(?:1B|3A|3B|BGRN|BGREN|RGB)_)*(?P<rest>(?:Analytic|SR|Visual|Basic|udm|DN|metadata|pan|QA)[\w.() -]*)",
    re.I | re.A,
)
_MAX_DEPTH: Final = 16
"""Nested objects of a metadata file that are read."""
_TIMES: Final = (
    ("ps_time", "%Y%m%d_%H%M%S"),
    ("re_time", "%Y%m%d_%H%M%S"),
    ("tile_day", "%Y-%m-%d"),
    ("re_day", "%Y-%m-%d"),
)


@dataclass(frozen=True)
class PlanetFile:
    """What the name of a file says."""

    scene: str
    """The part that all files of one acquisition have in common."""
    product: Product
    rest: str
    """What follows the scene and the level, in lower case without suffix: `analyticms_sr_8b_clip`, `udm2`."""

    @property
    def is_analytic(self) -> bool:
        """Whether the file, if it is a raster, has radiance or reflectance."""
        return self.rest.startswith(("analytic", "sr", "basic_analytic")) and "udm" not in self.rest

    @property
    def is_surface_reflectance(self) -> bool:
        """Whether the file has surface reflectance."""
        return self.is_analytic and "sr" in self.rest.split("_")

    @property
    def is_udm2(self) -> bool:
        """Whether the file is a usable data mask of version 2."""
        return "udm2" in self.rest

    @property
    def is_metadata(self) -> bool:
        """Whether the file, if it is JSON or XML, has the metadata of the scene."""
        return "metadata" in self.rest

    @property
    def band_orders(self) -> tuple[tuple[str, ...], ...]:
        """Names of the bands in file order, by the number of bands that the name says, then by other numbers."""
        if self.product.sensor.startswith("rapideye"):
            return (RAPIDEYE_BANDS,)
        orders = (PLANETSCOPE_4_BANDS, PLANETSCOPE_8_BANDS)
        return orders[::-1] if "8b" in self.rest.split("_") else orders


def planet_file(stem: str) -> PlanetFile | None:
    """Return what the name of a PlanetScope or RapidEye file says, or None.

    Args:
        stem: The name without suffix.
    """
    found = _FILE.fullmatch(stem)
    if found is None:
        return None
    sensor = "rapideye" if found["re_time"] or found["re_day"] else "planetscope"
    acquired_at = next((parse_time(found[name], pattern) for name, pattern in _TIMES if found[name]), None)
    rest = found["rest"].lower()
    plain = PlanetFile(found["scene"], Product(sensor, acquired_at, None, None), rest)
    if not plain.is_surface_reflectance:
        return plain
    return PlanetFile(plain.scene, Product(f"{sensor}-sr", acquired_at, None, PLANET_SR), rest)


def planet_product(text: str) -> Product | None:
    """Return the content of the name of a Planet file, or None."""
    found = planet_file(text)
    return found.product if found else None


def reflectance_coefficients(text: str, name: str) -> dict[int, float]:
    """Return the coefficients that turn the radiance of a product into reflectance, by band number from 1.

    Planet, "Imagery Product Specification", `reflectanceCoefficient`: reflectance at the top of the atmosphere =
    digital number * coefficient, with the elevation of the sun already in it.

    Args:
        text: Text of a metadata file; XML of the product or JSON.
        name: Its name; the suffix says which of the two it is.

    Raises:
        BadScene: The file is damaged, is XML with entities, or a coefficient is not plausible.
    """
    try:
        content = _json_values(json.loads(text), 0) if name.lower().endswith(".json") else _xml_values(text)
        found = {int(band): float(value) for band, value in content}
    except (ValueError, TypeError, ParseError, DefusedXmlException, RecursionError) as error:
        raise BadScene(
            "the Planet metadata file is damaged",
            subject=name,
            found=str(error)[:200] or type(error).__name__,
            next_step="Get the metadata file of the product again.",
        ) from error
    if wrong := {band: value for band, value in found.items() if not (math.isfinite(value) and 0 < value < 1)}:
        raise BadScene(
            "the Planet metadata file has a reflectance coefficient that is not plausible",
            subject=name,
            found=", ".join(f"band {band}: {value:g}" for band, value in wrong.items())[:200],
            expected="numbers between 0 and 1, usually near 2e-5",
            next_step="Get the metadata file of the product again.",
        )
    return found


def _xml_values(text: str) -> Iterator[tuple[Any, Any]]:
    """Yield band number and coefficient of each `bandSpecificMetadata` element, whatever its namespace."""
    for element in fromstring(text.removeprefix("\ufeff"), forbid_dtd=True).iter():
        values = {child.tag.rpartition("}")[2]: child.text for child in element}
        if "reflectanceCoefficient" in values:
            yield values.get("bandNumber"), values["reflectanceCoefficient"]


def _json_values(content: Any, depth: int) -> Iterator[tuple[Any, Any]]:
    """Yield band number and coefficient of each object with both, or of a list of coefficients in band order."""
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(content, dict):
        keys = {str(key).lower().replace("_", ""): value for key, value in content.items()}
        if "reflectancecoefficient" in keys:
            yield keys.get("bandnumber"), keys["reflectancecoefficient"]
        several = keys.get("reflectancecoefficients")
        yield from enumerate(several, 1) if isinstance(several, list) else several.items() if several else ()
    for value in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from _json_values(value, depth + 1)


def coefficient_radiometry(coefficients: dict[int, float], order: Sequence[str | None]) -> dict[str, Radiometry]:
    """Return the radiometry by band name.

    Args:
        coefficients: `reflectance_coefficients`.
        order: Names of the bands in file order, None for one that is not wanted.
    """
    source = "Planet metadata: reflectanceCoefficient of each band"
    return {name: Radiometry(coefficients[number], 0.0, 0, source) for number, name in enumerate(order, 1) if name}
