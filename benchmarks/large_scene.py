"""A large synthetic scene and weights with random parameters in a benchmark folder, made before anything is measured.

`python -m benchmarks.large_scene FOLDER PIXELS RECIPE`: a process of its own, because making an int8 file needs torch.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import Affine

from benchmarks.folder import open_world, scene_id_of
from cloudseg import keys
from cloudseg.catalog.scene_rows import add_scene
from cloudseg.model.int8 import quantize
from cloudseg.model.int8_net import INT8_ASSET, INT8_FILE
from cloudseg.model.nets import build_model
from cloudseg.model.weights import load_weights, pack_weights
from cloudseg.raster.cog import write_cog
from cloudseg.raster.footprint import footprint_bounds, footprint_of
from cloudseg.raster.synthetic import make_large_scene
from cloudseg.recipe import Recipe, load_recipe
from cloudseg.records import Scene
from cloudseg.registry import register
from cloudseg.train.trainer import describe_net

_OVERVIEW = 512
_BANDS = ("red", "green", "blue", "nir")


def main(folder: Path, size: int, recipe_name: str) -> None:
    """Make both."""
    _make_scene(folder, size)
    _publish(folder, load_recipe(recipe_name))


def _make_scene(folder: Path, size: int) -> None:
    """Write a scene and its row as ingest would; ingest has its own benchmark."""
    store, catalog = open_world(folder)
    raw, cog = folder / "raw.tif", folder / "large.tif"
    make_large_scene(raw, size=size, bands=len(_BANDS))
    write_cog(cog, raw, resampling="average", tags={})
    raw.unlink()
    with rasterio.open(cog) as dataset:
        transform, crs, bands = dataset.transform, dataset.crs.to_string(), list(dataset.descriptions)
    part = min(size, _OVERVIEW)
    outline = footprint_of(np.ones((part, part), bool), transform * Affine.scale(size / part), crs)
    west, south, east, north = footprint_bounds(outline)
    stored = store.put_file(keys.scene(keys.sha256_of(str(size).encode())), cog)
    cog.unlink()
    scene = Scene(
        scene_id=scene_id_of(size),
        name="synthetic_large",
        layout="benchmark",
        sensor="synthetic",
        radiometry="synthetic",
        acquired_at=datetime(2024, 1, 8, tzinfo=UTC),
        place="block:benchmark",
        crs=crs,
        transform=list(transform)[:6],
        height=size,
        width=size,
        resolution_m=10.0,
        bands=bands,
        footprint_wkb=outline.wkb,
        min_lon=west,
        min_lat=south,
        max_lon=east,
        max_lat=north,
        valid_fraction=1.0,
        publishable=True,
        source_uri="synthetic",
        source_sha256=stored.sha256,
        **stored.model_dump(),
        tags={"synthetic": "yes"},
        created_at=datetime(2024, 1, 8, tzinfo=UTC),
    )
    with catalog.begin() as db:
        add_scene(db, scene)


def _publish(folder: Path, recipe: Recipe) -> None:
    """Publish the net of a recipe for all bands, with an int8 file whose ranges are those of noise."""
    store, catalog = open_world(folder)
    torch.manual_seed(0)
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"bands": _BANDS})})
    net = build_model(recipe.model).eval()
    meta = describe_net(recipe, net).model_copy(update={"recipe_name": recipe.name})
    data, rng = pack_weights(net, meta), np.random.default_rng(0)
    noise = [rng.integers(1, 8000, (len(_BANDS), 256, 256)).astype(np.uint16) for _ in range(4)]
    register(
        store,
        catalog,
        weights=data,
        metadata=meta.model_dump(mode="json"),
        companions={INT8_ASSET: (INT8_FILE, quantize(load_weights(data), noise))},
        run_id=None,
        snapshot_id=None,
        architecture=meta.architecture,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
