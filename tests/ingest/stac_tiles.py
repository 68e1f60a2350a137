"""Sentinel-2-like and Landsat-like STAC items with cloud-optimized files, as catalogs publish them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

SIDE = 512
BLOCK = 128
LEFT, TOP = 500_000, 5_600_000
BANDS = ("red", "green", "blue", "nir")


def write_cog(path: Path, pixels: np.ndarray, size: float = 10, epsg: int = 32631, **more: Any) -> None:
    """Write pixels `(row, col)` as a tiled GeoTIFF of many blocks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff",
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "nodata": 0,
        **more,
    }
    with rasterio.open(
        path,
        "w",
        height=pixels.shape[0],
        width=pixels.shape[1],
        count=1,
        dtype=pixels.dtype,
        crs=f"EPSG:{epsg}",
        transform=from_origin(LEFT, TOP, size, size),
        **profile,
    ) as out:
        out.write(pixels, 1)
        out.build_overviews([2, 4])


def dn(seed: int, low: int = 1200, side: int = SIDE) -> np.ndarray:
    """Return digital numbers of ground that differ from pixel to pixel, `(row, col)`."""
    return np.random.default_rng(seed).integers(low, low + 3000, (side, side)).astype("uint16")


def box_of(side: int = SIDE, size: float = 10, epsg: int = 32631) -> list[float]:
    """Return west, south, east, north of a whole tile."""
    edge = side * size
    return list(transform_bounds(f"EPSG:{epsg}", "EPSG:4326", LEFT, TOP - edge, LEFT + edge, TOP))


def box_of_pixels(row: int, col: int, height: int, width: int, size: float = 10) -> list[float]:
    """Return west, south, east, north of a part, a little smaller than it, so that no neighbor is met."""
    west, north = LEFT + col * size + 30, TOP - row * size - 30
    return list(
        transform_bounds("EPSG:32631", "EPSG:4326", west, north - height * size + 60, west + width * size - 60, north)
    )


def item(name: str, assets: dict[str, Any], *, collection: str, **properties: Any) -> dict[str, Any]:
    west, south, east, north = box_of()
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "links": [],
        "properties": {"datetime": "2024-06-01T10:56:21Z", "eo:cloud_cover": 12.5, **properties},
        "assets": assets,
    }


def sentinel2(
    folder: Path, url: str, name: str = "S2A_31UDQ_20240601_0_L2A", seed: int = 0, **properties: Any
) -> dict[str, Any]:
    """Write the files of an item like those of Earth Search and return the item; offset -0.1, SCL at 20 m."""
    assets: dict[str, Any] = {}
    for index, band in enumerate(BANDS):
        write_cog(folder / name / f"{band}.tif", dn(seed + index), predictor=2)
        assets[band] = {
            "href": f"{url}/{name}/{band}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data", "reflectance"],
            "eo:bands": [{"name": band, "common_name": band}],
            "raster:bands": [{"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": -0.1}],
        }
        # As in Earth Search: the same band once more, on S3, where it costs the reader.
        assets[f"{band}-jp2"] = assets[band] | {"href": f"s3://sentinel-s2-l2a/{name}/{band}.jp2", "type": "image/jp2"}
    scl = np.full((SIDE // 2, SIDE // 2), 4, "uint8")
    scl[:64, :16] = 0  # nothing was observed here
    write_cog(folder / name / "scl.tif", scl, size=20)
    assets["scl"] = {"href": f"{url}/{name}/scl.tif", "roles": ["data"]}
    assets["thumbnail"] = {"href": f"{url}/{name}/thumbnail.jpg", "roles": ["thumbnail"], "type": "image/jpeg"}
    stated = {
        "platform": "sentinel-2a",
        "constellation": "sentinel-2",
        "grid:code": "MGRS-31UDQ",
        "s2:processing_baseline": "05.10",
        "s2:product_type": "S2MSI2A",
        "earthsearch:boa_offset_applied": False,
    }
    return item(name, assets, collection="sentinel-2-l2a", **(stated | properties))


def landsat(folder: Path, url: str, name: str = "LC09_L2SP_199025_20240601_02_T1") -> dict[str, Any]:
    """Write the files of an item like those of the Planetary Computer and return the item."""
    assets: dict[str, Any] = {}
    for index, (band, code) in enumerate((("red", "B4"), ("green", "B3"), ("blue", "B2"), ("nir08", "B5"))):
        file = f"{name}_20240603_SR_{code}.TIF".replace("_20240603_SR", "_SR")
        write_cog(folder / name / file, dn(index, low=9000), size=30)
        assets[band] = {
            "href": f"{url}/{name}/{file}?sig=secret",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data"],
            "eo:bands": [{"name": f"OLI_{code}", "common_name": band}],
            "raster:bands": [{"scale": 2.75e-05, "offset": -0.2, "nodata": 0, "data_type": "uint16"}],
        }
    clear = np.full((SIDE, SIDE), 21824, "uint16")  # bit 6: clear
    clear[:10, :10] = 1  # bit 0: fill
    write_cog(folder / name / "qa_pixel.tif", clear, size=30, nodata=1)
    assets["qa_pixel"] = {"href": f"{url}/{name}/qa_pixel.tif", "roles": ["cloud"]}
    return item(name, assets, collection="landsat-c2-l2", platform="landsat-9", **{"proj:epsg": 32631})


def static_catalog(folder: Path, items: list[dict[str, Any]]) -> Path:
    """Write a static catalog: root, a collection, and the items, with relative links."""
    links = []
    for each in items:
        path = folder / "collection" / each["id"] / f"{each['id']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(each))
        links.append({"rel": "item", "href": f"./{each['id']}/{each['id']}.json"})
    links.append({"rel": "root", "href": "../catalog.json"})
    links.append({"rel": "child", "href": "../catalog.json"})  # a circle
    collection = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": items[0]["collection"] if items else "empty",
        "description": "x",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [box_of(1024)]},
            "temporal": {"interval": [["2024-01-01T00:00:00Z", None]]},
        },
        "links": links,
    }
    (folder / "collection").mkdir(parents=True, exist_ok=True)
    (folder / "collection" / "collection.json").write_text(json.dumps(collection))
    root = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "root",
        "description": "x",
        "links": [{"rel": "child", "href": "./collection/collection.json"}],
    }
    (folder / "catalog.json").write_text(json.dumps(root))
    return folder / "catalog.json"
