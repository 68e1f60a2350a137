"""Peak memory of masking one full Sentinel-2 tile: 10 980 x 10 980 pixels of 4 bands, synthetic. Minutes, not seconds.

`python -m benchmarks.memory FOLDER PIXELS RECIPE [cpu|cuda]`.

Measured on 2 Xeon cores, fp32, 2026-11-22 (limit: 1.5 GB): the nightly net at 30 m working pixels 43 s and 1062 MiB.
Before it, five levels of 16 to 256 channels at 90 m 61 s and 962 MiB; two levels of 16 channels at full resolution 154
s and 757 MiB.
"""

import resource
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import Affine

from benchmarks.world import cpu, open_world
from cloudseg import keys
from cloudseg.catalog.scene_rows import add_scene
from cloudseg.model.device import Device, choose_device
from cloudseg.model.nets import build_model
from cloudseg.model.predictor import Predictor
from cloudseg.model.weights import load_weights, pack_weights
from cloudseg.predict import PredictionProgress, predict_scene
from cloudseg.raster.cog import write_cog
from cloudseg.raster.footprint import footprint_bounds, footprint_of
from cloudseg.raster.synthetic import make_large_scene
from cloudseg.recipe import Recipe, load_recipe
from cloudseg.records import Scene, Weights
from cloudseg.registry import register
from cloudseg.train.trainer import describe_net

_OVERVIEW = 512


def main(folder: Path, size: int, recipe_name: str, device: Device) -> None:
    """Mask a new scene with the net of a recipe (random parameters); print time and peak memory of this process."""
    scene = _make_scene(folder, size)
    weights, predictor = _make_predictor(folder, load_recipe(recipe_name), device)
    store, catalog = open_world(folder)
    before = _peak_mib()
    began = time.perf_counter()
    mask = predict_scene(
        store,
        catalog,
        scene_id=scene.scene_id,
        weights_id=weights.weights_id,
        predictor=predictor,
        on_progress=_print_progress,
    )
    seconds = time.perf_counter() - began
    print(f"\n{size} x {size} x {len(scene.bands)}, {recipe_name}, {predictor.arithmetic}")
    print(f"{seconds:.0f} s, {size * size / 1e6 / seconds:.2f} Mpx/s, {100 * mask.cloud_fraction:.0f} % cloud")
    print(f"peak {_peak_mib():.0f} MiB, of which {before:.0f} MiB before the first window")
    if device.kind == "cuda":
        print(f"peak of the GPU {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")


def _make_scene(folder: Path, size: int) -> Scene:
    """Write a scene and its row as ingest would; ingest has its own benchmark."""
    store, catalog = open_world(folder)
    raw, cog = folder / "raw.tif", folder / "large.tif"
    make_large_scene(raw, size=size, bands=4)
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
        scene_id=keys.make_id("sc", str(size)),
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
    return scene


def _make_predictor(folder: Path, recipe: Recipe, device: Device) -> tuple[Weights, Predictor]:
    store, catalog = open_world(folder)
    torch.manual_seed(0)
    bands = ("red", "green", "blue", "nir")
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"bands": bands})})
    net = build_model(recipe.model).eval()
    meta = describe_net(recipe, net)
    data = pack_weights(net, meta)
    metadata = meta.model_dump(mode="json")
    weights = register(
        store,
        catalog,
        weights=data,
        metadata=metadata,
        companions={},
        run_id=None,
        snapshot_id=None,
        architecture=meta.architecture,
    )
    return weights, Predictor(load_weights(data), device)


def _print_progress(progress: PredictionProgress) -> None:
    print(
        f"\r{progress.done} of {progress.total} windows, peak {_peak_mib():.0f} MiB",
        end="",
        file=sys.stderr,
        flush=True,
    )


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], choose_device("cuda") if sys.argv[4:] == ["cuda"] else cpu())
