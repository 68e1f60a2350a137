"""Routes of tiles: by the id of a mask or a scene, and of the newest mask of each place.

The addresses are those that map clients know: XYZ with TileJSON 3.0 and WMTS 1.0.0. Every answer has an ETag that
follows from the checksum of the object, so a client that has a tile gets 304 before a raster is opened.
"""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Final
from urllib.parse import urlencode

import shapely
from fastapi import APIRouter, FastAPI, Query
from jinja2 import Environment, PackageLoader
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cloudseg.catalog import mask_query as mq
from cloudseg.catalog import mask_search as ms
from cloudseg.errors import InputError, NotInCatalog
from cloudseg.raster.probability import STEPS
from cloudseg.records import Json, StoredObject
from cloudseg.serve import render
from cloudseg.serve.cache import BRIEF, cache_headers, is_cached
from cloudseg.serve.context import AsOf, Context, ItemId, MaskId, base_of, with_key
from cloudseg.serve.render import ImageFormat, Layer, Source, Style, Tile
from cloudseg.serve.stac_api import interval_of, moment_of

MOSAIC_MIN_ZOOM: Final = 6
"""A tile of smaller zooms covers more places than one answer may read."""
MOSAIC_PLACES: Final = 48
"""Places of one tile, newest first; the rest is not drawn."""
_Scale = Annotated[int, Query(ge=1, le=2, description="2: tiles of 512 pixels")]
TEMPLATES: Final = Environment(loader=PackageLoader("cloudseg.serve"), autoescape=True)
_HALF_WORLD_M: Final = 20_037_508.342789244
"""Web Mercator's extent, EPSG:3857."""


def add_tiles(app: FastAPI, context: Context) -> None:
    """Add the routes to an application."""
    router = APIRouter(tags=["Tiles"])
    _add_items(router, context)
    _add_mosaics(router, context)
    _add_point(router, context)
    app.include_router(router)


def find_source(context: Context, item_id: str, layer: Layer, *, recent: bool = False) -> tuple[Source, mq.Found]:
    """Return the raster of a layer of a mask or a scene, and its rows.

    Args:
        context: catalog and store.
        item_id: id of the mask or scene.
        layer: which of its rasters.
        recent: rows that were read within a minute will do: a map asks for many tiles of one item.

    Raises:
        NotInCatalog: there is no such item, it is not published, or it has no such layer.
    """
    found = context.items.get(item_id, lambda: find_item(context, item_id)) if recent else find_item(context, item_id)
    if layer == "image":
        return Source(found.scene.key, found.scene.sha256, layer), found
    if found.mask is None:
        raise NotInCatalog("a scene has no such layer", subject=item_id, found=layer, expected="image")
    return _source(found, layer), found


def find_item(context: Context, item_id: str) -> mq.Found:
    """Return the rows of a published mask or scene.

    Raises:
        NotInCatalog: there is none.
    """
    kind: mq.Kind = "scenes" if item_id.startswith("sc-") else "masks"
    with context.catalog.read() as db:
        page = ms.search(db, mq.Query((kind,), ids=(item_id,), sort=()), limit=1)
    if not page.rows:
        raise NotInCatalog("no such item", subject=item_id)
    return page.rows[0]


def _source(found: mq.Found, layer: Layer) -> Source:
    assert found.mask is not None  # noqa: S101 - searched among masks
    if layer == "image":
        return Source(found.scene.key, found.scene.sha256, layer)
    if layer == "mask":
        return Source(found.mask.key, found.mask.sha256, layer)
    stored = StoredObject.model_validate(found.mask.companions["probability"])
    return Source(stored.key, stored.sha256, layer)


def _add_items(router: APIRouter, context: Context) -> None:
    @router.get("/tiles/{item_id}/{layer}/{z}/{x}/{y}.{image_format}")
    async def tile(
        request: Request,
        item_id: ItemId,
        layer: Layer,
        z: int,
        x: int,
        y: int,
        image_format: ImageFormat,
        style: Style = "colors",
        scale: _Scale = 1,
    ) -> Response:
        wanted = Tile(z, x, y, scale, style, image_format)
        wanted.bounds()
        source, _ = await context.workers.run(find_source, context, item_id, layer, recent=True)
        etag = _etag(wanted, [source])
        if is_cached(request, etag):
            return Response(status_code=304, headers=cache_headers(etag))
        picture = await context.workers.run(render.draw_tile, context.store, source, wanted)
        return Response(picture, media_type=f"image/{image_format}", headers=cache_headers(etag))

    @router.get("/tiles/{item_id}/{layer}/tilejson.json")
    async def tilejson(request: Request, item_id: ItemId, layer: Layer, style: Style = "colors") -> Json:
        _, found = await context.workers.run(find_source, context, item_id, layer)
        path = f"/tiles/{item_id}/{layer}"
        return _tilejson(
            request,
            path,
            f"{found.scene.name}: {layer}",
            _extent(found),
            render.zooms_of(found.scene),
            {"style": style},
        )

    @router.get("/tiles/{item_id}/{layer}/WMTSCapabilities.xml")
    async def wmts(request: Request, item_id: ItemId, layer: Layer, style: Style = "colors") -> Response:
        _, found = await context.workers.run(find_source, context, item_id, layer)
        _, high = render.zooms_of(found.scene)
        path, title = f"/tiles/{item_id}/{layer}", f"{found.scene.name}: {layer}"
        return _wmts(request, path, title, _extent(found), (0, high), {"style": style})


def _add_mosaics(router: APIRouter, context: Context) -> None:
    @router.get("/mosaic/{layer}/{z}/{x}/{y}.{image_format}")
    async def tile(
        request: Request,
        layer: Layer,
        z: int,
        x: int,
        y: int,
        image_format: ImageFormat,
        style: Style = "colors",
        scale: _Scale = 1,
        datetime: str | None = None,
        model_version: Annotated[int | None, Query(ge=1, le=10**9)] = None,
        as_of: AsOf = None,
    ) -> Response:
        wanted = Tile(z, x, y, scale, style, image_format)
        if z < MOSAIC_MIN_ZOOM:
            raise InputError("the tile covers too many places", subject=f"zoom {z}", expected=f">= {MOSAIC_MIN_ZOOM}")
        sources = await context.workers.run(_newest, context, wanted, layer, datetime, model_version, as_of)
        etag = _etag(wanted, sources)
        if is_cached(request, etag):
            return Response(status_code=304, headers=cache_headers(etag, brief=True))
        picture = await context.workers.run(render.draw_mosaic, context.store, sources, wanted)
        return Response(picture, media_type=f"image/{image_format}", headers=cache_headers(etag, brief=True))

    @router.get("/mosaic/{layer}/tilejson.json")
    async def tilejson(
        request: Request,
        layer: Layer,
        style: Style = "colors",
        datetime: str | None = None,
        model_version: Annotated[int | None, Query(ge=1, le=10**9)] = None,
        as_of: AsOf = None,
    ) -> Json:
        more = _mosaic_parameters(style, datetime, model_version, as_of)
        title = f"Newest {layer} of each place"
        return _tilejson(request, f"/mosaic/{layer}", title, (-180, -85, 180, 85), (MOSAIC_MIN_ZOOM, 18), more)

    @router.get("/mosaic/{layer}/WMTSCapabilities.xml")
    async def wmts(
        request: Request,
        layer: Layer,
        style: Style = "colors",
        datetime: str | None = None,
        model_version: Annotated[int | None, Query(ge=1, le=10**9)] = None,
        as_of: AsOf = None,
    ) -> Response:
        more = _mosaic_parameters(style, datetime, model_version, as_of)
        title = f"Newest {layer} of each place"
        return _wmts(request, f"/mosaic/{layer}", title, (-180, -85, 180, 85), (MOSAIC_MIN_ZOOM, 18), more)


def _add_point(router: APIRouter, context: Context) -> None:
    @router.get("/point/{mask_id}")
    async def point(
        mask_id: MaskId, lon: Annotated[float, Query(ge=-180, le=180)], lat: Annotated[float, Query(ge=-90, le=90)]
    ) -> Response:
        """Return class and probability of a mask at a point; null where nothing was observed."""
        found = await context.workers.run(find_item, context, mask_id)
        values = {
            layer: await context.workers.run(render.value_at, context.store, _source(found, layer), lon, lat)
            for layer in ("mask", "probability")
        }
        step = values["probability"]
        answer = {
            "mask_id": mask_id,
            "class": {0: "clear", 1: "cloud"}.get(values["mask"] if values["mask"] is not None else -1),
            "probability": None if step is None else step / STEPS,
            "threshold": found.mask.threshold if found.mask else None,
        }
        return JSONResponse(answer, headers={"Cache-Control": BRIEF})


def _mosaic_parameters(style: Style, datetime: str | None, version: int | None, as_of: str | None) -> dict[str, str]:
    interval_of(datetime)
    moment_of(as_of)
    more = {"style": str(style)}
    if datetime:
        more["datetime"] = datetime
    if version is not None:
        more["model_version"] = str(version)
    if as_of:
        more["as_of"] = as_of
    return more


def _newest(
    context: Context, tile: Tile, layer: Layer, datetime: str | None, version: int | None, as_of: str | None
) -> list[Source]:
    since, until = interval_of(datetime)
    area, moment = shapely.box(*tile.bounds()), moment_of(as_of)
    with context.catalog.read() as db:
        found = ms.newest_of_each_place(
            db, area, since=since, until=until, version=version, limit=MOSAIC_PLACES, as_of=moment
        )
    return [_source(row, layer) for row in found]


def _etag(tile: Tile, sources: Sequence[Source]) -> str:
    parts = [str(render.VERSION), str(tile), *(f"{source.layer} {source.sha256}" for source in sources)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _extent(found: mq.Found) -> tuple[float, float, float, float]:
    """Return west, south, east and north; west is greater than east across the antimeridian."""
    scene = found.scene
    assert scene.min_lon is not None  # noqa: S101 - only scenes with a place are found
    assert scene.max_lon is not None  # noqa: S101
    assert scene.min_lat is not None  # noqa: S101
    assert scene.max_lat is not None  # noqa: S101
    return scene.min_lon, scene.min_lat, scene.max_lon, scene.max_lat


def _bounds(extent: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Return bounds for TileJSON and WMTS, which have none across the antimeridian: all longitudes there."""
    west, south, east, north = extent
    return (west, south, east, north) if west <= east else (-180.0, south, 180.0, north)


def _center(extent: tuple[float, float, float, float]) -> tuple[float, float]:
    """Return the longitude and latitude in the middle, on either side of the antimeridian."""
    west, south, east, north = extent
    middle = (west + (east if west <= east else east + 360)) / 2
    return (middle + 180) % 360 - 180, (south + north) / 2


def _template(request: Request, path: str, ending: str, more: dict[str, str]) -> str:
    kept = {name: value for name, value in more.items() if (name, value) != ("style", "colors")}
    query = f"?{urlencode(kept)}" if kept else ""
    return with_key(request, f"{base_of(request)}{path}/{ending}.png{query}")


def _tilejson(
    request: Request,
    path: str,
    name: str,
    extent: tuple[float, float, float, float],
    zooms: tuple[int, int],
    more: dict[str, str],
) -> Json:
    return {
        "tilejson": "3.0.0",
        "name": name,
        "scheme": "xyz",
        "tiles": [_template(request, path, "{z}/{x}/{y}", more)],
        "minzoom": zooms[0],
        "maxzoom": zooms[1],
        "bounds": _bounds(extent),
        "center": (*_center(extent), zooms[0]),
    }


def _wmts(
    request: Request,
    path: str,
    title: str,
    extent: tuple[float, float, float, float],
    zooms: tuple[int, int],
    more: dict[str, str],
) -> Response:
    """Return WMTS 1.0.0 capabilities (OGC 07-057r7) of one layer in GoogleMapsCompatible."""
    levels = [
        # Scale of a pixel of 0.28 mm (07-057r7, 6.1).
        {"id": zoom, "scale": 2 * _HALF_WORLD_M / 256 / 2**zoom / 0.00028, "count": 2**zoom}
        for zoom in range(zooms[0], zooms[1] + 1)
    ]
    text = TEMPLATES.get_template("wmts.xml").render(
        title=title,
        layer=path.strip("/").replace("/", "_"),
        address=with_key(request, f"{base_of(request)}{path}/WMTSCapabilities.xml"),
        template=_template(request, path, "{TileMatrix}/{TileCol}/{TileRow}", more),
        bounds=_bounds(extent),
        levels=levels,
        half=_HALF_WORLD_M,
    )
    return Response(text, media_type="application/xml", headers={"Cache-Control": BRIEF})
