"""Run every pipeline step once undisturbed, then kill a step at each of its commit points and let it recover."""

import json
import multiprocessing
import os
import re
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
from tests.faults.commit_points import read_trace
from tests.faults.service_state import ServiceState

_TIMEOUT_S = 600
_STAC = " stac/"
_MONTH = re.compile(r"/(\d{4}-\d\d|undated)/")
# Starting a process also polls all others; two threads that poll the same one race, and one reads status 255.
_POLL_LOCK = threading.Lock()
_SETTINGS = {"CLOUDSEG_THREADS": "1", "CLOUDSEG_DEVICE": "cpu", "CLOUDSEG_LOG_LEVEL": "WARNING"}
# Expensive imports of the steps; none of them starts a thread or keeps a file open.
_PRELOAD = [
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
    """A commit point at which a step was killed, and the outcome."""

    step: str
    number: int
    point: str
    orphans: int
    collected: int
    violations: list[str]


@dataclass
class Scenario:
    """The states before each step of one undisturbed pipeline run, and its results."""

    folder: Path
    states: dict[str, ServiceState] = field(default_factory=dict)
    """By step: the service's state at its start."""
    ids: dict[str, steps.Ids] = field(default_factory=dict)
    contents: dict[str, Any] = field(default_factory=dict)
    """By step: ids, rows and objects at its end; by "before STEP": rows and objects at its start."""
    points: dict[str, list[str]] = field(default_factory=dict)


def run_undisturbed(folder: Path, empty: ServiceState, ids: steps.Ids) -> Scenario:
    """Run every step once, undisturbed; keep a copy of the state before each."""
    scenario, state = Scenario(folder), empty
    contents: Any = {"rows": {"label": [], "promotion": []}, "objects": {}}
    for step in (each.__name__ for each in steps.STEPS):
        scenario.states[step], scenario.ids[step], scenario.contents[f"before {step}"] = state, ids, contents
        state = state.copy(folder / f"after-{step}")
        work = folder / f"undisturbed-{step}"
        status = _run(child.run_step, state, work, step, ids, None)
        if status != 0:
            raise RuntimeError(f"{step} undisturbed ended with {status}: {_output(work)}")
        scenario.contents[step] = json.loads((work / "after.json").read_text())
        scenario.points[step] = read_trace(work / "trace")
        ids, contents = scenario.contents[step]["ids"], scenario.contents[step]["contents"]
    return scenario


def kill_everywhere(scenario: Scenario, step: str) -> list[Kill]:
    """Kill a step at each of its commit points, each time from the same state, and let it recover.

    Of the documents of the static STAC catalog only some, see `numbers_to_kill`. One kill per CPU runs at a time.
    """
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        numbers = spread(numbers_to_kill(scenario.points[step]), int(os.environ.get("FAULT_KILLS") or 0))
        return list(threads.map(lambda number: _kill(scenario, step, number), numbers))


def numbers_to_kill(points: list[str]) -> list[int]:
    """Return which commit points of a step are worth a kill, from 1 on.

    All, but of the documents of the static STAC catalog only the first, and the last of each kind (item, index and list
    of a month, collection, root): the months before are written then. `tests/stac/test_static.py` kills a publisher
    before every single document, in milliseconds.
    """
    kinds = [_MONTH.sub("/*/", point) if _STAC in point else f"{at} {point}" for at, point in enumerate(points)]
    first = next((at for at, point in enumerate(points) if _STAC in point), None)
    return [at + 1 for at, kind in enumerate(kinds) if at == first or kind not in kinds[at + 1 :]]


def spread(numbers: list[int], most: int) -> list[int]:
    """Return at most so many of the commit points, evenly spaced; 0: all."""
    if most == 0 or len(numbers) <= most:
        return numbers
    return [numbers[(2 * at + 1) * len(numbers) // (2 * most)] for at in range(most)]


def _kill(scenario: Scenario, step: str, number: int) -> Kill:
    work = scenario.folder / f"{step}-{number}"
    work.mkdir()
    state = scenario.states[step].copy(work / "state")
    try:
        status = _run(child.run_step, state, work, step, scenario.ids[step], number)
        point = scenario.points[step][number - 1]
        if status != -signal.SIGKILL:
            return Kill(step, number, point, 0, 0, [f"exit status {status} instead of a kill: {_output(work)}"])
        passed = read_trace(work / "trace")
        if passed != scenario.points[step][:number]:
            return Kill(step, number, point, 0, 0, [f"other commit points than undisturbed: {passed}"])
        before, expected = scenario.contents[f"before {step}"], scenario.contents[step]
        expected = {"ids": expected["ids"], **expected["contents"]}
        status = _run(child.recover, state, work, step, scenario.ids[step], before, expected)
        if status != 0:
            return Kill(step, number, point, 0, 0, [f"recovery: exit status {status}: {_output(work)}"])
        outcome = json.loads((work / "outcome.json").read_text())
        return Kill(step, number, point, outcome["orphans"], outcome["collected"], outcome["violations"])
    finally:
        state.drop()
        shutil.rmtree(work)


def _output(work: Path) -> str:
    return (work / "output.log").read_text()[-3000:]


def _run(target: Any, state: ServiceState, work: Path, *more: Any) -> int | None:
    """Call a function of `child` in a new process and return its exit status; a negative one is the signal."""
    process = _context().Process(target=target, args=({**_SETTINGS, **state.environment}, str(work), *more))
    with _POLL_LOCK:
        process.start()
    if not wait([process.sentinel], _TIMEOUT_S):
        os.kill(process.pid or 0, signal.SIGTERM)
        wait([process.sentinel])
    with _POLL_LOCK:
        process.join()
    return process.exitcode


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context
