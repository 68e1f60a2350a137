"""A home with scenes and masks drawn by hand at any place, and polygons written by other libraries."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import Affine, from_origin

from cloudseg import keys
from cloudseg.catalog import model_rows, scene_rows
from cloudseg.predict import mask_id_of
from cloudseg.raster.footprint import footprint_bounds, footprint_of
from cloudseg.records import Mask, Promotion, Scene, Weights
from cloudseg.runtime import Runtime, open_runtime

DAY = datetime(2024, 6, 1, 10, 30, tzinfo=UTC)
GRID = from_origin(500_000, 5_000_000, 20, 20)
ZONE = "EPSG:32631"


def classes(size: int = 100, cloud: Sequence[tuple[slice, slice]] = (), no_data: Sequence[Any] = ()) -> np.ndarray:
    """Return a mask that is clear but for some windows."""
    drawn = np.zeros((size, size), np.uint8)
    for window in cloud:
        drawn[window] = 1
    for window in no_data:
        drawn[window] = 255
    return drawn


def tif_bytes(array: np.ndarray, crs: str, transform: Affine, nodata: int, bands: Sequence[str]) -> bytes:
    profile = {"count": array.shape[0], "height": array.shape[1], "width": array.shape[2], "dtype": array.dtype}
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            crs=crs,
            transform=transform,
            nodata=nodata,
            tiled=True,
            blockxsize=64,
            blockysize=64,
            compress="deflate",
            **profile,
        ) as out:
            out.write(array)
            out.descriptions = tuple(bands)
        return bytes(memory.read())


@dataclass
class GisWorld:
    """Adds scenes with masks; the weights w-champion were promoted after w-older, w-never was never promoted."""

    runtime: Runtime

    def add(
        self,
        mask: np.ndarray,
        *,
        when: datetime | None = DAY,
        crs: str = ZONE,
        transform: Affine = GRID,
        values: Any = None,
        bands: Sequence[str] = ("red", "green"),
        weights_id: str = "w-champion",
        scene: Scene | None = None,
    ) -> Mask:
        """Publish a mask `(row, col)`; its scene has `values` in every band, or 1000 and 2000."""
        scene = scene or self._scene(mask, when, crs, transform, values, bands)
        content = tif_bytes(mask[None], scene.crs or "", Affine(*scene.transform), 255, ("cloud mask",))
        stored = self.runtime.store.put(
            keys.mask(weights_id, scene.scene_id, "mask.tif", keys.sha256_of(content)), content
        )
        valid = mask != 255
        row = Mask(
            mask_id=mask_id_of(scene.scene_id, weights_id),
            scene_id=scene.scene_id,
            weights_id=weights_id,
            threshold=0.5,
            cloud_fraction=float((mask == 1).sum() / max(1, valid.sum())),
            valid_fraction=float(valid.mean()),
            **stored.model_dump(),
            companions={},
            created_at=DAY,
        )
        with self.runtime.catalog.begin() as db:
            model_rows.add_mask(db, row)
        return row

    def scene_of(self, mask: Mask) -> Scene:
        with self.runtime.catalog.read() as db:
            return scene_rows.get_scene(db, mask.scene_id)

    def _scene(
        self, mask: np.ndarray, when: datetime | None, crs: str, transform: Affine, values: Any, bands: Sequence[str]
    ) -> Scene:
        pixels = np.empty((len(bands), *mask.shape), np.uint16)
        pixels[:] = 1000 * np.arange(1, len(bands) + 1)[:, None, None] if values is None else values
        pixels[:, mask == 255] = 0
        content = tif_bytes(pixels, crs, transform, 0, bands)
        source = keys.sha256_of(content + f"{when} {crs}".encode())
        stored = self.runtime.store.put(keys.scene(keys.sha256_of(content)), content)
        outline = footprint_of(mask != 255, transform, crs)
        west, south, east, north = footprint_bounds(outline)
        scene = Scene(
            scene_id=keys.id_from_hash("sc", source),
            name=f"synthetic_{crs[5:]}_{when:%Y%m%d}" if when else "synthetic",
            layout="pairs",
            sensor="unknown",
            radiometry="test",
            acquired_at=when,
            place="mgrs:31TEJ",
            crs=crs,
            transform=list(transform)[:6],
            height=mask.shape[0],
            width=mask.shape[1],
            resolution_m=transform.a,
            bands=list(bands),
            footprint_wkb=shapely.to_wkb(outline),
            min_lon=west,
            min_lat=south,
            max_lon=east,
            max_lat=north,
            valid_fraction=float((mask != 255).mean()),
            publishable=True,
            source_uri="file:///x",
            source_sha256=source,
            **stored.model_dump(),
            tags={"synthetic": "yes"},
            created_at=DAY,
        )
        with self.runtime.catalog.begin() as db:
            scene_rows.add_scene(db, scene)
        return scene


@pytest.fixture
def world(runtime_env: Path) -> GisWorld:
    found = GisWorld(open_runtime())
    with found.runtime.catalog.begin() as db:
        for weights_id in ("w-older", "w-champion", "w-never"):
            stored = found.runtime.store.put(keys.weights(keys.sha256_of(weights_id.encode())), weights_id.encode())
            model_rows.add_weights(
                db,
                Weights(
                    weights_id=weights_id,
                    version=0,
                    run_id=None,
                    snapshot_id=None,
                    architecture="SimpleUNet",
                    **stored.model_dump(),
                    companions={},
                    metadata={"bands": ["red", "green"]},
                    created_at=DAY,
                ),
            )
        for generation, weights_id in enumerate(("w-older", "w-champion"), start=1):
            model_rows.add_promotion(
                db,
                Promotion(
                    generation=generation,
                    weights_id=weights_id,
                    previous_weights_id=None,
                    action="promote",
                    verdict_id=None,
                    actor="test",
                    reason="test",
                    created_at=DAY,
                ),
            )
    return found
