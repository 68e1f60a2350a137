"""A service with all its processes: healthy, stopped, killed."""

import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from tools.errors import ServiceFailed
from tools.stack.service import Service, ServiceSpec, check_command

# Starts a child, writes its process id, ends on SIGTERM.
_SCRIPT = """
import pathlib, subprocess, sys, time
child = subprocess.Popen(["sleep", "300"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
print("up", flush=True)
time.sleep(300)
"""


def _spec(tmp_path: Path, script: str = _SCRIPT, **more: object) -> ServiceSpec:
    (tmp_path / "service.py").write_text(script)
    child = tmp_path / "child"
    command = [sys.executable, str(tmp_path / "service.py"), str(child)]
    return ServiceSpec(
        "thing",
        command,
        {"PATH": "/bin:/usr/bin"},
        tmp_path / "log",
        is_healthy=lambda: child.is_file() and child.read_text() != "",
        **more,
    )


@pytest.fixture
def service(tmp_path: Path):
    service = Service(_spec(tmp_path, grace_s=2.0))
    service.start()
    service.wait_until_healthy(60)
    yield service
    service.request_stop()
    service.wait_until_ended(60)


def _gone(processes: list[psutil.Process]) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
            return True
        time.sleep(0.1)
    return False


def test_stopping_stops_its_children(service: Service):
    processes = service.processes()
    assert len(processes) == 2
    service.request_stop()
    service.wait_until_ended(60)
    assert _gone(processes)
    assert service.has_ended


def test_killing_kills_all_its_processes(service: Service):
    processes = service.processes()
    service.kill(restart=True)
    assert _gone(processes)
    assert service.has_ended
    assert service.wanted, "the watch restarts it"


def test_a_signal_goes_to_the_first_process_and_it_is_not_restarted(service: Service):
    service.signal(signal.SIGTERM)
    service.wait_until_ended(60)
    assert not service.wanted


def test_a_service_that_ends_at_its_start_shows_the_end_of_its_log(tmp_path: Path):
    service = Service(_spec(tmp_path, "print('no such database'); raise SystemExit(3)"))
    service.start()
    with pytest.raises(ServiceFailed, match="no such database"):
        service.wait_until_healthy(60)


def test_a_service_that_runs_once_must_succeed(tmp_path: Path):
    good = Service(_spec(tmp_path, "pass", runs_once=True))
    good.start()
    good.wait_until_completed(60)
    assert not good.wanted
    bad = Service(_spec(tmp_path, "raise SystemExit(3)", runs_once=True))
    bad.start()
    with pytest.raises(ServiceFailed, match="thing: failed"):
        bad.wait_until_completed(60)


def test_a_health_check_is_a_command_that_ends_with_0():
    assert check_command(["true"], {"PATH": "/bin:/usr/bin"})()
    assert not check_command(["false"], {"PATH": "/bin:/usr/bin"})()
