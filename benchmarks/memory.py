"""Time and peak memory of masking one full Sentinel-2 tile: 10 980 x 10 980 pixels of 4 bands, synthetic.

`python -m benchmarks.memory FOLDER PIXELS RECIPE [auto|fp32|cuda]`: `auto` is what `cloudseg predict` does here, in
int8 without torch if the CPU has int8 arithmetic. Figures: docs/log.md.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.folder import open_world, scene_id_of
from cloudseg.catalog import model_rows
from cloudseg.model.device import Device, choose_device, choose_int8
from cloudseg.model.predictor import open_predictor
from cloudseg.predict import PredictionProgress, predict_scene


def main(folder: Path, size: int, recipe_name: str, kind: str) -> None:
    """Mask a new scene with the net of a recipe (random parameters); print time and peak memory of this process."""
    folder.mkdir(parents=True, exist_ok=True)
    making = [sys.executable, "-m", "benchmarks.large_scene", str(folder), str(size), recipe_name]
    subprocess.run(making, check=True)
    store, catalog = open_world(folder)
    with catalog.read() as db:
        weights = next(w for w in model_rows.list_weights(db) if w.metadata["recipe_name"] == recipe_name)
    device = _device(kind)
    predictor = open_predictor(store, weights, device)
    before = _peak_mib()
    began = time.perf_counter()
    mask = predict_scene(
        store,
        catalog,
        scene_id=scene_id_of(size),
        weights_id=weights.weights_id,
        predictor=predictor,
        on_progress=_print_progress,
    )
    seconds = time.perf_counter() - began
    print(f"\n{size} x {size} x 4, {recipe_name}, {predictor.arithmetic}")
    print(f"{seconds:.1f} s, {size * size / 1e6 / seconds:.2f} Mpx/s, {100 * mask.cloud_fraction:.0f} % cloud")
    print(f"peak {_peak_mib():.0f} MiB, of which {before:.0f} MiB before the first window")
    if device.kind == "cuda":
        import torch

        print(f"peak of the GPU {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")


def _device(kind: str) -> Device:
    if kind == "cuda":
        return choose_device("cuda")
    if kind == "fp32":
        return choose_device("cpu", "fp32")
    return choose_int8("cpu") or choose_device("cpu", int8="auto")


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
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else "auto")
