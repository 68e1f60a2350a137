"""How long a backup and its restore take, and what a home holds.

`python -m benchmarks.restore [--scenes N] [--size N]`.

Synthetic scenes go through ingest, one short training and prediction; then come a backup, a second one that shares the
files of the first, and the rehearsal of a restore, which compares every object. Everything is in a temporary folder.
`make restore-rehearsal` runs it in the size of the demo.
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloudseg import stages
from cloudseg.raster.synthetic import make_tiles
from cloudseg.runtime import open_runtime

_MEGA = 1e6


def main() -> None:
    """Parse the command line, run and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=28, help="Scenes, all but four of them labeled.")
    parser.add_argument("--size", type=int, default=512, help="Rows and columns of each.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cloudseg-restore-") as folder:
        for line in measure(Path(folder), arguments.scenes, arguments.size):
            print(line)


def measure(folder: Path, scenes: int, size: int) -> list[str]:
    """Fill a home, back it up twice, rehearse the restore; return the tables as lines of Markdown."""
    os.environ |= {"CLOUDSEG_HOME": str(folder / "home"), "CLOUDSEG_BACKUP_FOLDER": str(folder / "copies")}
    (folder / "copies").mkdir()
    logging.disable(logging.INFO)
    _fill(folder / "tiles", scenes, size)
    first, first_s = _timed(lambda: stages.dated_backup("2026-11-01"))
    second, second_s = _timed(lambda: stages.dated_backup("2026-11-02"))
    rehearsed = stages.rehearse_restore("2026-11-02")
    moved = rehearsed["bytes"] / _MEGA / max(rehearsed["restore_s"], 0.1)
    return [
        f"{scenes} scenes of {size} x {size}: {rehearsed['objects']} objects, {rehearsed['bytes'] / _MEGA:.1f} MB, "
        f"{rehearsed['rows']} rows",
        "",
        "| step | seconds | objects copied |",
        "|---|---|---|",
        f"| first backup | {first_s:.1f} | {first['objects_copied']} |",
        f"| second backup, nothing new | {second_s:.1f} | {second['objects_copied']} |",
        f"| restore | {rehearsed['restore_s']} ({moved:.0f} MB/s) | {rehearsed['objects']} |",
        f"| comparing every object | {rehearsed['verify_s']} | |",
        "",
        "| prefix | objects | MB | kB each |",
        "|---|---|---|---|",
        *_sizes(),
    ]


def _fill(tiles: Path, scenes: int, size: int) -> None:
    make_tiles(tiles, count=scenes - 4, size=size, unlabeled=4)
    stages.ingest(str(tiles))
    verdict = stages.retrain("smoke").promote
    if verdict is not None and not verdict.promoted:
        stages.promote(verdict.challenger_id, force=True, reason="benchmark", actor="benchmark")
    stages.predict(new=True)


def _timed(step: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    return step(), time.monotonic() - began


def _sizes() -> list[str]:
    store, found = open_runtime().store, dict[str, list[int]]()
    for prefix in ("scenes/", "labels/", "shards/", "models/", "evaluations/", "masks/", "stac/"):
        found[prefix] = [entry.size for entry in store.list_objects(prefix)]
    return [
        f"| `{prefix}` | {len(sizes)} | {sum(sizes) / _MEGA:.1f} | {sum(sizes) / 1e3 / max(len(sizes), 1):.0f} |"
        for prefix, sizes in found.items()
    ]


if __name__ == "__main__":
    main()
