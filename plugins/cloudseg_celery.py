"""Celery settings of the workers: Airflow's own, and what a worker does with running tasks when it is asked to stop.

Airflow imports it by `[celery] celery_config_options`. By itself a worker that gets SIGTERM waits for its tasks, and a training takes
hours: it would be killed at the end of the grace period. So the tasks get the signal too: a training writes a checkpoint, a
prediction ends its scene, both end as "up for retry", and the next try goes on elsewhere.
"""

import os
from typing import Any

import psutil
from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG
from celery.signals import worker_shutting_down

CELERY_CONFIG = DEFAULT_CELERY_CONFIG


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def hand_over(**_: Any) -> None:
    """Send SIGTERM to the tasks that run here: the children of the pool's processes, which pass it on themselves."""
    for process in psutil.Process(os.getpid()).children():
        if process.children():
            process.terminate()
