"""Sides of the peers' comparison that run in the peers' own environments (`benchmarks.peer_environments`).

Imported there are the standard library, numpy, the peer, and `benchmarks.harness`; nothing else of this project.
"""

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Turn, serve, stopwatch

FOLDER = "peers"
"""Below the benchmark's folder: `tiles.json`, `tile_<n>.npy`, `label_<n>.npy`, and what the sides write."""
_SCALE = 10_000
Tile = tuple[npt.NDArray[np.uint16], dict[str, Any]]
Masker = Callable[[npt.NDArray[np.uint16], dict[str, Any]], npt.NDArray[np.bool_]]


def read_tiles(folder: Path) -> list[Tile]:
    """Return the pixels, uint16 `(band, row, col)`, reflectance x 10 000, each with its band names and resolution."""
    facts = json.loads((folder / FOLDER / "tiles.json").read_text(encoding="utf-8"))
    return [(np.load(folder / FOLDER / f"tile_{number}.npy"), fact) for number, fact in enumerate(facts)]


def mask_path(folder: Path, side: str, number: int) -> Path:
    """Return where a side leaves the mask of a tile, bool `(row, col)`."""
    return folder / FOLDER / f"mask_{side}_{number}.npy"


def take_turns(side: str, folder: Path, mask: Masker) -> Turn:
    """Return a turn that masks every tile; the first one, which warms up, also keeps the masks."""
    tiles = read_tiles(folder)

    def turn(number: int) -> Any:
        found: list[npt.NDArray[np.bool_]] = []

        def work() -> tuple[int, float]:
            found.extend(mask(dn, facts) for dn, facts in tiles)
            return len(tiles), sum(dn.shape[1] * dn.shape[2] for dn, _ in tiles) / 1e6

        measured = stopwatch(work)
        for index, one in enumerate(found if number == 0 else []):
            np.save(mask_path(folder, side, index), one)
        return measured

    return turn


def ukis_csmask(folder: Path) -> Turn:
    """Mask with ukis-csmask, whose ONNX nets are in its wheel: four bands, top of atmosphere."""
    open_mask = import_module("ukis_csmask.mask").CSmask
    names = ["blue", "green", "red", "nir"]

    def mask(dn: npt.NDArray[np.uint16], facts: dict[str, Any]) -> npt.NDArray[np.bool_]:
        image = np.stack([_band(dn, facts["bands"], name) for name in names], axis=-1)
        threads = len(os.sched_getaffinity(0))
        found = open_mask(image, names, product_level="l1c", nodata_value=0, intra_op_num_threads=threads)
        cloud: npt.NDArray[np.bool_] = found.csm[:, :, 0] == 1
        return cloud

    return take_turns("ukis_csmask", folder, mask)


def s2cloudless(folder: Path) -> Turn:
    """Mask with s2cloudless, whose LightGBM model is in its wheel: 10 bands of top of atmosphere."""
    detector = import_module("s2cloudless").S2PixelCloudDetector(threshold=0.4, average_over=4, dilation_size=2)
    # B01, B02, B04, B05, B08, B8A, B09, B10, B11, B12
    order = ("blue", "blue", "red", "red", "nir", "nir", "nir", None, "nir", "nir")

    def mask(dn: npt.NDArray[np.uint16], facts: dict[str, Any]) -> npt.NDArray[np.bool_]:
        none = np.full(dn.shape[1:], 0.001, np.float32)
        image = np.stack([none if name is None else _band(dn, facts["bands"], name) for name in order], axis=-1)
        cloud: npt.NDArray[np.bool_] = detector.get_cloud_masks(image[None])[0] == 1
        return cloud

    return take_turns("s2cloudless", folder, mask)


def _band(dn: npt.NDArray[np.uint16], bands: list[str], name: str) -> npt.NDArray[np.float32]:
    """Return the reflectance of a band; red where the scene has no near infrared."""
    index = bands.index(name if name in bands else "red")
    reflectance: npt.NDArray[np.float32] = dn[index].astype(np.float32) / _SCALE
    return reflectance


SIDES = {side.__name__: side for side in (ukis_csmask, s2cloudless)}

if __name__ == "__main__":
    serve(SIDES[sys.argv[1]](Path(sys.argv[2])))
