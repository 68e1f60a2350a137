"""A Celery worker forwards SIGTERM to running tasks and emits how long they were queued."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("airflow.providers.celery", reason="the extra `production` is not installed")

from receivers import receivers
from seaweed import free_ports

PLUGINS = Path(__file__).parents[2] / "plugins"
# A worker's main process with two pool processes: one supervises a task (a child of its own), the other one is idle.
_WORKER = """
import subprocess, sys, time
from celery.signals import worker_shutting_down
import cloudseg_celery
from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG
assert cloudseg_celery.CELERY_CONFIG is DEFAULT_CELERY_CONFIG
busy = subprocess.Popen(["sh", "-c", "sleep 60 & trap 'kill $!; exit 7' TERM; wait"])
idle = subprocess.Popen(["sleep", "60"])
time.sleep(1)
worker_shutting_down.send(sender="test", sig="SIGTERM", how="Warm", exitcode=0)
print(busy.wait(30), idle.poll(), flush=True)
idle.kill()
"""

# A message waits for a quarter of a second, then a Celery worker starts. In production the broker is Redis.
_QUEUE = """
import time
import cloudseg_celery
from celery import Celery
from celery.contrib.testing.worker import start_worker
app = Celery(broker="memory://", backend="cache+memory://")
@app.task
def work():
    return "done"
answer = work.apply_async(queue="gpu")
time.sleep(0.25)
with start_worker(app, pool="solo", queues=["gpu"], perform_ping_check=False, shutdown_timeout=60):
    print(answer.get(timeout=60), flush=True)
"""


def _python(script: str, tmp_path: Path, settings: dict[str, str] | None = None) -> list[str]:
    """Run a script as Airflow's own processes run; return the lines that it printed."""
    environment = os.environ | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(PLUGINS),
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | (settings or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_running_tasks_get_the_signal_and_idle_processes_do_not(tmp_path: Path):
    assert _python(_WORKER, tmp_path)[-1:] == ["7 None"]


def test_how_long_a_task_was_queued_is_emitted(tmp_path: Path):
    with receivers(free_ports(1)[0]) as (heard, leads_there):
        assert _python(_QUEUE, tmp_path, leads_there)[-1:] == ["done"]
        waited_ms = heard.metrics["airflow.cloudseg.queue_wait.gpu"]
    assert waited_ms >= 250
