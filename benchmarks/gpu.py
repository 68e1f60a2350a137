"""Training and prediction on a GPU: `python -m benchmarks.gpu [--tiles N] [--scene PIXELS] [--json FILE]`.

Measures, for the recipes baseline and nightly: images/s, share of the GPU's bf16 peak and memory per batch size, up to
the largest batch that fits; whether a step waits for the GPU between two reads of the loss, whether batches made on
the GPU are those of the CPU, whether a resumed training ends with the same bits; the same weights on CPU and GPU; a
scene of 10 980 x 10 980 pixels end to end. It has not been run on a GPU yet. Without one it ends with status 1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.folder import open_world
from benchmarks.world import usable_cpus
from cloudseg.catalog import training_rows
from cloudseg.dataset.chips import ChipSet, open_chips
from cloudseg.dataset.snapshot import build_snapshot
from cloudseg.ingest import DecodeLimits
from cloudseg.ingest.pipeline import ingest_source
from cloudseg.model.device import Device, choose_device, set_up
from cloudseg.model.nets import build_model
from cloudseg.model.pixels import observed
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.weights import LoadedModel
from cloudseg.raster.synthetic import make_tiles
from cloudseg.recipe import Recipe, load_recipe, recipe_from
from cloudseg.train.batch import Batches
from cloudseg.train.checkpoint import TrainingProgress
from cloudseg.train.data import TrainingData
from cloudseg.train.distributed import DistributedContext
from cloudseg.train.trainer import Trainer, describe_net

_RECIPES: Final = ("baseline", "nightly")
_WARM_UP_STEPS, _STEPS = 10, 50
_LARGEST_BATCH: Final = 4096
_MATRIX: Final = 8192
"""Rows and columns of the matrices whose product is taken as the peak: NVIDIA's cuBLAS comes within a few percent of
the tensor cores' limit from about 4096 on."""


@dataclass(frozen=True)
class TrainingSpeed:
    """Speed of a training at one batch size."""

    recipe: str
    batch_size: int
    images_per_s: float
    share_of_peak: float
    peak_gb: float
    """Memory of the GPU that torch allocated at most, chips included."""


@dataclass(frozen=True)
class Agreement:
    """What must be equal, to the bit or to rounding."""

    recipe: str
    waits_between_reads: int
    """Operations of a step that made the host wait for the GPU; 0 is the goal."""
    batch_difference: float
    """Largest difference of an input of the net, made on the CPU and on the GPU."""
    labels_equal: bool
    resumed_equal: bool
    fp32_difference: float
    """Largest difference of a probability of the same weights, CPU and GPU, both fp32."""
    bf16_difference: float
    """The same, the GPU in bf16."""


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=_positive, default=64, help="synthetic training tiles (default 64)")
    parser.add_argument("--scene", type=_positive, default=10_980, help="pixels per side of the scene (default 10980)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no GPU is visible to torch: nothing was measured", file=sys.stderr)
        return 1
    device = choose_device("cuda")
    set_up(device)
    print(f"{device.reason}; torch {torch.__version__}, CUDA {torch.version.cuda}, {usable_cpus()} CPUs")
    with tempfile.TemporaryDirectory(prefix="cloudseg-gpu-") as name:
        folder, found = Path(name), measure(Path(name), device, options.tiles)
        command = [sys.executable, "-m", "benchmarks.memory", str(folder), str(options.scene), "nightly", "cuda"]
        subprocess.run(command, check=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(entry) for entry in found], indent=1), encoding="utf-8")
    return 0


def measure(folder: Path, device: Device, tiles: int) -> list[TrainingSpeed | Agreement]:
    """Measure both recipes on synthetic tiles; print each figure as soon as it is known."""
    peak = matmul_flops(device)
    print(f"bf16 peak, measured by a product of {_MATRIX} x {_MATRIX} matrices: {peak / 1e12:.0f} TFLOP/s")
    found: list[TrainingSpeed | Agreement] = []
    for name in _RECIPES:
        recipe = load_recipe(name)
        with open_tiles(folder, recipe, tiles) as chip_set:
            entries: list[TrainingSpeed | Agreement] = [*_speeds(chip_set, recipe, device, peak)]
            entries.append(check(chip_set, recipe, device))
            for entry in entries:
                print(" ".join(f"{key}={_text(value)}" for key, value in asdict(entry).items()), flush=True)
                found.append(entry)
    return found


# --- speed ------------------------------------------------------------------------------------------------------------


def _speeds(chip_set: ChipSet, recipe: Recipe, device: Device, peak: float) -> list[TrainingSpeed]:
    def work(batch_size: int) -> TrainingSpeed:
        return measure_training(chip_set, with_batch(recipe, batch_size), device, peak, steps=_STEPS)

    return grow(work, recipe.budget.batch_size)


def grow(work: Callable[[int], TrainingSpeed], batch_size: int) -> list[TrainingSpeed]:
    """Measure with a batch size and its doubles until the memory of the GPU is full."""
    found = []
    while batch_size <= _LARGEST_BATCH:
        try:
            found.append(work(batch_size))
        except torch.cuda.OutOfMemoryError:
            print(f"a batch of {batch_size} does not fit into the GPU's memory")
            break
        batch_size *= 2
    return found


def measure_training(chip_set: ChipSet, recipe: Recipe, device: Device, peak: float, *, steps: int) -> TrainingSpeed:
    """Time training steps, batches included.

    Args:
        chip_set: chips to train on.
        recipe: what to train.
        device: where.
        peak: floating point operations per second that count as 100 %.
        steps: steps that are timed, after some that warm up.
    """
    trainer = make_trainer(chip_set, recipe, device)
    if device.kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = 0.0
    for number, batch in enumerate(trainer.batches.iter_from(0, _WARM_UP_STEPS + steps)):
        if number == _WARM_UP_STEPS:
            _wait(device)
            began = time.perf_counter()
        trainer.train_step(batch)
    _wait(device)
    images_per_s = recipe.budget.batch_size * steps / (time.perf_counter() - began)
    return TrainingSpeed(
        recipe=recipe.name,
        batch_size=recipe.budget.batch_size,
        images_per_s=images_per_s,
        share_of_peak=share_of_peak(images_per_s, training_flop(recipe), peak),
        peak_gb=torch.cuda.max_memory_allocated() / 1e9 if device.kind == "cuda" else 0.0,
    )


def training_flop(recipe: Recipe) -> float:
    """Return the floating point operations of one image in a training step.

    Three times the forward pass: the gradients of inputs and of parameters cost as much each (Kaplan et al. 2020,
    section 2.1).
    """
    size = recipe.data.crop_size or recipe.data.chip_size
    with torch.device("meta"), FlopCounterMode(display=False) as counter:  # shapes alone: nothing is computed
        build_model(recipe.model).eval()(torch.empty(1, len(recipe.model.bands), size, size))
    return 3.0 * float(counter.get_total_flops())


def share_of_peak(images_per_s: float, flop_per_image: float, peak: float) -> float:
    """Return which share of the peak (FLOP/s) so many images per second use."""
    return images_per_s * flop_per_image / peak


def matmul_flops(device: Device, size: int = _MATRIX, rounds: int = 20) -> float:
    """Return the FLOP/s of products of square bf16 matrices."""
    one = torch.ones((size, size), dtype=torch.bfloat16, device=device.torch)
    torch.mm(one, one)
    _wait(device)
    began = time.perf_counter()
    for _ in range(rounds):
        torch.mm(one, one)
    _wait(device)
    return rounds * 2.0 * size**3 / (time.perf_counter() - began)


# --- equality ---------------------------------------------------------------------------------------------------------


def check(chip_set: ChipSet, recipe: Recipe, device: Device) -> Agreement:
    """Compare the device with the CPU, and a resumed training with an uninterrupted one."""
    on_cpu, on_device = (
        Batches(chip_set, list(chip_set.chips), recipe, device=where).make(0)
        for where in (torch.device("cpu"), device.torch)
    )
    return Agreement(
        recipe=recipe.name,
        waits_between_reads=count_waits(chip_set, recipe, device),
        batch_difference=float((on_cpu.x - on_device.x.cpu()).abs().max()),
        labels_equal=torch.equal(on_cpu.label, on_device.label.cpu()),
        resumed_equal=is_resume_exact(chip_set, recipe, device),
        fp32_difference=_probability_difference(chip_set, recipe, choose_device(device.kind, "fp32")),
        bf16_difference=_probability_difference(chip_set, recipe, choose_device(device.kind, "bf16")),
    )


def count_waits(chip_set: ChipSet, recipe: Recipe, device: Device) -> int:
    """Count the operations of a step, its batch included, that make the host wait for the GPU; 0 on a CPU."""
    trainer = make_trainer(chip_set, recipe, device)
    _take_steps(trainer, 1)  # reads its loss, and fills what is kept
    if device.kind == "cpu":
        return 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trainer.train_step(trainer.batches.make(1))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def is_resume_exact(chip_set: ChipSet, recipe: Recipe, device: Device) -> bool:
    """Return whether four steps, their state loaded, and four more end with the bits of eight steps."""
    whole, first, second = (make_trainer(chip_set, recipe, device) for _ in range(3))
    _take_steps(whole, 8)
    _take_steps(first, 4)
    second.load_state(first.state())
    _take_steps(second, 4)
    expected = whole.state().tensors
    return all(torch.equal(tensor, expected[name]) for name, tensor in second.state().tensors.items())


def _probability_difference(chip_set: ChipSet, recipe: Recipe, device: Device) -> float:
    torch.manual_seed(0)
    net = build_model(recipe.model).eval()
    loaded = LoadedModel(net, describe_net(recipe, net))
    dn = np.stack([chip_set.pixels(chip) for chip in chip_set.chips[:4]])
    on_cpu, on_device = (
        TorchPredictor(loaded, where).probability(dn, observed(dn)) for where in (choose_device("cpu", "fp32"), device)
    )
    return float(np.abs(on_cpu - on_device).max())


# --- what is measured with --------------------------------------------------------------------------------------------


@contextmanager
def open_tiles(folder: Path, recipe: Recipe, count: int) -> Iterator[ChipSet]:
    """Yield the chips of synthetic tiles, cut for a recipe; tiles are made and ingested once."""
    store, catalog = open_world(folder)
    if not (folder / "tiles").exists():
        make_tiles(folder / "tiles", count=count, size=recipe.data.chip_size, unlabeled=0)
        ingest_source(store, catalog, str(folder / "tiles"), limits=DecodeLimits(), workers=usable_cpus())
    snapshot_id = build_snapshot(store, catalog, recipe).snapshot_id
    with catalog.read() as db:
        snapshot = training_rows.get_snapshot(db, snapshot_id)
    with open_chips(store, snapshot) as chip_set:
        yield chip_set


def make_trainer(chip_set: ChipSet, recipe: Recipe, device: Device) -> Trainer:
    """Return a trainer at its beginning that trains on all chips."""
    data = TrainingData(chip_set, train=list(chip_set.chips), validation=[])
    return Trainer(recipe, data, DistributedContext(0, 1, device), TrainingProgress(0, 10_000, 10_000))


def with_batch(recipe: Recipe, batch_size: int) -> Recipe:
    """Return the recipe with another batch size."""
    values = recipe.model_dump()
    return recipe_from({**values, "budget": {**values["budget"], "batch_size": batch_size}}, subject=recipe.name)


def _take_steps(trainer: Trainer, count: int) -> None:
    for _ in range(count):
        trainer.train_step(trainer.batches.make(trainer.progress.step))
    trainer.read_losses()


def _wait(device: Device) -> None:
    if device.kind == "cuda":
        torch.cuda.synchronize(device.torch)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
