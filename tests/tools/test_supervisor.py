"""Everything that a supervisor started ends with it: also when it or its owner is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tools.supervisor import supervised

# A service like `airflow standalone`: a child in its own session and an orphaned grandchild; all ignore SIGTERM and
# SIGINT if asked.
_SERVICE = """
import os, signal, subprocess, sys, time
ignore = len(sys.argv) > 2
if ignore:
    signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)
subprocess.Popen(["sh", "-c", "sleep 300 & echo $! >> %s" % sys.argv[1]]).wait()
other = subprocess.Popen(["sleep", "300"], start_new_session=True)
open(sys.argv[1], "a").write("%d\\n%d\\n" % (other.pid, os.getpid()))
try:
    while True: time.sleep(1)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "pids"
    yield path
    for pid in _read(path):
        if _lives(pid):
            os.kill(pid, signal.SIGKILL)


def _read(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _command(tmp_path: Path, pids: Path, *extra: str) -> list[str]:
    script = tmp_path / "service.py"
    script.write_text(_SERVICE)
    return supervised([sys.executable, str(script), str(pids), *extra], tmp_path / "log", grace_s=3)


def _wait(pids: Path, *, alive: bool, limit_s: float) -> None:
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        found = _read(pids)
        if len(found) == 3 and all(_lives(pid) == alive for pid in found):
            return
        time.sleep(0.1)
    pytest.fail(
        f"after {limit_s} s: " + ", ".join(f"{pid} {'lives' if _lives(pid) else 'is gone'}" for pid in _read(pids))
    )


def test_stops_everything_when_its_input_ends(tmp_path: Path, pids: Path) -> None:
    supervisor = subprocess.Popen(_command(tmp_path, pids), stdin=subprocess.PIPE, start_new_session=True)
    _wait(pids, alive=True, limit_s=20)
    assert supervisor.stdin is not None
    supervisor.stdin.close()
    _wait(pids, alive=False, limit_s=40)
    assert supervisor.wait(10) == 0
    assert "interrupted" in (tmp_path / "log").read_text()


def test_stops_everything_when_its_owner_is_killed(tmp_path: Path, pids: Path) -> None:
    owner = tmp_path / "owner.py"
    owner.write_text(
        "import subprocess, sys, time\n"
        "subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, start_new_session=True)\n"
        "time.sleep(300)\n"
    )
    process = subprocess.Popen([sys.executable, str(owner), *_command(tmp_path, pids)])
    _wait(pids, alive=True, limit_s=20)
    process.kill()
    process.wait()
    _wait(pids, alive=False, limit_s=40)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_the_service_stops_when_the_supervisor_is_killed(tmp_path: Path, pids: Path) -> None:
    with subprocess.Popen(_command(tmp_path, pids), stdin=subprocess.PIPE, start_new_session=True) as supervisor:
        _wait(pids, alive=True, limit_s=20)
        supervisor.kill()
        supervisor.wait()
        until = time.monotonic() + 20
        while _lives(_read(pids)[-1]) and time.monotonic() < until:
            time.sleep(0.1)
    assert "interrupted" in (tmp_path / "log").read_text()


def test_returns_the_exit_status_of_the_service(tmp_path: Path) -> None:
    failing = [sys.executable, "-c", "print('no'); raise SystemExit(3)"]
    command = supervised(failing, tmp_path / "log", grace_s=3)
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as supervisor:
        assert supervisor.wait(20) == 3
    assert (tmp_path / "log").read_text() == "no\n"


def test_kills_what_ignores_signals(tmp_path: Path, pids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = subprocess.Popen(_command(tmp_path, pids, "ignore"), stdin=subprocess.PIPE, start_new_session=True)
    _wait(pids, alive=True, limit_s=20)
    supervisor.terminate()
    _wait(pids, alive=False, limit_s=60)
    assert supervisor.stdin is not None
    supervisor.stdin.close()
    assert supervisor.wait(10) == 128 + signal.SIGTERM
