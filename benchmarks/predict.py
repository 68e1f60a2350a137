"""Prediction: the net alone, and a scene from the store to its published mask.

The naive side is the loop of the original project: eager float32, NCHW, one image at a time, default allocator; it
reads the whole tile and writes a plain GeoTIFF mask. cloudseg does everything that it does in production: windows, mask
and probability COGs with overviews, thumbnail, STAC item, checksums, row.
"""

import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch

from benchmarks.folder import open_world
from benchmarks.harness import Turn, serve, stopwatch
from benchmarks.world import cpu, masked_scenes, published, read_tiles
from cloudseg.catalog import Catalog
from cloudseg.model.device import choose_device
from cloudseg.model.pixels import observed
from cloudseg.model.predictor import Predictor, open_predictor
from cloudseg.predict import predict_scene
from cloudseg.storage import LocalStore

WORKING_SIDE = 1216


def naive_net(folder: Path) -> Turn:
    """Run the net alone, naively."""
    store, catalog = open_world(folder)
    tiles = [_read_naive(str(store.gdal_path(scene.key))) for scene in masked_scenes(catalog)]
    net = published(store, catalog)[1].net

    def work() -> tuple[int, float]:
        for tile in tiles:
            _predict_naive(net, tile)
        return len(tiles), sum(tile.shape[1] * tile.shape[2] for tile in tiles) / 1e6

    return lambda number: stopwatch(work)


def cloudseg_net(folder: Path) -> Turn:
    """Run the net alone through the predictor (normalization included), in int8 if the CPU has it."""
    store, catalog = open_world(folder)
    return _predict_turn(open_predictor(store, published(store, catalog)[0], cpu()), read_tiles(store, catalog))


def cloudseg_net_float(folder: Path) -> Turn:
    """Run the same with `CLOUDSEG_INT8=off`."""
    store, catalog = open_world(folder)
    return _predict_turn(
        open_predictor(store, published(store, catalog)[0], choose_device("cpu")), read_tiles(store, catalog)
    )


def naive_nightly(folder: Path) -> Turn:
    """Run the net of the nightly recipe on a whole Sentinel-2 scene at 90 m, naively."""
    store, catalog = open_world(folder)
    image = _working_scene(store, catalog).astype(np.float32) / 10_000 / 0.3558
    net = published(store, catalog, "nightly")[1].net

    def work() -> tuple[int, float]:
        _predict_naive(net, image)
        return 1, image.shape[1] * image.shape[2] / 1e6

    return lambda number: stopwatch(work)


def cloudseg_nightly(folder: Path) -> Turn:
    """Run the same through the predictor."""
    store, catalog = open_world(folder)
    return _predict_turn(
        open_predictor(store, published(store, catalog, "nightly")[0], cpu()), [_working_scene(store, catalog)]
    )


def _predict_turn(predictor: Predictor, tiles: list[np.ndarray]) -> Turn:
    def work() -> tuple[int, float]:
        for tile in tiles:
            predictor.probability(tile[None], observed(tile[None]))
        return len(tiles), sum(tile.shape[1] * tile.shape[2] for tile in tiles) / 1e6

    return lambda number: stopwatch(work)


def _working_scene(store: LocalStore, catalog: Catalog) -> np.ndarray:
    """Return tiles side by side: as many pixels as 10 980 of 10 m are at 90 m (a multiple of 16 for the naive side)."""
    tile = read_tiles(store, catalog)[0]
    times = -(-WORKING_SIDE // tile.shape[1]), -(-WORKING_SIDE // tile.shape[2])
    return np.ascontiguousarray(np.tile(tile, (1, *times))[:, :WORKING_SIDE, :WORKING_SIDE])


def naive_scene(folder: Path) -> Turn:
    """Read a tile, predict, write a mask file, naively."""
    store, catalog = open_world(folder)
    scenes = masked_scenes(catalog)
    net = published(store, catalog)[1].net
    out = folder / "naive"
    out.mkdir(exist_ok=True)

    def work() -> tuple[int, float]:
        for scene in scenes:
            source = str(store.gdal_path(scene.key))
            mask = (_predict_naive(net, _read_naive(source)) > 0.5).astype(np.uint8)
            with rasterio.open(source) as dataset:
                profile = {
                    "driver": "GTiff",
                    "height": dataset.height,
                    "width": dataset.width,
                    "count": 1,
                    "dtype": "uint8",
                }
                profile |= {"crs": dataset.crs, "transform": dataset.transform}
            with rasterio.open(out / f"{scene.scene_id}.tif", "w", **profile) as target:
                target.write(mask, 1)
        return len(scenes), sum(scene.height * scene.width for scene in scenes) / 1e6

    return lambda number: stopwatch(work)


def cloudseg_scene(folder: Path) -> Turn:
    """Publish the mask of a scene, as the stage does."""
    store, catalog = open_world(folder)
    scenes = masked_scenes(catalog)
    weights, _ = published(store, catalog)
    predictor = open_predictor(store, weights, cpu())

    def work() -> tuple[int, float]:
        for scene in scenes:
            predict_scene(store, catalog, scene_id=scene.scene_id, weights_id=weights.weights_id, predictor=predictor)
        return len(scenes), sum(scene.height * scene.width for scene in scenes) / 1e6

    def turn(number: int) -> Any:
        # Without this the second turn would find every mask published.
        shutil.rmtree(store.root / "masks", ignore_errors=True)
        with catalog.begin() as db:
            db.exec_driver_sql("DELETE FROM mask")
        return stopwatch(work)

    return turn


def _read_naive(path: str) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path) as dataset:
            return np.asarray(dataset.read([1, 2, 3])).astype(np.float32) / 10_000 / 0.3558


def _predict_naive(net: torch.nn.Module, tile: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return torch.sigmoid(net(torch.from_numpy(tile)[None]))[0, 0].numpy()


_ALL = (
    naive_net,
    cloudseg_net,
    cloudseg_net_float,
    naive_scene,
    cloudseg_scene,
    naive_nightly,
    cloudseg_nightly,
)
SIDES = {side.__name__: side for side in _ALL}

if __name__ == "__main__":
    serve(SIDES[sys.argv[1]](Path(sys.argv[2])))
