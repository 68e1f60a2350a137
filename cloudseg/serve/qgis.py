"""Route of QGIS projects: a mask over its scene, with the probability, styles and the addresses of this server."""

import re
from typing import Final

from fastapi import APIRouter, FastAPI
from rasterio.transform import Affine, array_bounds
from starlette.requests import Request
from starlette.responses import Response

from cloudseg.bands import RGB
from cloudseg.catalog import mask_query as mq
from cloudseg.raster.qgis_project import ProjectLayer, project_qgs
from cloudseg.raster.style import MASK_STYLE, colors_pipe, paletted_pipe, probability_pipe
from cloudseg.records import Scene, StoredObject
from cloudseg.serve.cache import BRIEF
from cloudseg.serve.context import Context, MaskId, base_of, with_key
from cloudseg.serve.render import BRIGHTEST
from cloudseg.serve.tiles import find_item

_MEDIA_TYPE: Final = "application/x-qgis-project"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


def add_qgis(app: FastAPI, context: Context) -> None:
    """Add the route to an application."""
    router = APIRouter(tags=["QGIS"])

    @router.get("/qgis/{mask_id}.qgs")
    def project(request: Request, mask_id: MaskId) -> Response:
        """Return a QGIS project of a mask, its probability and its scene, which are read from here as needed."""
        found = find_item(context, mask_id)
        assert found.weights is not None  # noqa: S101 - searched among masks
        title = f"{found.scene.name}, model {found.weights.version}"
        layers = _layers(context, request, found)
        scene = found.scene
        bounds = array_bounds(scene.height, scene.width, Affine(*scene.transform))
        text = project_qgs(title, layers, scene.crs or "", bounds)
        name = _UNSAFE.sub("_", title).strip("_")[:80]
        headers = {"Content-Disposition": f'attachment; filename="{name}.qgs"', "Cache-Control": BRIEF}
        return Response(text, media_type=_MEDIA_TYPE, headers=headers)

    app.include_router(router)


def _layers(context: Context, request: Request, found: mq.Found) -> list[ProjectLayer]:
    assert found.mask is not None  # noqa: S101 - searched among masks
    assert found.weights is not None  # noqa: S101
    probability = StoredObject.model_validate(found.mask.companions["probability"])
    mask, scene = found.mask, found.scene
    model = f"model {found.weights.version}"

    def source(key: str) -> str:
        address = context.site(request).object(key)
        ours = address.startswith(f"{base_of(request)}/")  # another host must not see the key
        return gdal_source(with_key(request, address) if ours else address)

    return [
        ProjectLayer(f"mask_{mask.mask_id}", f"Mask, {model}", source(mask.key), paletted_pipe(MASK_STYLE)),
        ProjectLayer(
            "probability", f"Probability, {model}", source(probability.key), probability_pipe(), visible=False
        ),
        ProjectLayer(
            f"scene_{mask.mask_id}", scene.name, source(scene.key), colors_pipe(_color_bands(scene), BRIGHTEST)
        ),
    ]


def _color_bands(scene: Scene) -> list[int]:
    """Return the numbers of red, green and blue, or three times the first band if a scene lacks one of them."""
    names = list(scene.bands)
    return [names.index(band) + 1 for band in RGB] if all(band in names for band in RGB) else [1, 1, 1]


def gdal_source(address: str) -> str:
    """Return what GDAL opens for an address: files over HTTP and S3 need a prefix (gdal.org, virtual file systems)."""
    if address.startswith("s3://"):
        return f"/vsis3/{address.removeprefix('s3://')}"
    return f"/vsicurl/{address}" if address.startswith(("http://", "https://")) else address
