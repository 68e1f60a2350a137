"""Metrics and notifications reach real receivers, and never fail a task."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dag_files import DAGS, airflow_home

pytest.importorskip("airflow.providers.http", reason="the extra `production` is not installed")
pytest.importorskip("statsd", reason="the extra `production` is not installed")

from receivers import Received, receivers
from seaweed import free_ports

# As in the task runner: settings from the environment, statistics initialized, then the hooks around a task.
_SCRIPT = """
import json, sys
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils
stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
import logging; logging.basicConfig(level="WARNING")
import cloudseg_dagkit, cloudseg_notify
class Task:
    def __init__(self, task_id): self.task_id = task_id
for task_id, record in json.loads(sys.argv[1]):
    if task_id == "failed":
        error = ValueError("loss <is> nan")
        cloudseg_dagkit.notify_failure({"ti": Task("train"), "run_id": "manual__1", "exception": error})
    else:
        cloudseg_dagkit.emit_metrics_and_notify({"ti": Task(task_id)}, record)
"""
_COMPARED = {
    "outcome": "REJECT",
    "reasons": ["Held-out IoU fell by 0.2."],
    "champion_id": "w-1",
    "challenger_id": "w-2",
    "verdict_id": "v-2",
}


def _run(tmp_path: Path, events: list[Any], settings: dict[str, str]) -> str:
    environment = (
        os.environ
        | airflow_home(tmp_path)
        | {"PYTHONPATH": str(DAGS), "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING"}
        | settings
    )
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, json.dumps(events)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Received:
    """Return what the receivers got for one event of each kind."""
    counts = {"added": 3, "labelled": 2, "quarantined": 1}
    events = [
        ("ingest", {"counts": counts, "source": "/inbox"}),
        ("ingest", {"counts": counts | {"quarantined": 0}, "source": "/inbox"}),
        ("train", {"seconds": 12.5, "images_per_s": 40.0}),
        ("compare", _COMPARED),
        ("compare", _COMPARED | {"outcome": "HOLD"}),
        ("promote", {"champion_id": "w-3", "verdict_id": "v-3", "reasons": ["Better by 0.1 IoU."]}),
        ("predict", {"created": 30, "seconds": 60.0}),
        ("predict", {"created": 0, "seconds": 1.0}),
        ("finish", {"weights_id": None, "done": 0, "total": 0, "switched": False}),
        ("finish", {"weights_id": "w-3", "done": 7, "total": 7, "switched": True}),
        ("failed", None),
        ("doctor", None),
    ]
    with receivers(free_ports(1)[0]) as (received, settings):
        _run(tmp_path_factory.mktemp("airflow"), events, settings)
    return received


def test_the_webhook_receives_one_object_for_each_event(received: Received):
    assert [post["event"] for post in received.posts] == [
        "quarantine grows",
        "challenger rejected",
        "champion changed",
        "readers see a new model",
        "training failed",
    ]
    rejected = received.posts[1]
    assert rejected["facts"] == {"challenger_id": "w-2", "verdict_id": "v-2"}
    assert rejected["text"] == "cloudseg: challenger rejected. w-2 does not replace w-1. Held-out IoU fell by 0.2."


def test_recipients_get_one_mail_for_each_event(received: Received):
    assert [str(mail["Subject"]) for mail in received.mails] == [
        f"cloudseg: {post['event']}" for post in received.posts
    ]
    mail = received.mails[-1]
    assert (mail["To"], mail["From"]) == ("people@example.org", "stack@example.org")
    body = next(part.get_payload(decode=True).decode() for part in mail.walk() if part.get_content_maintype() == "text")
    assert "loss &lt;is&gt; nan" in body, "external text is escaped"


def test_metrics_are_counted(received: Received):
    found = {
        name.removeprefix("airflow.cloudseg."): value
        for name, value in received.metrics.items()
        if ".cloudseg." in name
    }
    assert found == {
        "scenes": 3,
        "labels": 2,
        "quarantined": 0,
        "train.seconds": 12.5,
        "train.images_per_s": 40.0,
        "verdict.reject": 1,
        "verdict.hold": 1,
        "champion.changed": 1,
        "masks": 0,
        "masks_per_hour": 1800.0,
        "backfill.done": 7,
        "backfill.total": 7,
    }


def test_an_unreachable_receiver_does_not_fail_the_task(tmp_path: Path):
    port = free_ports(1)[0]
    extra = {"disable_ssl": True, "retry_limit": 1, "to": "a@b.c", "from_email": "a@b.c"}
    mail = json.dumps({"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": extra})
    unreachable = {
        "AIRFLOW_CONN_CLOUDSEG_WEBHOOK": json.dumps(
            {"conn_type": "http", "host": f"http://127.0.0.1:{port}", "login": "user", "password": "hidden-secret"}
        ),
        "AIRFLOW_CONN_CLOUDSEG_MAIL": mail,
    }
    output = _run(tmp_path, [("compare", _COMPARED)], unreachable)
    assert output.count("notification 'challenger rejected' was not sent") == 2
    assert "hidden-secret" not in output


def test_without_receivers_nothing_is_sent_and_nothing_is_logged(tmp_path: Path):
    assert "was not sent" not in _run(
        tmp_path, [("compare", _COMPARED)], {"AIRFLOW_CONN_CLOUDSEG_WEBHOOK": "", "AIRFLOW_CONN_CLOUDSEG_MAIL": ""}
    )
