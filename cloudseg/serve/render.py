"""Pictures of stored rasters: tiles in Web Mercator, mosaics of them, values at a point. rio-tiler reads and warps.

GDAL opens what `Store.gdal_path` names, never an address of this server: a process that reads its own HTTP answers
through GDAL waits for itself.
"""

import functools
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import morecantile
import numpy as np
import rasterio
from PIL import Image
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT
from rio_tiler.colormap import cmap
from rio_tiler.constants import WEB_MERCATOR_TMS
from rio_tiler.errors import NoOverviewWarning, PointOutsideBounds, TileOutsideBounds
from rio_tiler.io import Reader
from rio_tiler.models import ImageData
from rio_tiler.mosaic import mosaic_reader
from rio_tiler.mosaic.methods.defaults import FirstMethod

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, REFLECTANCE_SCALE, TRUE_COLOR
from cloudseg.errors import NotInCatalog, ObjectCorrupt, ObjectMissing
from cloudseg.raster.probability import STEPS
from cloudseg.raster.read import decoded, open_raster
from cloudseg.raster.style import COLORS
from cloudseg.raster.thumbnail import OUTLINE, color_indexes
from cloudseg.records import Scene
from cloudseg.storage import Store

Layer = Literal["mask", "probability", "image"]
Style = Literal["colors", "overlay"]
ImageFormat = Literal["png", "webp"]
MAX_ZOOM: Final = 22
"""A pixel of a tile of 256 at this zoom is 4 cm at the equator."""
VERSION: Final = 1
"""Part of every ETag: raised when the same object is drawn differently."""
_EQUATOR_M: Final = 40_075_016.685578488
"""Extent of Web Mercator (EPSG:3857)."""
_MOST_REDUCED: Final = 8
"""Pixels of the smallest overview along a side of one of the tile, that rio-tiler reduces: 2048 for a tile of 256."""
BRIGHTEST: Final = round(TRUE_COLOR.scale * 255 * REFLECTANCE_SCALE)
"""Digital number that is drawn white: reflectance 0.3558, as in Sentinel-2's own true-color image."""
_OVERLAY: Final = {MASK_CLEAR: (0, 0, 0, 0), MASK_CLOUD: (*OUTLINE, 150)}
"""For a mask over its scene: clear is transparent, cloud in a color that neither clouds nor land have."""


class RasterLost(ObjectMissing):
    """The store lacks a raster that the catalog names.

    Not 404: to map clients that says that nothing is there to draw, and they draw nothing without a word.
    """

    http_status = 500


@dataclass(frozen=True)
class Source:
    """A stored raster to draw."""

    key: str
    sha256: str
    layer: Layer


@dataclass(frozen=True)
class Tile:
    """Which square of Web Mercator, and how it is drawn."""

    z: int
    x: int
    y: int
    scale: int = 1
    """1: 256 pixels, 2: 512."""
    style: Style = "colors"
    format: ImageFormat = "png"

    @property
    def size(self) -> int:
        """Pixels of a side."""
        return 256 * self.scale

    def bounds(self) -> tuple[float, float, float, float]:
        """Return west, south, east, north in lon/lat.

        Raises:
            NotInCatalog: there is no such tile.
        """
        if not (0 <= self.z <= MAX_ZOOM and 0 <= self.x < 2**self.z and 0 <= self.y < 2**self.z):
            raise NotInCatalog("no such tile", subject=f"{self.z}/{self.x}/{self.y}", expected=f"zoom 0 to {MAX_ZOOM}")
        found = WEB_MERCATOR_TMS.bounds(morecantile.Tile(self.x, self.y, self.z))
        return max(found.left, -180.0), max(found.bottom, -90.0), min(found.right, 180.0), min(found.top, 90.0)


def draw_tile(store: Store, source: Source, tile: Tile) -> bytes:
    """Return the picture of a tile; pixels without data are transparent.

    Raises:
        NotInCatalog: the raster does not reach into the tile.
        StoreError: the raster cannot be read.
    """
    tile.bounds()
    try:
        return _encoded(_read_tile(source, store, tile), source.layer, tile)
    except TileOutsideBounds as error:
        raise NotInCatalog("the raster does not reach into this tile", subject=source.key) from error


def draw_mosaic(store: Store, sources: Sequence[Source], tile: Tile) -> bytes:
    """Return the picture of a tile from several rasters; the first one that has data at a pixel is seen there."""
    if not sources:
        return empty(tile)
    image, used = mosaic_reader(
        list(sources),
        _read_tile,
        store,
        tile,
        threads=0,
        pixel_selection=FirstMethod,
        allowed_exceptions=(TileOutsideBounds,),
    )
    return _encoded(image, sources[0].layer, tile) if used else empty(tile)


@functools.lru_cache(8)
def _empty(size: int, name: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", (size, size)).save(out, format=name)
    return out.getvalue()


def empty(tile: Tile) -> bytes:
    """Return a transparent picture."""
    return _empty(tile.size, tile.format.upper())


def zooms_of(scene: Scene) -> tuple[int, int]:
    """Return the smallest and the largest zoom at which a scene has details of its own.

    From the ground size of a pixel, which in Web Mercator is that at the equator times the cosine of the latitude
    (OGC 17-083r4, annex D). Not from the bounds in Web Mercator: across the antimeridian they span the world.
    """
    middle = math.radians(((scene.min_lat or 0.0) + (scene.max_lat or 0.0)) / 2)
    meters = max(scene.resolution_m or 1.0, 1e-3)
    high = math.ceil(math.log2(_EQUATOR_M / 256 * max(math.cos(middle), 1e-3) / meters))
    high = max(0, min(high, MAX_ZOOM))
    return max(0, high - math.ceil(math.log2(max(scene.height, scene.width, 256) / 256))), high


def value_at(store: Store, source: Source, lon: float, lat: float) -> int | None:
    """Return the stored number of a raster at a point, None where it has no data or does not reach.

    Raises:
        StoreError: the raster cannot be read.
    """
    with _open(store, source) as dataset, _quiet(), Reader(source.key, dataset=dataset) as reader:
        try:
            with decoded(dataset):
                point = reader.point(lon, lat)
        except (PointOutsideBounds, CPLE_BaseError):  # the second: beyond where the projection is defined
            return None
    value = point.array[0]
    return None if np.ma.is_masked(value) else int(value)


@contextmanager
def _open(store: Store, source: Source) -> Iterator[rasterio.DatasetReader]:
    """Open a raster.

    Raises:
        RasterLost: the store lacks it.
    """
    try:
        with open_raster(store.gdal_path(source.key)) as dataset:
            yield dataset
    except ObjectMissing as error:
        raise RasterLost("a raster of the catalog is lost", subject=source.key, next_step=error.next_step) from error


def _read_tile(source: Source, store: Store, tile: Tile) -> ImageData:
    image = source.layer == "image"
    with _open(store, source) as dataset, _quiet(), Reader(source.key, dataset=dataset) as reader:
        options: dict[str, Any] = {"indexes": color_indexes(dataset)} if image else {}
        if _pixels_in_one(dataset, tile) > _MOST_REDUCED * max([1, *dataset.overviews(1)]):
            return _read_reduced(dataset, reader, tile, options, bilinear=image)
        try:
            found: ImageData = reader.tile(
                tile.x,
                tile.y,
                tile.z,
                tilesize=tile.size,
                # Classes and steps of probability are never mixed: nearest is GDAL's resampling without invention.
                resampling_method="bilinear" if image else "nearest",
                reproject_method="bilinear" if image else "nearest",
                **options,
            )
            return found
        except RasterioIOError as error:
            raise ObjectCorrupt("the object's pixels cannot be read", subject=source.key) from error


def _pixels_in_one(dataset: rasterio.DatasetReader, tile: Tile) -> float:
    """Return how many pixels of a raster lie along a side of one of a tile, at the equator."""
    meters = dataset.crs.linear_units_factor[1] if dataset.crs.is_projected else _EQUATOR_M / 360
    return float(_EQUATOR_M / (tile.size * 2**tile.z) / (max(dataset.res) * meters))


def _read_reduced(
    dataset: rasterio.DatasetReader, reader: Reader, tile: Tile, options: dict[str, Any], *, bilinear: bool
) -> ImageData:
    """Read a tile of a raster that is small in it, by warping its smallest overview to the tile's own pixels.

    rio-tiler warps the whole tile in pixels of the raster's size and then reduces that: the world at 20 m is four
    million million pixels, which no time limit stops.
    """
    if not reader.tile_exists(tile.x, tile.y, tile.z):
        raise TileOutsideBounds(f"{tile.z}/{tile.x}/{tile.y}")
    levels = len(dataset.overviews(1))
    bounds = WEB_MERCATOR_TMS.xy_bounds(morecantile.Tile(tile.x, tile.y, tile.z))
    with ExitStack() as stack, decoded(dataset):
        level = {"overview_level": levels - 1} if levels else {}
        small = stack.enter_context(rasterio.open(dataset.name, driver="GTiff", **level))
        warped = WarpedVRT(
            small,
            crs="EPSG:3857",
            transform=from_bounds(*bounds, tile.size, tile.size),
            width=tile.size,
            height=tile.size,
            resampling=Resampling.bilinear if bilinear else Resampling.nearest,
        )
        same = stack.enter_context(Reader(dataset.name, dataset=stack.enter_context(warped)))
        found: ImageData = same.tile(tile.x, tile.y, tile.z, tilesize=tile.size, **options)
    return found


def _encoded(image: ImageData, layer: Layer, tile: Tile) -> bytes:
    if layer == "image":
        image.rescale(in_range=((1, BRIGHTEST),) * 3)
        colors = None
    else:
        colors = _colors(layer, tile.style)
    driver = {"png": "PNG", "webp": "WEBP"}[tile.format]
    options = {"lossless": True} if driver == "WEBP" and layer != "image" else {}
    return bytes(image.render(img_format=driver, colormap=colors, add_mask=True, **options))


@functools.lru_cache
def _colors(layer: Layer, style: Style) -> dict[int, tuple[int, int, int, int]]:
    if layer == "probability":
        scheme: Any = cmap.get("viridis")
        colors: dict[int, tuple[int, int, int, int]] = dict(scheme)
        return {step: colors[min(255, round(step * 255 / STEPS))] for step in range(256)}
    if style == "overlay":
        return dict(_OVERLAY)
    return {value: (*COLORS[value], 255) for value in (MASK_CLEAR, MASK_CLOUD)}


def _quiet() -> warnings.catch_warnings:
    context = warnings.catch_warnings()
    warnings.simplefilter("ignore", NoOverviewWarning)
    return context
