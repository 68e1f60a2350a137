"""Celery configuration of scheduler and workers: Airflow's own, graceful shutdown of tasks, a metric of queue waits.

Airflow imports it by `[celery] celery_config_options`. By default a worker that gets SIGTERM waits for its tasks, and a
training takes hours: it would be killed at the end of the grace period. So SIGTERM is forwarded to the tasks: a
training writes a checkpoint, a prediction completes its scene, both end as "up for retry", and the next try resumes.

Airflow 3.3 measures how long a task was `scheduled` (waiting for its pool), but not how long it was then `queued`
(waiting for a worker): its `task.queued_duration` is not sent for tasks that run on workers. So the time of sending is
a header of each message.
"""

import os
import time
from datetime import timedelta
from typing import Any, Final

import psutil
from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG
from celery.signals import before_task_publish, task_prerun, worker_process_init, worker_shutting_down

CELERY_CONFIG = DEFAULT_CELERY_CONFIG
_SENT_AT: Final = "cloudseg_sent_at"


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def forward_sigterm(**_: Any) -> None:
    """Send SIGTERM to the pool processes that run a task, which have children; they forward it to the task."""
    for process in psutil.Process(os.getpid()).children():
        if process.children():
            process.terminate()


@before_task_publish.connect  # type: ignore[untyped-decorator]
def stamp_sent_at(headers: dict[str, Any], **_: Any) -> None:
    """Add the current time to the headers of a message (in the scheduler)."""
    headers[_SENT_AT] = time.time()


@worker_process_init.connect  # type: ignore[untyped-decorator]
def initialize_stats(**_: Any) -> None:
    """Initialize metrics in a pool process; Airflow does so in the process of the task only, which starts later."""
    from airflow.sdk.observability import stats
    from airflow.sdk.observability.metrics.stats_utils import get_stats_factory

    stats.initialize(factory=get_stats_factory(), export_legacy_names=False)


@task_prerun.connect  # type: ignore[untyped-decorator]
def emit_queue_wait(task: Any, **_: Any) -> None:
    """Emit how long a task waited in its queue (in the worker); the clocks of scheduler and worker must agree."""
    from airflow.sdk.observability import stats

    sent_at = getattr(task.request, _SENT_AT, None)
    if sent_at is not None:
        queue = task.request.delivery_info["routing_key"]
        stats.timing(f"cloudseg.queue_wait.{queue}", timedelta(seconds=max(0.0, time.time() - sent_at)))
