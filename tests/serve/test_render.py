"""Tiles and polygons of one raster: no resampling invents a class or a step of probability, the largest cloud first."""

import io
from pathlib import Path

import numpy as np
import web_mercator as grid
from PIL import Image
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from cloudseg.raster.cog import create_tiled, write_cog
from cloudseg.serve.features import _clouds
from cloudseg.serve.render import Layer, Source, Tile, _colors, draw_tile
from cloudseg.storage import LocalStore

CRS, WEST, NORTH, SIZE = "EPSG:32631", 450_000.0, 5_500_000.0, 512


def stored(folder: Path, values: np.ndarray) -> tuple[LocalStore, str]:
    """Return a store with a COG of bytes."""
    with create_tiled(
        folder / "tiled.tif",
        height=SIZE,
        width=SIZE,
        count=1,
        dtype="uint8",
        crs=CRS,
        transform=Affine(20, 0, WEST, 0, -20, NORTH),
        nodata=255,
        descriptions=["values"],
    ) as dataset:
        dataset.write(values, 1)
    write_cog(folder / "out.tif", folder / "tiled.tif", resampling="mode", tags={})
    store = LocalStore(folder / "store")
    key = "masks/w-1/sc-1/0123456789abcdef/values.tif"
    store.put(key, (folder / "out.tif").read_bytes())
    return store, key


def test_steps_of_probability_are_never_mixed(tmp_path: Path):
    """Stripes of two distant steps; a smooth resampling would draw the steps between them."""
    values = np.where(np.arange(SIZE) // 3 % 2, 250, 10).astype(np.uint8)[np.newaxis].repeat(SIZE, axis=0)
    store, key = stored(tmp_path, values)
    layer: Layer = "probability"
    allowed = {_colors(layer, "colors")[step] for step in (10, 250)}
    (lon,), (lat,) = transform_points(CRS, "EPSG:4326", [WEST + 5120], [NORTH - 5120])
    for zoom in (11, 12, 13, 15, 17):
        tile, _, _ = grid.pixel_of(lon, lat, zoom)
        z, x, y = map(int, tile.split("/"))
        picture = Image.open(io.BytesIO(draw_tile(store, Source(key, "a" * 64, layer), Tile(z, x, y)))).convert("RGBA")
        seen = {color for _, color in picture.getcolors(1 << 20) if color[3]}
        assert seen, zoom
        assert seen <= allowed, (zoom, len(seen))


def test_the_largest_cloud_comes_first_and_smaller_ones_can_be_left_out(tmp_path: Path):
    values = np.zeros((SIZE, SIZE), np.uint8)
    values[10:12, 10:12] = 1  # 4 pixels of 400 m2
    values[50:60, 50:60] = 1  # 100
    values[55, 55] = 0  # a hole, which no least area of clouds fills
    values[100:103, 100:103] = 1  # 9
    store, key = stored(tmp_path, values)
    for least, expected in ((0, [39_600, 3_600, 1_600]), (3_600, [39_600, 3_600]), (3_601, [39_600]), (1e12, [])):
        assert [cloud["properties"]["area_m2"] for cloud in _clouds(store, key, least)] == expected
