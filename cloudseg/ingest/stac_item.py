"""STAC items that lie beside the files that they describe: bands, scale, offset, time and place of each asset.

An item is found by its content (`stac_version`) and connected to files by the last part of each asset's `href`, in the
item's own folder, or by a relative `href`. Items are untrusted: every value is checked, nothing is fetched.
"""

import json
import math
import posixpath
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from cloudseg.bands import BAND_NAMES, NIR, SENTINEL2_BANDS
from cloudseg.ingest.inbox_file import InboxFile, escape_name
from cloudseg.ingest.products.sentinel2 import parse_baseline
from cloudseg.ingest.products.sentinel2_metadata import parse_iso_time

MAX_ITEM_BYTES: Final = 1 << 20
"""Size of an item; those of Sentinel-2 have about 40 kB."""
_MAX_ASSETS: Final = 500
_TILE: Final = re.compile(r"(?:MGRS-)?(\d{1,2})([C-X])([A-Z]{2})", re.A)
_SENSOR: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}", re.A)
_APPLIED: Final = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
"""Whether the digital numbers no longer contain the offset: Element84 earth-search, versions 1 and 0."""
_BASELINE: Final = ("s2:processing_baseline", "sentinel:processing_baseline", "sentinel2:processing_baseline")


@dataclass(frozen=True)
class StacBand:
    """One band of an asset."""

    name: str | None
    """A name of `bands.BAND_NAMES`; None if the item names none of them."""
    scale: float | None
    offset: float | None
    """Reflectance of digital number 0."""
    nodata: float | None


@dataclass(frozen=True)
class StacAsset:
    """One asset of an item."""

    key: str
    href: str
    roles: tuple[str, ...]
    bands: tuple[StacBand, ...]

    def band(self, name: str) -> StacBand | None:
        """Return the band of this name, else the only band of the asset."""
        named = next((band for band in self.bands if band.name == name), None)
        return named or (self.bands[0] if len(self.bands) == 1 else None)


@dataclass(frozen=True)
class StacItem:
    """What an item states."""

    file: InboxFile
    name: str
    sensor: str
    acquired_at: datetime | None
    place: str | None
    is_sentinel2: bool
    baseline: int | None
    """Processing baseline of Sentinel-2, 05.09 is 509."""
    offset_applied: bool | None
    """Whether the producer has already added the offset to the digital numbers; None: not stated."""
    product_name: str
    assets: tuple[StacAsset, ...]

    def paths(self) -> dict[str, StacAsset]:
        """Return the assets by the path in the inbox at which their file would be."""
        found: dict[str, StacAsset] = {}
        for asset in self.assets:
            if path := _path(self.file.folder, asset.href):
                found.setdefault(path, asset)
        return found


def parse_item(file: InboxFile, content: bytes) -> StacItem | None:
    """Return what a STAC item states; None if the file is other JSON.

    Raises:
        ValueError: The file is a STAC item but damaged.
    """
    if b'"stac_version"' not in content:
        return None
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a damaged STAC item: {error}") from error
    if not isinstance(values, dict) or values.get("type") != "Feature":
        return None  # a collection or a catalog
    properties, assets = values.get("properties"), values.get("assets")
    if not isinstance(properties, dict) or not isinstance(assets, dict) or len(assets) > _MAX_ASSETS:
        raise ValueError("a STAC item without properties or assets")
    platform = _word(properties.get("platform")) or _word(properties.get("constellation"))
    constellation = _word(properties.get("constellation")) or platform
    is_sentinel2 = constellation.startswith("sentinel-2") or platform.startswith("sentinel-2")
    return StacItem(
        file=file,
        name=escape_name(_text(values.get("id"))) or file.stem,
        sensor=_sensor(platform, is_sentinel2, properties, values),
        acquired_at=parse_iso_time(_text(properties.get("datetime")) or _text(properties.get("start_datetime"))),
        place=_place(properties),
        is_sentinel2=is_sentinel2,
        baseline=next((parse_baseline(_text(properties[key])) for key in _BASELINE if key in properties), None),
        offset_applied=next((properties[key] for key in _APPLIED if isinstance(properties.get(key), bool)), None),
        product_name=_text(properties.get("s2:product_uri")).removesuffix(".SAFE"),
        assets=tuple(
            _asset(str(key), asset, platform, is_sentinel2) for key, asset in assets.items() if isinstance(asset, dict)
        ),
    )


def _asset(key: str, values: dict[str, Any], platform: str, is_sentinel2: bool) -> StacAsset:
    roles = values.get("roles")
    return StacAsset(
        key=key,
        href=values["href"][:2_000] if isinstance(values.get("href"), str) else "",
        roles=tuple(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else (),
        bands=_bands(values, platform, is_sentinel2),
    )


def _bands(asset: dict[str, Any], platform: str, is_sentinel2: bool) -> tuple[StacBand, ...]:
    """Return the bands of an asset, from STAC 1.1 `bands` or from `eo:bands` and `raster:bands` of earlier versions."""
    named, scaled = _objects(asset.get("bands")), _objects(asset.get("bands"))
    if not named:
        named, scaled = _objects(asset.get("eo:bands")), _objects(asset.get("raster:bands"))
    count = max(len(named), len(scaled)) or ("raster:scale" in asset or "eo:common_name" in asset)
    found = []
    for index in range(count):
        name = named[index] if index < len(named) else {}
        scale = asset | (scaled[index] if index < len(scaled) else {})
        found.append(
            StacBand(
                _band_name(asset | name, platform, is_sentinel2),
                _finite(scale.get("scale", scale.get("raster:scale"))),
                _finite(scale.get("offset", scale.get("raster:offset"))),
                _finite(scale.get("nodata")),
            )
        )
    return tuple(found)


def _band_name(band: dict[str, Any], platform: str, is_sentinel2: bool) -> str | None:
    """Return the canonical name. STAC calls the near infrared of Landsat 8 and 9 nir08."""
    common = _text(band.get("common_name", band.get("eo:common_name"))).lower()
    if common == "nir08" and platform.startswith("landsat"):
        return NIR
    if common in BAND_NAMES:
        return common
    code = re.fullmatch(r"B(\d{1,2}|8A)", _text(band.get("name")).upper(), re.A)
    return SENTINEL2_BANDS.get(f"B{code[1].zfill(2)}") if code and is_sentinel2 else None


def _sensor(platform: str, is_sentinel2: bool, properties: dict[str, Any], item: dict[str, Any]) -> str:
    if not is_sentinel2:
        return platform or "unknown"
    texts = (*(_text(properties.get(key)) for key in ("s2:product_type", "s2:product_uri", "product:type")),)
    found = re.search(
        r"l?(1c|2a)(?![a-z0-9])", " ".join((*texts, _text(item.get("collection")))).lower().replace("_", " ")
    )
    return f"sentinel-2-l{found[1]}" if found else "sentinel-2"


def _place(properties: dict[str, Any]) -> str | None:
    parts = (_text(properties.get(f"mgrs:{key}")) for key in ("utm_zone", "latitude_band", "grid_square"))
    texts = [_text(properties.get("grid:code")), _text(properties.get("s2:mgrs_tile")), "".join(parts)]
    found = next((match for text in texts if (match := _TILE.fullmatch(text))), None)
    return f"mgrs:{int(found[1]):02d}{found[2]}{found[3]}" if found else None


def _path(folder: str, href: str) -> str | None:
    """Return the path of an asset in the inbox: relative to the item, or of the same name in the item's folder."""
    try:
        parts = urlsplit(href)
    except ValueError:
        return None
    path = unquote(parts.path)
    if parts.scheme or path.startswith("/"):
        path = posixpath.basename(path)
    joined = posixpath.normpath(posixpath.join(folder, path)) if path else ""
    return joined if joined and not joined.startswith("..") else None


def _objects(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)][:64] if isinstance(values, list) else []


def _word(value: Any) -> str:
    text = _text(value).lower().replace(" ", "-")
    return text if _SENSOR.fullmatch(text) else ""


def _text(value: Any) -> str:
    return str(value)[:200] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _finite(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return float(value) if is_number and math.isfinite(value) else None
    except OverflowError:
        return None
