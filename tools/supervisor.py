"""A process that runs a command and ends it, with everything that the command started, when its own parent ends.

`python supervisor.py LOG GRACE_S COMMAND…` runs the command with its output in LOG until standard input ends: that is
when the parent closes the pipe, and also when the parent is killed. Then the command gets SIGINT (`airflow standalone`
stops its components on that, and orphans them on SIGTERM) and GRACE_S seconds to end; remaining processes then get
SIGTERM, later SIGKILL.

Against processes that escape: this process adopts orphans of its descendants (PR_SET_CHILD_SUBREAPER), and the kernel
sends the command SIGINT if this process itself is killed (PR_SET_PDEATHSIG); see prctl(2).
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
_TERMINATE_S: Final = 3.0


def supervised(command: Sequence[str], log: Path, *, grace_s: float) -> list[str]:
    """Return the command line that runs a command under a supervisor; its standard input must be a pipe."""
    return [sys.executable, "-P", str(Path(__file__)), str(log), str(grace_s), *command]


def supervise(command: Sequence[str], log: Path, *, grace_s: float) -> int:
    """Run a command until it ends or standard input does, then stop what is left of it.

    Args:
        command: Program and arguments.
        log: File that its output is appended to.
        grace_s: Seconds that it may take to end after SIGINT.

    Returns:
        Its exit status; 0 if it was stopped.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # The parent handles Ctrl-C of the terminal, and closes the pipe when it is ready.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with log.open("ab") as out:
        child = subprocess.Popen(
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
        stop_all(child, grace_s)
    return child.returncode if child.returncode and child.returncode > 0 else 0


def stop_all(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """Stop the child and all its descendants: SIGINT to the child, then SIGTERM to what is left, then SIGKILL."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
    _wait(lambda: child.poll() is not None, grace_s)
    number = signal.SIGTERM
    while remaining := _remaining(child):
        for process in remaining:
            _send(process, number)
        _wait(lambda: not _remaining(child), _TERMINATE_S)
        number = signal.SIGKILL


def _wait(reached: Callable[[], bool], limit_s: float) -> None:
    """Wait until `reached()` is true, `limit_s` seconds at most."""
    until = time.monotonic() + limit_s
    while not reached() and time.monotonic() < until:
        time.sleep(0.1)


def _remaining(child: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the living descendants of this process, adopted ones included."""
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
    """Collect the exit statuses of adopted orphans; that of the child is left to its Popen object."""
    for process in psutil.Process().children():
        if process.pid != child_pid and _is_zombie(process):
            try:
                os.waitpid(process.pid, os.WNOHANG)
            except ChildProcessError:
                continue


def _input_ended(wait_s: float) -> bool:
    """Wait `wait_s` seconds at most and return whether standard input has ended; what is written there is ignored."""
    ready, _, _ = select.select([0], [], [], wait_s)
    return bool(ready) and os.read(0, 1024) == b""


def _follow_parent() -> None:
    """Request SIGINT when the supervisor dies, and reset SIGINT, which a shell's `&` ignores.

    Runs in the child before the command.
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
    sys.exit(supervise(sys.argv[3:], Path(sys.argv[1]), grace_s=float(sys.argv[2])))
