"""Ingest, snapshot and one epoch of `baseline_4200` on a made folder in 38-Cloud's layout, at two sizes.

`python -m benchmarks.scale_4200 [--patches 4200] [--steps N] [--folder FOLDER]`. Made are `--patches` labeled patches
of 384 x 384 pixels of 18 Landsat scenes, uncompressed as published (1.3 MB each), and a quarter as many; each size has
a home of its own. Printed for each stage are seconds, CPU seconds, peak memory and the disk that it added, then by how
much it grew against the data: 1.0 is as the data. With `--steps` fewer steps than an epoch are taken, and the epoch
is extrapolated from them and printed as such; with `--steps 0` nothing is trained.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
from rich.console import Console
from rich.table import Table

from cloudseg.bands import LANDSAT_L1, REFLECTANCE_SCALE
from cloudseg.dataset import split_of
from cloudseg.raster.synthetic import make_tiles
from cloudseg.recipe import load_recipe

SIDE: Final = 384
_BASE: Final = 24
"""Synthetic patches that all others are made of: mirrored, rolled, with new noise."""
_SCENES: Final = 18
"""Scenes of the training part of 38-Cloud, each a place of the split."""
_COLUMNS: Final = 21
_BANDS: Final = ("red", "green", "blue", "nir")
_EPOCHS: Final = 9
"""Of the origin's second training."""
Pixels = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Measured:
    """What a stage took."""

    stage: str
    seconds: float
    cpu_seconds: float
    """Of the process and its finished children."""
    peak_mib: float
    """Of the largest of these processes."""
    disk_mib: float
    """Added to the home."""


def make_folder(folder: Path, patches: int) -> int:
    """Write labeled patches in 38-Cloud's layout; return their bytes. The same number gives the same bytes."""
    with tempfile.TemporaryDirectory(prefix="cloudseg-base-") as made:
        base = list(_read_base(Path(made), min(_BASE, patches)))
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(patches):
        dn, label = _vary(*base[number % len(base)], number)
        scene, of_scene = number % _SCENES, number // _SCENES
        name = f"patch_{of_scene + 1}_{of_scene // _COLUMNS + 1}_by_{of_scene % _COLUMNS + 1}_{_scene_id(scene)}.TIF"
        for band, plane in zip(_BANDS, dn, strict=True):
            _write(folder / f"train_{band}" / f"{band}_{name}", plane)
        _write(folder / "train_gt" / f"gt_{name}", label)
    return _bytes_in(folder)


def _scene_id(scene: int) -> str:
    """Return a product id whose path and row are in a certain split: of every six four train, one of each other."""
    split = (*["train"] * 4, "validation", "held_out")[scene % 6]
    of_split = (f"{path:03d}030" for path in range(1, 234) if split_of(f"wrs2:{path:03d}030") == split)
    path_row = next(islice(of_split, scene, None))
    return f"LC08_L1TP_{path_row}_201604{scene + 1:02d}_20170223_01_T1"


def _read_base(folder: Path, count: int) -> Iterator[tuple[Pixels, npt.NDArray[np.uint8]]]:
    """Yield Landsat Level-1 numbers `(band, row, col)` and labels 0, 255."""
    for path in make_tiles(folder, count=count, size=SIDE, unlabeled=0):
        with rasterio.open(path) as dataset:
            reflectance = dataset.read().astype(np.float32) / REFLECTANCE_SCALE
        with rasterio.open(folder / "labels" / path.name) as dataset:
            label = np.where(dataset.read(1) == 1, np.uint8(255), np.uint8(0))
        dn = np.rint((reflectance - LANDSAT_L1.offset) / LANDSAT_L1.scale)
        yield np.clip(dn, 1, 65_535).astype(np.uint16), label


def _vary(dn: Pixels, label: npt.NDArray[np.uint8], number: int) -> tuple[Pixels, npt.NDArray[np.uint8]]:
    """Return another patch of the same kind: no two have the same bytes, because ingest adds no content twice."""
    rng = np.random.default_rng(number)
    shift = tuple(int(step) for step in rng.integers(0, SIDE, 2))
    turned, marked = np.roll(dn, shift, axis=(-2, -1)), np.roll(label, shift, axis=(-2, -1))
    noise = rng.integers(0, 60, turned.shape, dtype=np.uint16)
    return np.minimum(turned, 65_000) + noise, marked


def _write(path: Path, plane: npt.NDArray[Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    profile = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": 1, "dtype": plane.dtype}
    with rasterio.open(path, "w", **profile) as out:
        out.write(plane, 1)


def measure(name: str, home: Path, command: list[str]) -> tuple[Measured, dict[str, Any]]:
    """Run a command of cloudseg in a process of its own; return what it took and its record.

    Raises:
        CalledProcessError: it failed.
    """
    before, began = _bytes_in(home), time.perf_counter()
    environment = os.environ | {"CLOUDSEG_HOME": str(home)}
    full = [sys.executable, "-m", "cloudseg", *command, "--json"]
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(full, env=environment, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        out.seek(0)
        printed = out.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, full, printed)
    added = (_bytes_in(home) - before) / 2**20
    cpu = usage.ru_utime + usage.ru_stime
    return Measured(name, seconds, cpu, usage.ru_maxrss / 1024, added), json.loads(printed)


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run_size(folder: Path, patches: int, steps: int | None) -> list[Measured]:
    """Make a folder, then ingest, snapshot and train; return the stages, the whole epoch as the last one."""
    source, home = folder / f"patches_{patches}", folder / f"home_{patches}"
    home.mkdir(parents=True)
    size = make_folder(source, patches)
    print(f"{patches} patches: {size / 2**20:.0f} MiB made", file=sys.stderr, flush=True)
    recipe = folder / f"recipe_{patches}.toml"
    recipe.write_text(_recipe(steps), encoding="utf-8")
    ingest, record = measure("ingest", home, ["ingest", str(source), "--layout", "38cloud"])
    if len(record["labelled"]) != patches:
        raise RuntimeError(f"{len(record['labelled'])} labels of {patches} patches were ingested: {record}")
    shutil.rmtree(source)
    snapshot, cut = measure("snapshot", home, ["snapshot", "--recipe", str(recipe)])
    if steps == 0:
        return [ingest, snapshot]
    train, trained = measure("train", home, ["train", cut["snapshot_id"], "--recipe", str(recipe)])
    chips, pace, taken = cut["counts"]["train"]["chips"], trained["images_per_s"], trained["steps"]
    whole = -(-chips // load_recipe(str(recipe)).budget.batch_size)
    how = "measured" if taken >= whole else f"extrapolated from {taken} of {whole} steps"
    words = f"{chips} training chips at {pace:.2f} chips/s: {chips / pace:.0f} s an epoch, {how}; "
    print(f"{patches} patches: {words}{_EPOCHS} epochs {_EPOCHS * chips / pace / 3600:.1f} h, extrapolated", flush=True)
    return [ingest, snapshot, replace(train, stage=f"train, {taken} steps")]


def _recipe(steps: int | None) -> str:
    text = (resources.files("cloudseg.recipes") / "baseline_4200.toml").read_text(encoding="utf-8")
    budget = "epochs = 1" if not steps else f"epochs = 1\nsteps = {steps}"
    return text.replace(f"epochs = {_EPOCHS}", budget)


def _table(sizes: dict[int, list[Measured]]) -> Table:
    columns = ("seconds", "CPU s", "peak MiB", "disk MiB", "CPU ms per patch", "growth against the data")
    table = Table("patches", "stage", *columns)
    (small, first), *_ = sizes.items()
    for patches, stages in sizes.items():
        for before, one in zip(first, stages, strict=True):
            growth = "" if patches == small else f"{(one.cpu_seconds / patches) / (before.cpu_seconds / small):.2f}"
            figures = (f"{one.seconds:.1f}", f"{one.cpu_seconds:.1f}", f"{one.peak_mib:.0f}", f"{one.disk_mib:.0f}")
            table.add_row(str(patches), one.stage, *figures, f"{1000 * one.cpu_seconds / patches:.1f}", growth)
        table.add_section()
    return table


def main() -> None:
    """Parse the command line, measure both sizes and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=4200, help="of the larger size (default 4200)")
    parser.add_argument("--steps", type=int, help="steps of the training instead of an epoch; 0: none")
    parser.add_argument("--folder", type=Path, help="where to work, by default in the temporary folder")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cloudseg-scale-", dir=options.folder))
    try:
        small = options.patches // 4
        sizes = {patches: run_size(folder, patches, options.steps) for patches in (small, options.patches)}
    finally:
        shutil.rmtree(folder)
    Console(width=None if sys.stdout.isatty() else 140).print(_table(sizes))


if __name__ == "__main__":
    main()
