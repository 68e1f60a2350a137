"""The peers' comparison: array in, mask out, the same tiles on the same CPUs; and the sides of it that run here.

`python -m benchmarks.run --only peers [--data FOLDER] [--weights FILE]`. Sides: the naive loop (eager float32, a whole
tile at a time) and `cloudseg.Model.predict` with the same weights, then the peers, each in an environment of its own
(`benchmarks.peer_environments`) with the weights of its wheel. Without `--weights` the net of the nightly recipe has
random parameters: speed does not depend on them, so its IoU is left out.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from benchmarks.folder import open_world
from benchmarks.harness import Side, Turn, serve
from benchmarks.peer_environments import PEERS, python_of
from benchmarks.peer_sides import FOLDER, mask_path, read_tiles, take_turns
from benchmarks.world import cpu, masked_scenes, published
from cloudseg.api.find_weights import CatalogWeights, find_weights
from cloudseg.api.model import Model, load
from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA
from cloudseg.catalog import scene_rows
from cloudseg.grid import decimation
from cloudseg.model.normalize import normalize, to_reflectance
from cloudseg.model.pixels import observed
from cloudseg.model.predictor import open_predictor
from cloudseg.model.weights import load_weights
from cloudseg.raster.read import open_raster
from cloudseg.raster.resample import downsample
from cloudseg.records import Scene

MOST_PIXELS = 1024
"""Side of the scene at most, so that a turn of the slowest peer takes seconds."""
_MOST_SCENES = 64
_OWN = ("naive", "cloudseg")
_RECIPE = "nightly"
_WEIGHTS = "weights.safetensors"


def sides() -> list[Side]:
    """Return all sides, the naive one first.

    Raises:
        StateError: the environment of a peer is missing.
    """
    own = [Side(name, "benchmarks.peers") for name in _OWN]
    return own + [Side(peer.side, "benchmarks.peer_sides", python_of(peer)) for peer in PEERS]


def prepare(folder: Path, weights: str | None = None) -> None:
    """Write the scene, its label and the weights' bytes for all sides.

    The scene is a mosaic of the world's scenes that are like the first one, as many as fit into `MOST_PIXELS`: every
    side has a start to pay for each call, which would be most of the time on chips of 256 pixels.

    Args:
        folder: the benchmark's folder, whose world has scenes.
        weights: file, address, or name in this home (`cloudseg.load`); None: random parameters.

    Raises:
        InputError: there are no such weights.
    """
    store, catalog = open_world(folder)
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    with catalog.read() as db:
        labels = {label.scene_id: label for label in scene_rows.list_newest_labels(db)}
    first, *others = masked_scenes(catalog, count=_MOST_SCENES)
    alike = [first, *(scene for scene in others if _kind(scene) == _kind(first))]
    across = max(1, min(MOST_PIXELS // max(first.height, first.width), math.isqrt(len(alike))))
    pixels, classes = [], []
    for scene in alike[: across**2]:
        with open_raster(store.gdal_path(scene.key)) as dataset:
            pixels.append(dataset.read()[:, :MOST_PIXELS, :MOST_PIXELS])
        classes.append(np.full(pixels[-1].shape[1:], MASK_NO_DATA, np.uint8))
        if scene.scene_id in labels:
            with open_raster(store.gdal_path(labels[scene.scene_id].key)) as dataset:
                classes[-1] = dataset.read(1)[:MOST_PIXELS, :MOST_PIXELS]
    np.save(place / "tile_0.npy", _mosaic(pixels, across))
    np.save(place / "label_0.npy", _mosaic(classes, across))
    facts = {"bands": first.bands, "resolution_m": first.resolution_m}
    (place / "tiles.json").write_text(json.dumps([facts]), encoding="utf-8")
    (place / "weights.json").write_text(json.dumps(weights), encoding="utf-8")
    (place / _WEIGHTS).write_bytes(_bytes_of(folder, weights))


def _kind(scene: Scene) -> tuple[int, int, list[str], float | None]:
    return scene.height, scene.width, scene.bands, scene.resolution_m


def _mosaic(parts: Sequence[npt.NDArray[Any]], across: int) -> npt.NDArray[Any]:
    """Put arrays `(..., row, col)` of one size side by side, row by row."""
    rows = [np.concatenate(parts[row * across : (row + 1) * across], axis=-1) for row in range(across)]
    return np.concatenate(rows, axis=-2)


def _bytes_of(folder: Path, weights: str | None) -> bytes:
    if weights is None:
        store, catalog = open_world(folder)
        row = published(store, catalog, _RECIPE)[0]
        return store.get(row.key, row.sha256)
    found = find_weights(weights)
    return found.store.get(found.row.key, found.row.sha256) if isinstance(found, CatalogWeights) else found.data


def intersections(folder: Path) -> dict[str, float | None]:
    """Return the IoU of cloud of each side, pooled over the labeled pixels of all tiles; None where it says nothing.

    That is without a label, with random parameters, and for a peer that lacks most of its bands.
    """
    counts = {name: [0, 0] for name in (*_OWN, *(peer.side for peer in PEERS))}
    for number, (dn, _) in enumerate(read_tiles(folder)):
        path = folder / FOLDER / f"label_{number}.npy"
        if not path.exists():
            continue
        label = np.load(path)
        known = observed(dn) & ((label == MASK_CLOUD) | (label == MASK_CLEAR))
        for name, sums in counts.items():
            mask = np.load(mask_path(folder, name, number))
            sums[0] += int(np.count_nonzero(known & mask & (label == MASK_CLOUD)))
            sums[1] += int(np.count_nonzero(known & (mask | (label == MASK_CLOUD))))
    silent = {peer.side for peer in PEERS if not peer.scored}
    if json.loads((folder / FOLDER / "weights.json").read_text(encoding="utf-8")) is None:
        silent |= set(_OWN)
    return {name: None if name in silent or not whole else hit / whole for name, (hit, whole) in counts.items()}


def naive(folder: Path) -> Turn:
    """Mask with eager float32, NCHW, a whole tile in one forward pass, default allocator."""
    loaded = load_weights((folder / FOLDER / _WEIGHTS).read_bytes())
    net, meta = loaded.net.eval(), loaded.meta

    def mask(dn: npt.NDArray[np.uint16], facts: dict[str, Any]) -> npt.NDArray[np.bool_]:
        factor = decimation(facts["resolution_m"], meta.working_resolution_m)
        small, seen = downsample(dn[[facts["bands"].index(band) for band in meta.bands]], factor)
        with torch.no_grad():
            x = normalize(to_reflectance(small[None]), torch.from_numpy(seen[None]), meta.scaling)
            height, width = small.shape[1:]
            padded = functional.pad(x, (0, -width % meta.multiple, 0, -height % meta.multiple), mode="replicate")
            probability = torch.sigmoid(net(padded))[0, 0, :height, :width].numpy()
        fine = probability.repeat(factor, axis=0).repeat(factor, axis=1)[: dn.shape[1], : dn.shape[2]]
        cloud: npt.NDArray[np.bool_] = fine >= meta.threshold
        return cloud

    return take_turns("naive", folder, mask)


def cloudseg(folder: Path) -> Turn:
    """Mask with `cloudseg.Model.predict`: windows, the CPU's best arithmetic, upsampled probability."""
    model = _open_model(folder)

    def mask(dn: npt.NDArray[np.uint16], facts: dict[str, Any]) -> npt.NDArray[np.bool_]:
        resolution_m = facts["resolution_m"] or model.resolution_m
        cloud: npt.NDArray[np.bool_] = model.predict(dn, bands=facts["bands"], resolution_m=resolution_m).mask == 1
        return cloud

    return take_turns("cloudseg", folder, mask)


def _open_model(folder: Path) -> Model:
    weights = json.loads((folder / FOLDER / "weights.json").read_text(encoding="utf-8"))
    if weights is not None:
        return load(weights)
    store, catalog = open_world(folder)
    return Model(open_predictor(store, published(store, catalog, _RECIPE)[0], cpu()))


SIDES = {side.__name__: side for side in (naive, cloudseg)}

if __name__ == "__main__":
    serve(SIDES[sys.argv[1]](Path(sys.argv[2])))
