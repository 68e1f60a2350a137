"""Sentinel-2 files of a known reflectance, and their metadata, made by the tests that need them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.ingest.tiles import write

TRUTH = {"B02": 0.06, "B03": 0.081, "B04": 0.05, "B08": 0.303}
"""Reflectance of the ground by band; the cloud has 0.5."""
NAMES = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir"}
_SIDE = 64
_CLOUD = 24


def dn(reflectance: float, offset: int = 0, *, cloud: bool = True, seed: int = 0) -> np.ndarray:
    """Return the digital numbers of ground with a cloud over 14 % of it, `(1, row, col)`."""
    noise = np.random.default_rng(seed).integers(-8, 9, (1, _SIDE, _SIDE))
    pixels = np.full((1, _SIDE, _SIDE), round(reflectance * 10_000) + offset) + noise
    if cloud:
        pixels[:, :_CLOUD, :_CLOUD] = 5000 + offset + noise[:, :_CLOUD, :_CLOUD]
    return pixels.astype("uint16")


def write_bands(folder: Path, name: str, offset: int = 0, **more: Any) -> None:
    """Write B02, B03, B04 and B08. `name` holds `{}` for the band, as in `T31UDQ_20190501T105031_{}.tif`."""
    for index, (code, reflectance) in enumerate(TRUTH.items()):
        write(folder / name.format(code), dn(reflectance, offset, seed=index), names=None, **more)


def product_xml(
    level: str = "1C",
    baseline: str = "05.00",
    offsets: dict[int, int] | None = None,
    *,
    quantification: str = "10000",
    uri: str = "",
    start: str = "",
) -> str:
    """Return the metadata file of a product, as ESA's processors write it, shortened."""
    radio, scale = (
        ("RADIO_ADD_OFFSET", "QUANTIFICATION_VALUE")
        if level == "1C"
        else ("BOA_ADD_OFFSET", "BOA_QUANTIFICATION_VALUE")
    )
    listed = "".join(f'<{radio} band_id="{band}">{value}</{radio}>' for band, value in (offsets or {}).items())
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><n1:Level-{level}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int">'
        f"<n1:General_Info><Product_Info>"
        + (f"<PRODUCT_URI>{uri}</PRODUCT_URI>" if uri else "")
        + (f"<PRODUCT_START_TIME>{start}</PRODUCT_START_TIME>" if start else "")
        + f"<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></Product_Info><Product_Image_Characteristics>"
        f'<{scale} unit="none">{quantification}</{scale}><Offset_List>{listed}</Offset_List>'
        f"</Product_Image_Characteristics></n1:General_Info></n1:Level-{level}_User_Product>"
    )


def tile_xml(tile: str = "T31UDQ", baseline: str = "05.00", time: str = "2019-05-01T10:58:01.024Z") -> str:
    """Return the metadata file of a granule, shortened."""
    return (
        '<?xml version="1.0"?><n1:Level-1C_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int"><n1:General_Info>'
        f"<TILE_ID>S2A_OPER_MSI_L1C_TL_S2RP_20230701T120000_A020140_{tile}_N{baseline}</TILE_ID>"
        f"<SENSING_TIME>{time}</SENSING_TIME></n1:General_Info></n1:Level-1C_Tile_ID>"
    )


def stac_item(folder: Path, item_id: str, assets: dict[str, dict[str, Any]], **properties: Any) -> Path:
    """Write a STAC item and return its path."""
    content = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": item_id,
        "geometry": None,
        "links": [],
        "properties": {"datetime": "2023-08-01T10:56:21Z", **properties},
        "assets": assets,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{item_id}.json").write_text(json.dumps(content))
    return folder / f"{item_id}.json"


def stac_band(href: str, common: str, scale: float | None = 1e-4, offset: float | None = None) -> dict[str, Any]:
    """Return a STAC asset of one band."""
    numbers = {key: value for key, value in (("scale", scale), ("offset", offset)) if value is not None}
    return {
        "href": href,
        "roles": ["data"],
        "eo:bands": [{"name": common, "common_name": common}],
        "raster:bands": [numbers],
    }
