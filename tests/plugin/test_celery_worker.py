"""What a Celery worker does with running tasks when it is asked to stop."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("airflow.providers.celery", reason="the extra `production` is not installed")

PLUGINS = Path(__file__).parents[2] / "plugins"
# A worker's main process with two pool processes: one supervises a task (a child of its own), the other one is idle.
_WORKER = """
import subprocess, sys, time
from celery.signals import worker_shutting_down
import cloudseg_celery
from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG
assert cloudseg_celery.CELERY_CONFIG is DEFAULT_CELERY_CONFIG
busy = subprocess.Popen(["sh", "-c", "sleep 60 & trap 'exit 7' TERM; wait"])
idle = subprocess.Popen(["sleep", "60"])
time.sleep(1)
worker_shutting_down.send(sender="test", sig="SIGTERM", how="Warm", exitcode=0)
print(busy.wait(30), idle.poll(), flush=True)
idle.kill()
"""


def test_running_tasks_get_the_signal_and_idle_processes_do_not(tmp_path: Path):
    environment = os.environ | {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "PYTHONPATH": str(PLUGINS)}
    done = subprocess.run([sys.executable, "-c", _WORKER], env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.stdout.splitlines()[-1:] == ["7 None"], done.stderr
