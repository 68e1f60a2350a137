"""All benchmarks as one table.

`python -m benchmarks.run [--only NAME] [--data FOLDER] [--weights NAME] [--turns N] [--json FILE] [--full-scene]`.

Every comparison runs its sides in alternating turns on the same tiles (see `benchmarks.harness`). On a busy machine
times are rough, ratios less so. Peers need `make peers` once; without their environments nothing is measured and the
status is 1.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import ingest, peers, train_step, world
from benchmarks.harness import Figures, Side, compare
from benchmarks.peer_environments import PEERS
from cloudseg.errors import CloudsegError

NAMES = ("ingest", "train", "predict-net", "predict-nightly", "predict-scene", "peers")


@dataclass(frozen=True)
class Benchmark:
    """One comparison and its goal."""

    name: str
    sides: Sequence[Side]
    """The first is the naive one, to which all others are compared."""
    goal: float | None
    """Ratio to reach on two cores; None if the ratio is meaningless."""
    prepare: Callable[[Path], None] | None = None
    iou: Callable[[Path], dict[str, float | None]] | None = None
    notes: Sequence[str] = field(default_factory=tuple)


def benchmarks(names: Sequence[str], weights: str | None = None) -> list[Benchmark]:
    """Return the comparisons of these names.

    Args:
        names: of `NAMES`.
        weights: of the comparison with peers, as `cloudseg.load` takes them; None: random parameters.

    Raises:
        StateError: the environment of a peer is missing.
    """
    every: dict[str, Callable[[], Benchmark]] = {
        "ingest": lambda: Benchmark("ingest", _own("benchmarks.ingest", "naive", "cloudseg"), None),
        "train": lambda: Benchmark(
            "train", _own("benchmarks.train_step", "naive", "cloudseg"), 1.7, train_step.prepare
        ),
        "predict-net": lambda: Benchmark(
            "predict-net", _own("benchmarks.predict", "naive_net", "cloudseg_net", "cloudseg_net_float"), 3.0
        ),
        "predict-nightly": lambda: Benchmark(
            "predict-nightly", _own("benchmarks.predict", "naive_nightly", "cloudseg_nightly"), 3.0
        ),
        "predict-scene": lambda: Benchmark(
            "predict-scene", _own("benchmarks.predict", "naive_scene", "cloudseg_scene"), 3.0
        ),
        "peers": lambda: _peers(weights),
    }
    return [every[name]() for name in names]


def _own(module: str, *names: str) -> list[Side]:
    return [Side(name, module) for name in names]


def _peers(weights: str | None) -> Benchmark:
    ours = f"peers: naive and cloudseg use {'random parameters (--weights FILE)' if weights is None else weights}"
    notes = [ours, *(f"peers: {peer.name} {peer.version} ({peer.license}) gets {peer.fed}" for peer in PEERS)]
    prepare = partial(peers.prepare, weights=weights)
    return Benchmark("peers", peers.sides(), None, prepare, peers.intersections, notes)


def main() -> int:
    """Parse the command line, run and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=NAMES, help="may be repeated")
    parser.add_argument("--data", type=Path, help="folder with images/ and labels/ instead of synthetic tiles")
    parser.add_argument(
        "--weights", help="for the comparison with peers: weights file, or a name of cloudseg.load; default: random"
    )
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
        # Before anything is measured: a missing peer is found now.
        chosen = benchmarks(options.only or NAMES, options.weights)
        found = _run(folder, options.data, chosen, options.turns)
    except CloudsegError as error:
        print(error, file=sys.stderr)
        return 1
    else:
        if options.json:
            options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
        if options.full_scene:
            subprocess.run([sys.executable, "-m", "benchmarks.memory", str(folder), "10980", "nightly"], check=True)
        return 0
    finally:
        shutil.rmtree(folder)


def _run(
    folder: Path, data: Path | None, chosen: Sequence[Benchmark], turns: int
) -> dict[str, list[dict[str, object]]]:
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(f"{'synthetic tiles' if data is None else data}, {world.usable_cpus()} CPUs, {world.cpu().reason}")
    world.fill_world(folder, data)
    (folder / ingest.SOURCE_NOTE).write_text(str((data or folder / "tiles").absolute()), encoding="utf-8")
    table, found = _table(), {}
    for benchmark in chosen:
        if benchmark.prepare is not None:
            benchmark.prepare(folder)
        sides = compare(benchmark.sides, folder, turns=turns)
        iou = benchmark.iou(folder) if benchmark.iou is not None else {}
        _add_rows(table, benchmark, sides, iou)
        found[benchmark.name] = [asdict(side) | {"iou": iou.get(side.side)} for side in sides]
    console.print(table)
    for line in (note for benchmark in chosen for note in benchmark.notes):
        console.print(line, markup=False, highlight=False)
    return found


def _table() -> Table:
    columns = ("images/s", "Mpx/s", "s per image, turns", "CPU s", "peak MiB", "ratio", "by CPU", "goal", "IoU")
    return Table("benchmark", "side", *columns)


def _add_rows(table: Table, benchmark: Benchmark, sides: Sequence[Figures], iou: dict[str, float | None]) -> None:
    naive = sides[0]
    for side in sides:
        figures = [
            f"{side.images_per_s:.2f}",
            f"{side.megapixels_per_s:.3f}",
            " ".join(f"{seconds:.3f}" for seconds in side.turns),
            f"{side.cpu_s_per_image:.3f}",
            f"{side.peak_mib:.0f}",
        ]
        scored = iou.get(side.side)
        last = "" if scored is None else f"{scored:.3f}"
        if side is naive:
            table.add_row(benchmark.name, side.side, *figures, "", "", "", last)
            continue
        clock, cpu = side.images_per_s / naive.images_per_s, naive.cpu_s_per_image / side.cpu_s_per_image
        goal = f"x {benchmark.goal}" if benchmark.goal else ""
        table.add_row("", side.side, *figures, f"x {clock:.2f}", f"x {cpu:.2f}", goal, last)


if __name__ == "__main__":
    sys.exit(main())
