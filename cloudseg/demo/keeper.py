"""A process that keeps another one, with everything that it starts, alive no longer than its own parent.

`python -m cloudseg.demo.keeper LOG PATIENCE_S COMMAND…` runs the command with its output in LOG until standard input
ends: that is when the parent closes the pipe, and also when the parent is killed. Then the command gets SIGINT
(`airflow standalone` stops its components on that, and orphans them on SIGTERM) and so many seconds; whatever is left
then gets SIGTERM, later SIGKILL.

Locks against a process that escapes: this process adopts orphans of its descendants (PR_SET_CHILD_SUBREAPER), and the
kernel sends the command SIGINT if this process itself is killed (PR_SET_PDEATHSIG); see prctl(2).
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import psutil

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_FIRM_S: Final = 3.0


def keep(command: Sequence[str], log: Path, *, patience_s: float) -> int:
    """Run the command until it ends or standard input does, stop what is left of it, and return its exit status (0 when stopped)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # A terminal's Ctrl-C is the parent's business: it closes the pipe when it has said what it has to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with log.open("ab") as out:
        child = subprocess.Popen(  # noqa: S603  (the caller's own command)
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_follow_parent,
        )
    try:
        while not _input_ended(0.5) and child.poll() is None:
            _reap(child.pid)
    finally:
        stop_all(child, patience_s)
    return child.returncode if child.returncode and child.returncode > 0 else 0


def stop_all(child: subprocess.Popen[bytes], patience_s: float) -> None:
    """Stop the child and every process that came from it.

    SIGINT to the child, then SIGTERM to what it left behind, then SIGKILL.
    """
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
    _wait(lambda: child.poll() is not None, patience_s)
    number = signal.SIGTERM
    while left := _left(child):
        for process in left:
            _send(process, number)
        _wait(lambda: not _left(child), _FIRM_S)
        number = signal.SIGKILL


def _wait(reached: Callable[[], bool], limit_s: float) -> None:
    until = time.monotonic() + limit_s
    while not reached() and time.monotonic() < until:
        time.sleep(0.1)


def _left(child: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """List the living descendants, adopted ones included."""
    child.poll()
    _reap(child.pid)
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.is_running() and not _is_zombie(process)
    ]


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _reap(child_pid: int) -> None:
    """Collect the exit status of adopted orphans; the child's own is left to its Popen."""
    for process in psutil.Process().children():
        if process.pid != child_pid and _is_zombie(process):
            try:
                os.waitpid(process.pid, os.WNOHANG)
            except ChildProcessError:
                continue


def _input_ended(wait_s: float) -> bool:
    """Return whether standard input has ended, after waiting so long at most; what is written there is dropped."""
    ready, _, _ = select.select([0], [], [], wait_s)
    return bool(ready) and os.read(0, 1024) == b""


def _follow_parent() -> None:
    """In the child, before the command.

    Get SIGINT when the keeper dies, and take SIGINT even when a script's `&` ignored it.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _stop_signal(number: int, _: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop_signal)
    signal.signal(signal.SIGHUP, _stop_signal)
    sys.exit(keep(sys.argv[3:], Path(sys.argv[1]), patience_s=float(sys.argv[2])))
