"""Compare implementations ("sides") of the same work, each in a separate clean process, in alternating turns.

Turns alternate (A B A B ...), so that a machine that becomes slower slows all sides; the result is the median of a
side's turns. Each side is a child process with a minimal environment, so that an allocator or thread setting of the
caller affects none. Only the standard library is imported here: peers' interpreters have nothing else of this project.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

_KEPT = {"PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "CLOUDSEG_HOME"}
"""Variables that sides inherit; the last one names the home of the weights of `--weights`."""


@dataclass(frozen=True)
class Work:
    """What one turn did."""

    images: int
    megapixels: float
    seconds: float
    cpu_seconds: float
    """User and system time of the process and its finished children: steadier than wall clock on a busy machine."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison: `python -m <module> <name> <folder>`."""

    name: str
    module: str
    python: str = sys.executable
    """The interpreter: that of a peer's own environment, or this one."""


@dataclass(frozen=True)
class Figures:
    """Result of one side of a comparison."""

    side: str
    images_per_s: float
    megapixels_per_s: float
    peak_mib: float
    """Peak resident memory of the side's process or of its largest child, whichever is larger."""
    cpu_s_per_image: float
    turns: list[float]
    """Seconds per image of each turn, without the first one, which warms up."""


Turn = Callable[[int], Work]


def stopwatch(work: Callable[[], tuple[int, float]]) -> Work:
    """Time a function that returns images and megapixels."""
    began, cpu = time.perf_counter(), _cpu_seconds()
    images, megapixels = work()
    return Work(images, megapixels, time.perf_counter() - began, _cpu_seconds() - cpu)


def serve(turn: Turn) -> None:
    """Run a side: for each line on stdin do one turn and print one line of JSON."""
    for number, _ in enumerate(sys.stdin):
        work = turn(number)
        print(json.dumps(asdict(work) | {"peak_mib": _peak_mib()}), flush=True)


def compare(sides: Sequence[Side], folder: Path, *, turns: int) -> list[Figures]:
    """Run the sides in alternating turns, after one turn each to warm up.

    Raises:
        RuntimeError: a side ended; its error is on stderr.
    """
    with ExitStack() as stack:
        running = {side.name: stack.enter_context(_started(side, folder)) for side in sides}
        answers: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
        for _ in range(turns + 1):
            for side, process in running.items():
                answers[side].append(_ask(process, side))
    return [_figures(side, found) for side, found in answers.items()]


def _figures(side: str, answers: list[dict[str, float]]) -> Figures:
    counted = answers[1:]
    per_image = statistics.median(answer["seconds"] / answer["images"] for answer in counted)
    per_megapixel = statistics.median(answer["seconds"] / answer["megapixels"] for answer in counted)
    peak = max(answer["peak_mib"] for answer in answers)
    cpu = statistics.median(answer["cpu_seconds"] / answer["images"] for answer in counted)
    return Figures(
        side, 1 / per_image, 1 / per_megapixel, peak, cpu, [answer["seconds"] / answer["images"] for answer in counted]
    )


@contextmanager
def _started(side: Side, folder: Path) -> Iterator[subprocess.Popen[str]]:
    kept = {name: value for name, value in os.environ.items() if name in _KEPT}
    command = [side.python, "-m", side.module, side.name, str(folder)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=kept, cwd=Path(__file__).parents[1]
    )
    try:
        yield process
    finally:
        _stream(process.stdin).close()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ask(process: subprocess.Popen[str], side: str) -> dict[str, float]:
    _stream(process.stdin).write("go\n")
    _stream(process.stdin).flush()
    line = _stream(process.stdout).readline()
    if not line:
        raise RuntimeError(f"side {side} ended with status {process.wait()}; its error is printed above")
    answer: dict[str, float] = json.loads(line)
    return answer


def _stream(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("the process was started without a pipe")
    return stream


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


def _peak_mib() -> float:
    """Return the larger of this process's peak (proc(5).

    VmHWM, which a new program resets) and its children's (getrusage(2), KiB).
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024
