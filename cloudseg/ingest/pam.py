"""Read the statements about bands in a `.aux.xml` file beside a raster (GDAL's "persistent auxiliary metadata", PAM).

Runs in the sandboxed decoder process. GDAL itself never opens the file: it could name other files. Only six elements of
a band are read, everything else is left alone: statistics, histograms, metadata, and the georeference, which is read
from the raster only.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from cloudseg.errors import BadScene

_MAX_BYTES: Final = 16 << 20
"""GDAL writes a histogram of 256 numbers for each band, a few kB."""
STATEMENTS: Final = ("nodatavalue", "scale", "offset", "description", "colorinterp")
"""Elements of `PAMRasterBand` that say how pixels are read, in lower case: GDAL compares names without case."""
_CATEGORIES: Final = "categorynames"
"""Names of the classes of a band, from 0; only labels have them."""


@dataclass(frozen=True)
class PamBand:
    """What the file says about a band; None for what it does not say."""

    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None
    description: str | None = None
    color: str | None = None
    """Color interpretation in lower case, as rasterio names it."""
    categories: tuple[str, ...] = ()
    """Names of the classes 0, 1, 2 …"""


def read_pam(path: Path, display_name: str, count: int) -> dict[int, PamBand]:
    """Return the statements by band index, from 1; empty if there is no such file.

    Where raster and sidecar both say something, GDAL lets the sidecar win (`GDALPamRasterBand`), so whoever looked at
    the raster saw that; the caller does the same.

    Args:
        path: The private copy.
        display_name: The file's name, for messages.
        count: Number of bands of the raster.

    Raises:
        BadScene: The file is too large, not such XML, or says something that is not a number.
    """
    if not path.exists():
        return {}
    root = _parse(path, display_name)
    bands: dict[int, PamBand] = {}
    for element in root:
        if element.tag.lower() != "pamrasterband":
            continue
        texts = {child.tag.lower(): (child.text or "").strip() for child in element}
        if any(name in texts for name in (*STATEMENTS, _CATEGORIES)):
            bands[_index(element, count, display_name)] = _band(texts, _categories(element), display_name)
    return bands


def _parse(path: Path, display_name: str) -> Element:
    """Return the root element. Document types are refused, and with them every entity."""
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise _unusable(display_name, f"{size} bytes", f"at most {_MAX_BYTES} bytes")
    try:
        root: Element = fromstring(path.read_bytes(), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise _unusable(display_name, f"{type(error).__name__}: {error}"[:200], "XML as GDAL writes it") from error
    if root.tag.lower() != "pamdataset":
        raise _unusable(display_name, f"the element {root.tag}"[:100], "the element PAMDataset")
    return root


def _index(element: Element, count: int, display_name: str) -> int:
    text = element.get("band", "")
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= count):
        raise _unusable(display_name, f"band {text}"[:100], f"bands 1 to {count}, as the raster has")
    return int(text)


def _categories(element: Element) -> tuple[str, ...]:
    names = next((child for child in element if child.tag.lower() == _CATEGORIES), ())
    return tuple((name.text or "").strip() for name in names)


def _band(texts: dict[str, str], categories: tuple[str, ...], display_name: str) -> PamBand:
    numbers = {name: _number(texts[name], display_name) for name in ("nodatavalue", "scale", "offset") if name in texts}
    return PamBand(
        nodata=numbers.get("nodatavalue"),
        scale=numbers.get("scale"),
        offset=numbers.get("offset"),
        description=texts.get("description"),
        color=texts["colorinterp"].lower() if "colorinterp" in texts else None,
        categories=categories,
    )


def _number(text: str, display_name: str) -> float:
    """Return a number; NaN in the spellings of C libraries too (`-1.#IND`, `1.#QNAN`), which GDAL's CPLAtof knows."""
    if "#" in text:
        return math.nan
    try:
        return float(text)
    except ValueError as error:
        raise _unusable(display_name, text[:100], "a number") from error


def _unusable(display_name: str, found: str, expected: str) -> BadScene:
    return BadScene(
        "the metadata beside the raster cannot be used",
        subject=display_name,
        found=found,
        expected=expected,
        next_step="Write it again with GDAL, or remove it if the raster is complete without it.",
    )
