"""A home with two champions' masks whose clouds are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from rasterio.transform import Affine

from cloudseg.raster.footprint import footprint_bounds, footprint_of
from cloudseg.records import Mask
from cloudseg.runtime import open_runtime
from tests.worklist.conftest import World, make_world

UTM = Affine(10.0, 0, 500_000.0, 0, -10.0, 5_400_000.0)


class Home:
    """Publishes masks in a home that the environment names."""

    def __init__(self) -> None:
        runtime = open_runtime()
        self.world: World = make_world(runtime.store, runtime.catalog)
        self.root = runtime.home

    def mask(
        self,
        steps: np.ndarray,
        *,
        place: str = "block:1",
        crs: str = "EPSG:32631",
        transform: Affine = UTM,
        weights_id: str | None = None,
        **facts: Any,
    ) -> Mask:
        """Publish the mask of a probability `(row, col)` in steps; the threshold is 0.4."""
        height, width = steps.shape
        outline = footprint_of(np.ones(steps.shape, bool), transform, crs)
        west, south, east, north = footprint_bounds(outline)
        scene_id = self.world.scene(
            place,
            size=8,
            **{
                "height": height,
                "width": width,
                "crs": crs,
                "transform": list(transform)[:6],
                "footprint_wkb": shapely.to_wkb(outline),
                "min_lon": west,
                "min_lat": south,
                "max_lon": east,
                "max_lat": north,
                **facts,
            },
        )
        return self.world.mask(scene_id, steps, weights_id=weights_id)


@pytest.fixture
def home(runtime_env: Path) -> Home:
    return Home()


def steps_of(classes: np.ndarray) -> np.ndarray:
    """Return a probability whose mask is this."""
    return np.select([classes == 255, classes == 1], [255, 200], 20).astype(np.uint8)


def speckled(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.random((height // 8 + 1, width // 8 + 1)).repeat(8, 0).repeat(8, 1)[:height, :width] < 0.4
    classes = (coarse ^ (rng.random((height, width)) < 0.02)).astype(np.uint8)
    classes[: height // 9, : width // 5] = 255
    return classes
