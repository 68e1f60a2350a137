"""Landsat's metadata file in its three forms: `…_MTL.txt`, `…_MTL.json` and `…_MTL.xml`.

USGS, "Landsat Collection 2 Data Format Control Books" of Level-1 and Level-2: named groups of `NAME = value`, the same
names in all three forms. Collection 1 has other groups with the same names in them.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from cloudseg.bands import Radiometry
from cloudseg.errors import BadScene
from cloudseg.ingest.products.product import parse_time

MTL_SUFFIXES: Final = ("txt", "json", "xml")
_MAX_DEPTH: Final = 8
"""Nested groups that are read; the real files have two levels."""
_MIN_SUN: Final = 0.01
"""Sine of the lowest elevation of the sun that is accepted."""
_SPACECRAFT: Final = re.compile(r"LANDSAT[_ -]?(\d)", re.I | re.A)


@dataclass(frozen=True)
class Mtl:
    """The values of a metadata file, by group."""

    name: str
    """File name, for messages."""
    groups: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    """Name of the innermost group and its values, in file order."""

    def find(self, key: str, level: int) -> str | None:
        """Return a value of a product of this level, or None.

        A Level-2 file repeats names of the Level-1 product that it was made from, in groups `LEVEL1_…`.
        """
        other = f"LEVEL{3 - level}_"
        values = (
            value for group, pairs in self.groups if not group.startswith(other) for name, value in pairs if name == key
        )
        return next(values, None)


def parse_mtl(text: str, name: str) -> Mtl:
    """Return the content of a metadata file.

    Args:
        text: The file's text.
        name: The file's name; its suffix says which of the three forms it has.

    Raises:
        BadScene: The file is damaged, or is XML with entities.
    """
    suffix, text = name.rpartition(".")[2].lower(), text.removeprefix("\ufeff")
    try:
        if suffix == "json":
            groups = tuple(_json_groups("", json.loads(text), 0))
        elif suffix == "xml":
            groups = tuple(_xml_groups(fromstring(text, forbid_dtd=True), 0))
        else:
            groups = _text_groups(text)
    except (ValueError, ParseError, DefusedXmlException, RecursionError) as error:
        raise _damaged(name, str(error) or type(error).__name__) from error
    if not any(pairs for _, pairs in groups):
        raise _damaged(name, "no values")
    return Mtl(name, groups)


def _damaged(name: str, found: str) -> BadScene:
    return BadScene(
        "the Landsat metadata file is damaged",
        subject=name,
        found=found[:200],
        expected="groups of NAME = value",
        next_step="Get the metadata file of the product again.",
    )


def _text_groups(text: str) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """Return the groups of the form `GROUP = name … NAME = value … END_GROUP = name`."""
    groups: list[tuple[str, list[tuple[str, str]]]] = []
    open_groups: list[str] = []
    for line in text.splitlines():
        name, equals, value = (part.strip() for part in line.partition("="))
        if name == "GROUP":
            open_groups.append(value)
        elif name == "END_GROUP":
            open_groups = open_groups[:-1]
        elif equals:
            group = open_groups[-1] if open_groups else ""
            if not groups or groups[-1][0] != group:
                groups.append((group, []))
            groups[-1][1].append((name, value.strip('"')))
    return tuple((group, tuple(pairs)) for group, pairs in groups)


def _json_groups(name: str, content: Any, depth: int) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """Yield the groups of nested objects.

    Raises:
        ValueError: The content is not an object.
    """
    if not isinstance(content, dict) or depth > _MAX_DEPTH:
        raise ValueError("not an object with groups")
    yield name, tuple((key, str(value)) for key, value in content.items() if isinstance(value, str | int | float))
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _json_groups(str(key), value, depth + 1)


def _xml_groups(element: Element, depth: int) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """Yield the groups of nested elements.

    Raises:
        ValueError: The elements are nested too deeply.
    """
    if depth > _MAX_DEPTH:
        raise ValueError("elements are nested too deeply")
    yield element.tag, tuple((child.tag, (child.text or "").strip()) for child in element if len(child) == 0)
    for child in element:
        if len(child) > 0:
            yield from _xml_groups(child, depth + 1)


def mtl_time(mtl: Mtl) -> datetime | None:
    """Return the acquisition time of the scene's center."""
    day, time = mtl.find("DATE_ACQUIRED", 1) or "", mtl.find("SCENE_CENTER_TIME", 1) or ""
    return parse_time(f"{day}T{time[:8]}", "%Y-%m-%dT%H:%M:%S")


def check_mtl(mtl: Mtl, satellite: str, day: date | None) -> None:
    """Check that a metadata file belongs to the scene beside it.

    Args:
        mtl: The metadata.
        satellite: Number of the satellite in the product id.
        day: Day of acquisition in the product id.

    Raises:
        BadScene: Satellite or day are others than in the product id.
    """
    spacecraft = _SPACECRAFT.search(mtl.find("SPACECRAFT_ID", 1) or "")
    if spacecraft and spacecraft[1] != satellite:
        raise _contradiction(mtl, f"Landsat {spacecraft[1]}", f"Landsat {satellite}")
    acquired = parse_time(mtl.find("DATE_ACQUIRED", 1) or "", "%Y-%m-%d")
    if acquired and day and acquired.date() != day:
        raise _contradiction(mtl, f"{acquired.date()}", f"{day}")


def _contradiction(mtl: Mtl, found: str, expected: str) -> BadScene:
    return BadScene(
        "the Landsat metadata file contradicts the product id",
        subject=mtl.name,
        found=found,
        expected=expected,
        next_step="Put the metadata file of this product beside its bands.",
    )


def mtl_radiometry(mtl: Mtl, number: str, level: int) -> Radiometry | None:
    """Return the scale of a band to reflectance: at the top of the atmosphere (Level-1) or at the surface (Level-2).

    USGS, "Using the USGS Landsat Level-1 Data Product": ρ = (REFLECTANCE_MULT * Q + REFLECTANCE_ADD) /
    sin(SUN_ELEVATION). Level-2 is not divided.

    Args:
        mtl: The metadata.
        number: The band's number as in the names of the values (`4` of `REFLECTANCE_MULT_BAND_4`).
        level: 1 or 2.

    Returns:
        The radiometry; None if a Level-2 product's file states no scale.

    Raises:
        BadScene: A value is missing or not plausible.
    """
    mult, add = (f"REFLECTANCE_{name}_BAND_{number}" for name in ("MULT", "ADD"))
    if level == 2 and mtl.find(mult, level) is None and mtl.find(add, level) is None:
        return None
    scale, offset = _number(mtl, mult, level), _number(mtl, add, level)
    if not (0 < scale < 1 and abs(offset) < 10):
        raise _unusable(mtl, mult, f"scale {scale:g}, offset {offset:g}")
    if level == 2:
        return Radiometry(scale, offset, 0, "Landsat MTL, surface reflectance")
    elevation = mtl.find("SUN_ELEVATION", level)
    sine = math.sin(math.radians(_number(mtl, "SUN_ELEVATION", level)))
    if not sine > _MIN_SUN:
        raise _unusable(mtl, "SUN_ELEVATION", elevation)
    source = f"Landsat MTL, divided by the sine of the sun's elevation {elevation}"
    return Radiometry(scale / sine, offset / sine, 0, source)


def _number(mtl: Mtl, key: str, level: int) -> float:
    """Return a value as a finite number.

    Raises:
        BadScene: It is missing or not a number.
    """
    text = mtl.find(key, level)
    try:
        number = float(text or "")
    except ValueError:
        raise _unusable(mtl, key, text) from None
    if not math.isfinite(number):
        raise _unusable(mtl, key, text)
    return number


def _unusable(mtl: Mtl, key: str, found: str | None) -> BadScene:
    return BadScene(
        f"the Landsat metadata file has no usable {key}",
        subject=mtl.name,
        found=(found or "no such value")[:200],
        expected="the complete metadata file of the product",
        next_step="Get the metadata file of the product again.",
    )
