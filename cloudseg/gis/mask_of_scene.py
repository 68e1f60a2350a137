"""A mask with its scene: only what a reader of the two rasters needs."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from cloudseg.catalog.mask_query import Found
from cloudseg.errors import DataError


class MaskOfScene(NamedTuple):
    """A published mask on the grid of its scene."""

    mask_id: str
    weights_id: str
    model_version: int
    mask_key: str
    scene_id: str
    scene_name: str
    sensor: str
    acquired_at: datetime | None
    crs: str
    transform: Sequence[float]
    height: int
    width: int
    resolution_m: float | None
    bands: Sequence[str]
    scene_key: str
    footprint_wkb: bytes
    """Valid pixels in lon/lat, EPSG:4326, cut at 180°."""


def mask_of(found: Found) -> MaskOfScene:
    """Return what a search of masks found.

    Raises:
        DataError: it is no mask, or its scene has no georeference.
    """
    mask, scene, weights = found.mask, found.scene, found.weights
    if mask is None or weights is None or scene.crs is None or scene.footprint_wkb is None:
        raise DataError("not a mask with a georeference", subject=found.id)
    return MaskOfScene(
        mask_id=mask.mask_id,
        weights_id=mask.weights_id,
        model_version=weights.version,
        mask_key=mask.key,
        scene_id=scene.scene_id,
        scene_name=scene.name,
        sensor=scene.sensor,
        acquired_at=scene.acquired_at,
        crs=scene.crs,
        transform=scene.transform,
        height=scene.height,
        width=scene.width,
        resolution_m=scene.resolution_m,
        bands=scene.bands,
        scene_key=scene.key,
        footprint_wkb=scene.footprint_wkb,
    )
