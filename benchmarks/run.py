"""All benchmarks as one table.

`python -m benchmarks.run [--only NAME] [--data FOLDER] [--turns N] [--json FILE] [--full-scene]`.

Every comparison runs its sides in alternating turns on the same tiles (see `benchmarks.harness`). On a busy machine
times are rough, ratios less so.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import ingest, predict, train_step, world
from benchmarks.harness import Figures, compare


@dataclass(frozen=True)
class Benchmark:
    """One comparison and its goal."""

    name: str
    module: str
    sides: list[str]
    """The first is the naive one, to which all others are compared."""
    goal: float | None
    """Ratio to reach on two cores; None if the ratio is meaningless."""
    prepare: Callable[[Path], None] | None = None


def benchmarks() -> list[Benchmark]:
    """Return the comparisons; installed peers are further sides."""
    return [
        Benchmark("ingest", "benchmarks.ingest", ["naive", "cloudseg"], None),
        Benchmark("train", "benchmarks.train_step", ["naive", "cloudseg"], 1.7, train_step.prepare),
        Benchmark(
            "predict-net",
            "benchmarks.predict",
            ["naive_net", "cloudseg_net", "cloudseg_net_float", *predict.peers()[0]],
            3.0,
        ),
        Benchmark("predict-nightly", "benchmarks.predict", ["naive_nightly", "cloudseg_nightly"], 3.0),
        Benchmark("predict-scene", "benchmarks.predict", ["naive_scene", "cloudseg_scene"], 3.0),
    ]


def main() -> None:
    """Parse the command line, run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        action="append",
        choices=[benchmark.name for benchmark in benchmarks()],
        help="may be repeated",
    )
    parser.add_argument("--data", type=Path, help="folder with images/ and labels/ instead of synthetic tiles")
    parser.add_argument(
        "--turns", type=int, default=3, help="turns of each side after the one that warms up (default 3)"
    )
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument(
        "--full-scene", action="store_true", help="also mask 10 980 x 10 980 pixels and print its peak memory (minutes)"
    )
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cloudseg-benchmarks-"))
    try:
        found = _run(folder, options.data, options.only, options.turns)
        if options.json:
            options.json.write_text(
                json.dumps({name: [asdict(side) for side in sides] for name, sides in found.items()}, indent=1)
            )
        if options.full_scene:
            subprocess.run([sys.executable, "-m", "benchmarks.memory", str(folder), "10980", "nightly"], check=True)
    finally:
        shutil.rmtree(folder)


def _run(folder: Path, data: Path | None, only: list[str] | None, turns: int) -> dict[str, list[Figures]]:
    console = Console(width=None if sys.stdout.isatty() else 140)
    chosen = [benchmark for benchmark in benchmarks() if only is None or benchmark.name in only]
    console.print(f"{'synthetic tiles' if data is None else data}, {world.usable_cpus()} CPUs, {world.cpu().reason}")
    world.fill_world(folder, data)
    (folder / ingest.SOURCE_NOTE).write_text(str((data or folder / "tiles").absolute()), encoding="utf-8")
    found = {}
    for benchmark in chosen:
        if benchmark.prepare is not None:
            benchmark.prepare(folder)
        found[benchmark.name] = compare(benchmark.module, benchmark.sides, folder, turns=turns)
    console.print(_table(chosen, found))
    for line in predict.peers()[1]:
        console.print(line, markup=False)
    return found


def _table(chosen: list[Benchmark], found: dict[str, list[Figures]]) -> Table:
    table = Table(
        "benchmark", "side", "images/s", "Mpx/s", "s per image, turns", "CPU s", "peak MiB", "ratio", "by CPU", "goal"
    )
    for benchmark in chosen:
        naive, *_ = found[benchmark.name]
        for side in found[benchmark.name]:
            turns = " ".join(f"{seconds:.3f}" for seconds in side.turns)
            figures = [
                f"{side.images_per_s:.2f}",
                f"{side.megapixels_per_s:.3f}",
                turns,
                f"{side.cpu_s_per_image:.3f}",
                f"{side.peak_mib:.0f}",
            ]
            if side is naive:
                table.add_row(benchmark.name, side.side, *figures)
                continue
            clock, cpu = side.images_per_s / naive.images_per_s, naive.cpu_s_per_image / side.cpu_s_per_image
            goal = f"x {benchmark.goal}" if benchmark.goal else ""
            table.add_row("", side.side, *figures, f"x {clock:.2f}", f"x {cpu:.2f}", goal)
    return table


if __name__ == "__main__":
    main()
