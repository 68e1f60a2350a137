"""Turns the circle once undisturbed, keeping each state.

Then kills a step at each of its points and lets it recover.
"""

import json
import multiprocessing
import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from tests.faults import child, steps
from tests.faults.home import Home
from tests.faults.points import read_trace

_LONGEST_S = 600
# Every start of a process also asks all others for their status; two threads that ask for the same one tear it (it
# reads 255).
_ONE_ASKS = threading.Lock()
_SETTINGS = {"CLOUDSEG_THREADS": "1", "CLOUDSEG_DEVICE": "cpu", "CLOUDSEG_LOG_LEVEL": "WARNING"}
# Everything heavy that a step imports; none of it starts a thread or opens a file that stays open.
_PRELOADED = [
    "onnx",
    "onnxruntime",
    "boto3",
    "botocore.httpsession",
    "sqlalchemy.dialects.postgresql.psycopg",
    "cloudseg.storage.s3",
    "cloudseg.train",
    "cloudseg.evaluate.gate",
    "cloudseg.predict",
    "cloudseg.ingest",
    "tests.faults.child",
]


@dataclass(frozen=True)
class Kill:
    """A point at which a step was killed, and what came of it."""

    step: str
    number: int
    point: str
    orphans: int
    collected: int
    faults: list[str]


@dataclass
class Way:
    """The states of one undisturbed turn of the circle."""

    folder: Path
    states: dict[str, Home] = field(default_factory=dict)
    """By step: the state that it began with."""
    ids: dict[str, steps.Ids] = field(default_factory=dict)
    looks: dict[str, Any] = field(default_factory=dict)
    """By step: ids, rows and objects at its end; "before" each: those at its beginning."""
    points: dict[str, list[str]] = field(default_factory=dict)


def turn(folder: Path, empty: Home, ids: steps.Ids) -> Way:
    """Do every step once, undisturbed; keep a copy of the state before each."""
    way, home = Way(folder), empty
    look: Any = {"rows": {"label": [], "promotion": []}, "objects": {}}
    for step in (each.__name__ for each in steps.WAY):
        way.states[step], way.ids[step], way.looks[f"before {step}"] = home, ids, look
        home = home.copy(folder / f"after-{step}")
        place = folder / f"undisturbed-{step}"
        status = _run(child.run_step, home, place, step, ids, None)
        if status != 0:
            raise RuntimeError(f"{step} undisturbed ended with {status}: {(place / 'said').read_text()[-4000:]}")
        way.looks[step] = json.loads((place / "after.json").read_text())
        way.points[step] = read_trace(place / "trace")
        ids, look = way.looks[step]["ids"], way.looks[step]["look"]
    return way


def kill_everywhere(way: Way, step: str) -> list[Kill]:
    """Kill a step at each of its points, each time from the same state, and let it recover.

    As many at once as there are CPUs.
    """
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        return list(threads.map(lambda number: _kill(way, step, number), range(1, len(way.points[step]) + 1)))


def _kill(way: Way, step: str, number: int) -> Kill:
    place = way.folder / f"{step}-{number}"
    place.mkdir()
    home = way.states[step].copy(place / "home")
    try:
        status = _run(child.run_step, home, place, step, way.ids[step], number)
        point = way.points[step][number - 1]
        if status != -signal.SIGKILL:
            return Kill(step, number, point, 0, 0, [f"it ended with {status} instead of being killed: {_said(place)}"])
        passed = read_trace(place / "trace")
        if passed != way.points[step][:number]:
            return Kill(step, number, point, 0, 0, [f"it took another way: {passed}"])
        before, expected = way.looks[f"before {step}"], way.looks[step]
        expected = {"ids": expected["ids"], **expected["look"]}
        status = _run(child.recover, home, place, step, way.ids[step], before, expected)
        if status != 0:
            return Kill(step, number, point, 0, 0, [f"the recovery ended with {status}: {_said(place)}"])
        outcome = json.loads((place / "outcome.json").read_text())
        return Kill(step, number, point, outcome["orphans"], outcome["collected"], outcome["faults"])
    finally:
        home.drop()
        shutil.rmtree(place)


def _said(place: Path) -> str:
    return (place / "said").read_text()[-3000:]


def _run(target: Any, home: Home, place: Path, *more: Any) -> int | None:
    """Call a function of `child` in a process of its own and return its exit status.

    Negative: killed by that signal.
    """
    process = _context().Process(target=target, args=({**_SETTINGS, **home.environment}, str(place), *more))
    with _ONE_ASKS:
        process.start()
    if not wait([process.sentinel], _LONGEST_S):
        os.kill(process.pid or 0, signal.SIGTERM)
        wait([process.sentinel])
    with _ONE_ASKS:
        process.join()
    return process.exitcode


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context
