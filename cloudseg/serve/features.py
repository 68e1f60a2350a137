"""Routes of features: footprints of masks and scenes, and the polygons of clouds, as pages of GeoJSON (RFC 7946)."""

import functools
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode

import numpy as np
import shapely
from fastapi import APIRouter, FastAPI, Query
from rasterio.enums import Resampling
from rasterio.features import shapes
from rasterio.transform import Affine
from rasterio.warp import transform_geom
from shapely.geometry import mapping
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cloudseg.bands import MASK_CLOUD
from cloudseg.catalog import mask_query as mq
from cloudseg.catalog import mask_search as ms
from cloudseg.errors import InputError
from cloudseg.raster.read import decoded, open_raster
from cloudseg.records import Json, utc_iso
from cloudseg.serve.cache import BRIEF, cache_headers, is_cached
from cloudseg.serve.context import AsOf, Context, MaskId, base_of, with_key
from cloudseg.serve.stac_api import query_of
from cloudseg.serve.tiles import find_source
from cloudseg.storage import Store

MAX_SIDE: Final = 2048
"""Pixels of the longer side of the mask whose clouds are outlined: larger ones are read from an overview."""
MAX_POLYGONS: Final = 20_000
_DECIMALS: Final = 6
"""Degrees: 0.1 m."""


def add_features(app: FastAPI, context: Context) -> None:
    """Add the routes to an application."""
    router = APIRouter(tags=["Features"])

    @router.get("/features/footprints")
    def footprints(
        request: Request,
        collection: Literal["masks", "scenes"] = "masks",
        bbox: str | None = None,
        datetime: str | None = None,
        model_version: Annotated[int | None, Query(ge=1, le=10**9)] = None,
        limit: Annotated[int, Query(ge=1, le=mq.MAX_LIMIT)] = 100,
        token: str | None = None,
        as_of: AsOf = None,
    ) -> Response:
        """Return footprints, newest first; of masks those that readers see, or those of a model."""
        where = {"op": "=", "args": [{"property": "cloudseg:model_version"}, model_version]}
        asked = {
            "collections": [collection],
            "bbox": _box(bbox),
            "datetime": datetime,
            "filter": where if model_version is not None else None,
            "as_of": as_of,
        }
        with context.catalog.read() as db:
            page = ms.search(db, query_of(asked), limit=limit, token=token)
        return _page(request, [_footprint(row) for row in page.rows], page.token, {"Cache-Control": BRIEF})

    @router.get("/features/{mask_id}/clouds")
    async def clouds(
        request: Request,
        mask_id: MaskId,
        min_area_m2: Annotated[float, Query(ge=0, le=1e12)] = 0.0,
        limit: Annotated[int, Query(ge=1, le=5_000)] = 1_000,
        offset: Annotated[int, Query(ge=0, le=MAX_POLYGONS)] = 0,
    ) -> Response:
        """Return the outlines of the clouds of a mask, the largest first; they never change, so a page is an offset."""
        source, _ = await context.workers.run(find_source, context, mask_id, "mask")
        etag = f"{source.sha256[:20]}-{min_area_m2:g}-{limit}-{offset}"
        if is_cached(request, etag):
            return Response(status_code=304, headers=cache_headers(etag))
        every = await context.workers.run(_clouds, context.store, source.key, min_area_m2)
        features = [{**feature, "properties": {**feature["properties"], "mask_id": mask_id}} for feature in every]
        token = str(offset + limit) if len(features) > offset + limit else None
        return _page(request, features[offset : offset + limit], token, cache_headers(etag), "offset")

    app.include_router(router)


def _page(
    request: Request, features: list[Json], token: str | None, headers: dict[str, str], name: str = "token"
) -> Response:
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    links = [{"rel": "self", "href": str(request.url), "type": "application/geo+json"}]
    if token is not None:
        kept = [(key, value) for key, value in request.query_params.multi_items() if key not in (name, "api_key")]
        href = with_key(request, f"{base_of(request)}{path}?{urlencode([*kept, (name, token)])}")
        links.append({"rel": "next", "href": href, "type": "application/geo+json"})
    body = {"type": "FeatureCollection", "features": features, "numberReturned": len(features), "links": links}
    return JSONResponse(body, headers=headers, media_type="application/geo+json")


def _footprint(row: mq.Found) -> Json:
    scene, mask = row.scene, row.mask
    properties: dict[str, Any] = {
        "scene_id": scene.scene_id,
        "name": scene.name,
        "datetime": utc_iso(scene.acquired_at) if scene.acquired_at else None,
        "place": scene.place,
        "sensor": scene.sensor,
    }
    if mask is not None and row.weights is not None:
        properties |= {
            "mask_id": mask.mask_id,
            "model_version": row.weights.version,
            "cloud_cover": round(100 * mask.cloud_fraction, 4),
            "valid_fraction": mask.valid_fraction,
        }
    geometry = mapping(shapely.set_precision(shapely.from_wkb(scene.footprint_wkb), 10**-_DECIMALS))
    return {"type": "Feature", "id": row.id, "geometry": geometry, "properties": properties}


def _box(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError("not a box", subject="bbox", found=text[:80], expected="west,south,east,north") from error


@functools.lru_cache(16)
def _clouds(store: Store, key: str, min_area_m2: float) -> list[Json]:
    """Return the polygons of a mask, largest first; those of a mask without meters have no least area.

    Raises:
        InputError: there are more than `MAX_POLYGONS`.
    """
    with open_raster(store.gdal_path(key)) as dataset:
        factor = max(1.0, max(dataset.height, dataset.width) / MAX_SIDE)
        height, width = max(1, round(dataset.height / factor)), max(1, round(dataset.width / factor))
        with decoded(dataset):
            classes = dataset.read(1, out_shape=(height, width), resampling=Resampling.mode)
        transform = dataset.transform @ Affine.scale(dataset.width / width, dataset.height / height)
        crs = dataset.crs
        linear = crs.linear_units_factor[1] if crs and crs.is_projected else None
    cloud = (classes == MASK_CLOUD).astype(np.uint8)
    found: list[tuple[float, Json]] = []
    for geometry, _ in shapes(cloud, mask=cloud.astype(bool), transform=transform):
        area = shapely.area(shapely.geometry.shape(geometry)) * (linear or 0) ** 2
        if linear and area < min_area_m2:
            continue
        if len(found) >= MAX_POLYGONS:
            raise InputError(
                "the mask has too many clouds for one answer",
                found=f"more than {MAX_POLYGONS}",
                next_step="Ask with min_area_m2, or use `cloudseg export`.",
            )
        found.append((area, geometry))
    found.sort(key=lambda pair: -pair[0])
    return [
        {
            "type": "Feature",
            "geometry": transform_geom(crs, "EPSG:4326", geometry, precision=_DECIMALS, antimeridian_cutting=True),
            "properties": {"area_m2": round(area, 1) if linear else None},
        }
        for area, geometry in found
    ]
