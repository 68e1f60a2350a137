"""Sentinel-2 metadata files: `MTD_MSIL1C.xml`, `MTD_MSIL2A.xml`, `MTD_TL.xml`, `tileInfo.json`, `productInfo.json`.

`metadata.xml` of the AWS buckets is one of the first three; the content tells which. Files are untrusted.
"""

import json
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from cloudseg.bands import SENTINEL2_BANDS
from cloudseg.ingest.products.sentinel2 import parse_baseline, sentinel2_product
from cloudseg.ingest.products.xml_elements import XmlElement, read_elements

# ESA, Sentinel-2 Products Specification Document, "Metadata Level 0-1C (2A)": the elements of the product's file. The
# AWS buckets call the product's and the granule's file metadata.xml; copies of STAC assets call them by their keys.
_XML_NAME: Final = re.compile(
    r"(?:.*[_.-])?MTD_(?:MSIL1C|MSIL2A|TL)\.xml"
    r"|(?:product_|granule_|tile_)?metadata\.xml"
    r"|S2[A-D]_(?:OPER|USER)_MTD_(?:SAFL1C|SAFL2A|L1C_TL|L2A_TL)_.*\.xml",
    re.I | re.A,
)
_JSON_NAME: Final = re.compile(r"(?:tileInfo|productInfo|tileinfo_metadata)\.json", re.I | re.A)
_OFFSETS: Final = ("RADIO_ADD_OFFSET", "BOA_ADD_OFFSET")
_SCALES: Final = (
    "BOA_QUANTIFICATION_VALUE",
    "L2A_BOA_QUANTIFICATION_VALUE",
    "QUANTIFICATION_VALUE",
    "L1C_TOA_QUANTIFICATION_VALUE",
)
"""In this order: a Level-2A product states that of surface reflectance beside others."""
_TIMES: Final = ("DATATAKE_SENSING_START", "PRODUCT_START_TIME", "SENSING_TIME")
_IDS: Final = ("PRODUCT_URI", "PRODUCT_URI_1C", "PRODUCT_URI_2A", "TILE_ID", "TILE_ID_2A")
_WANTED: Final = frozenset((*_OFFSETS, *_SCALES, *_TIMES, *_IDS, "PROCESSING_BASELINE", "Spectral_Information"))
_BAND_IDS: Final = dict(enumerate(SENTINEL2_BANDS.values()))
"""`band_id` of the offsets: B01 is 0, B8A is 8, B12 is 12."""
_BASELINE_IN_ID: Final = re.compile(r"_N(\d{2}\.\d{2})(?!\d)", re.A)


@dataclass(frozen=True)
class Sentinel2Metadata:
    """What one metadata file states."""

    file: str
    """Its name, for messages."""
    is_product: bool
    """Whether it is the product's own file, which is the place of the offsets."""
    level: str | None = None
    """`l1c` or `l2a`."""
    baseline: int | None = None
    """05.09 is 509."""
    quantification: float | None = None
    """Digital numbers per unit of reflectance."""
    offsets: dict[str, float] = field(default_factory=dict)
    """Digital numbers to add, by band name; empty where the file lists none."""
    acquired_at: datetime | None = None
    place: str | None = None


def is_sentinel2_metadata(name: str) -> bool:
    """Return whether a file of this name is metadata of a Sentinel-2 product."""
    return bool(_XML_NAME.fullmatch(name) or _JSON_NAME.fullmatch(name))


def parse_sentinel2_metadata(name: str, content: bytes) -> Sentinel2Metadata | None:
    """Return what a metadata file states; None if a `metadata.xml` belongs to something else.

    Args:
        name: The file's name.
        content: Its bytes.

    Raises:
        ValueError: The file is damaged, or its values are not plausible.
    """
    if name.lower().endswith(".json"):
        return _parse_json(name, content)
    root, elements = read_elements(content, _WANTED)
    if "User_Product" in root:
        return _parse_product(name, root, elements)
    if "Tile_ID" in root:
        return _parse_tile(name, root, elements)
    if name.lower().endswith("metadata.xml"):
        return None
    raise ValueError(f"not the metadata of a Sentinel-2 product: the root element is {root[:60]}")


def _parse_product(name: str, root: str, elements: list[XmlElement]) -> Sentinel2Metadata:
    texts = _first_texts(elements)
    uri = texts.get("PRODUCT_URI_2A") or texts.get("PRODUCT_URI") or texts.get("PRODUCT_URI_1C") or ""
    product = sentinel2_product(uri)
    scale = next((_number(texts[tag]) for tag in _SCALES if tag in texts), None)
    if scale is not None and not 1 <= scale <= 1e6:
        raise ValueError(f"QUANTIFICATION_VALUE {scale:g} is not plausible")
    offsets = _offsets(elements)
    if any(abs(offset) > (scale or 1e4) for offset in offsets.values()):
        raise ValueError(f"the offset {max(offsets.values(), key=abs):g} is not plausible")
    if scale is None and not offsets and "PROCESSING_BASELINE" not in texts:
        raise ValueError("neither PROCESSING_BASELINE nor QUANTIFICATION_VALUE in it")
    return Sentinel2Metadata(
        file=name,
        is_product=True,
        level=_level(root),
        baseline=parse_baseline(texts.get("PROCESSING_BASELINE")),
        quantification=scale,
        offsets=offsets,
        acquired_at=(product.acquired_at if product else None) or _time(texts),
        place=product.place if product else None,
    )


def _offsets(elements: list[XmlElement]) -> dict[str, float]:
    """Return the offsets by band name. The file's own list of bands names the ids, where it has one."""
    names = dict(_BAND_IDS)
    for element in elements:
        if element.tag == "Spectral_Information":
            code = element.attributes.get("physicalBand", "").upper().removeprefix("B")
            if band := SENTINEL2_BANDS.get(f"B{code.zfill(2)}"):
                names[int(_number(element.attributes.get("bandId", "")))] = band
    found: dict[str, float] = {}
    for element in elements:
        if element.tag in _OFFSETS:
            band_id = int(_number(element.attributes.get("band_id", "")))
            if band_id not in names:
                raise ValueError(f"{element.tag} of an unknown band: {band_id}")
            found[names[band_id]] = _number(element.text)
    return found


def _parse_tile(name: str, root: str, elements: list[XmlElement]) -> Sentinel2Metadata:
    texts = _first_texts(elements)
    tile_id = texts.get("TILE_ID") or texts.get("TILE_ID_2A") or ""
    product = sentinel2_product(tile_id)
    baseline = _BASELINE_IN_ID.search(tile_id)
    return Sentinel2Metadata(
        file=name,
        is_product=False,
        level=_level(root),
        baseline=parse_baseline(baseline[1]) if baseline else None,
        acquired_at=_time(texts),
        place=product.place if product else None,
    )


def _parse_json(name: str, content: bytes) -> Sentinel2Metadata:
    """Parse the files of the AWS buckets, https://roda.sentinel-hub.com/sentinel-s2-l1c/readme.html."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    product_name = _text(values.get("productName")) or _text(values.get("name"))
    product = sentinel2_product(product_name)
    strip = values.get("datastrip")
    ids = [_text(strip.get("id")) if isinstance(strip, dict) else "", _text(values.get("datatakeIdentifier"))]
    found = next((match for text in ids if (match := _BASELINE_IN_ID.search(text))), None)
    in_name = re.search(r"_N(\d{4})_", product_name, re.A)
    zone, band, square = (_text(values.get(key)) for key in ("utmZone", "latitudeBand", "gridSquare"))
    tile = f"{zone.zfill(2)}{band}{square}"
    return Sentinel2Metadata(
        file=name,
        is_product=False,
        level=product.sensor.rpartition("-")[2] if product else None,
        baseline=parse_baseline((in_name or found or [None, None])[1]),
        acquired_at=parse_iso_time(_text(values.get("timestamp"))),
        place=f"mgrs:{tile}" if re.fullmatch(r"\d{2}[C-X][A-Z]{2}", tile, re.A) else product.place if product else None,
    )


def parse_iso_time(text: str) -> datetime | None:
    """Return a time of ISO 8601 in UTC, or None."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _time(texts: dict[str, str]) -> datetime | None:
    return next((moment for tag in _TIMES if (moment := parse_iso_time(texts.get(tag, "")))), None)


def _first_texts(elements: list[XmlElement]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for element in elements:
        texts.setdefault(element.tag, element.text)
    return texts


def _level(root: str) -> str | None:
    found = re.search(r"Level-(1C|2A)", root, re.A)
    return f"l{found[1].lower()}" if found else None


def _text(value: Any) -> str:
    """Return a JSON value as text, at most 200 characters; '' for anything but text and integers."""
    return str(value)[:200] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"not a number: {text[:40]!r}")
    return value
