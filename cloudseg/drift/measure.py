"""The brightness of scenes, measured once for each from an overview."""

import logging
from collections.abc import Callable
from typing import Final

import numpy as np
from rasterio.enums import Resampling

from cloudseg.bands import NO_DATA, REFLECTANCE_SCALE, RGB
from cloudseg.catalog import Catalog, drift_rows
from cloudseg.catalog.session import now
from cloudseg.errors import CloudsegError
from cloudseg.raster.read import band_indexes, decoded, open_raster
from cloudseg.records import GdalPath, Scene, SceneBrightness
from cloudseg.storage import Store

log = logging.getLogger(__name__)
_SIDE: Final = 256
"""Longest side of what is read, in pixels: the mean hardly changes with it, and a 10 980 pixel scene costs 0.1 MB."""


def measure_scenes(
    store: Store,
    catalog: Catalog,
    snapshot_id: str | None,
    *,
    limit: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Measure scenes that have no brightness yet and return how many there were; a repeated call goes on.

    A scene that cannot be read is recorded without a value, which is logged: `cloudseg maintain --verify` says what is
    wrong with it.

    Args:
        store: holds the scenes.
        catalog: of their rows.
        snapshot_id: the training scenes of this snapshot come first.
        limit: maximum number of scenes.
        on_progress: called with scenes done and the total number of scenes.

    Raises:
        StoreError: the store does not answer.
    """
    with catalog.read() as db:
        scenes = drift_rows.list_unmeasured(db, snapshot_id, limit=limit)
    for done, scene in enumerate(scenes, start=1):
        found = SceneBrightness(scene_id=scene.scene_id, reflectance=_measure(store, scene), created_at=now())
        with catalog.begin() as db:
            drift_rows.add_brightness(db, found)
        if on_progress is not None:
            on_progress(done, len(scenes))
    return len(scenes)


def mean_reflectance(scene: GdalPath | str) -> float | None:
    """Return the mean reflectance of red, green and blue over the valid pixels of a canonical scene.

    All bands count where one of the three is missing. The mean, not the median: averaging to an overview keeps it.

    Args:
        scene: the canonical scene.

    Returns:
        The reflectance, None without a valid pixel.

    Raises:
        ObjectCorrupt: the raster cannot be read.
        StoreError: the store does not deliver the bytes.
    """
    with open_raster(scene) as pixels:
        names = list(pixels.descriptions)
        indexes = band_indexes(pixels, RGB) if set(RGB) <= set(names) else list(pixels.indexes)
        scale = min(1.0, _SIDE / max(pixels.height, pixels.width))
        shape = (len(indexes), max(1, round(pixels.height * scale)), max(1, round(pixels.width * scale)))
        with decoded(pixels):
            dn = pixels.read(indexes, out_shape=shape, resampling=Resampling.average)
    valid = np.all(dn != NO_DATA, axis=0)
    return float(dn[:, valid].mean()) / REFLECTANCE_SCALE if valid.any() else None


def _measure(store: Store, scene: Scene) -> float | None:
    try:
        return mean_reflectance(store.gdal_path(scene.key))
    except CloudsegError as error:
        if error.retry_helps:
            raise
        log.warning("no brightness of scene %s: %s", scene.scene_id, error)
        return None
