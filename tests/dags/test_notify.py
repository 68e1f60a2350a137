"""Metrics and notifications reach real receivers, and never fail a task."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dag_files import DAGS, REPO, airflow_home

pytest.importorskip("airflow.providers.http", reason="the extra `production` is not installed")
pytest.importorskip("statsd", reason="the extra `production` is not installed")

from receivers import Received, receivers
from seaweed import free_ports

from cloudseg import keys

# As in the task runner: settings from the environment, statistics initialized, then the hooks around a task.
_SCRIPT = """
import json, sys
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils
stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
import logging; logging.basicConfig(level="WARNING")
import cloudseg_dagkit, cloudseg_notify
from cloudseg.catalog import tables as t
from cloudseg.catalog.session import insert, now
from cloudseg.records import Quarantined
from cloudseg.keys import make_id
from cloudseg.registry import promote
from cloudseg.runtime import open_runtime
from tests.stages.test_decisions import add_verdict
from tests.stages.test_plans import add_weights
bad = dict(quarantine_id="qu-1", name="a.tif", source_uri="file:///a.tif", source_sha256="0", error="BadScene",
           what="broken", found=None, expected=None, next_step="", created_at=now())
if sys.argv[2] == "quarantine":
    with open_runtime().catalog.begin() as db: insert(db, t.quarantine, Quarantined(**bad))
class Task:
    dag_id, map_index = "cloudseg_retrain", -1
    def __init__(self, task_id, run_id): self.task_id, self.run_id = task_id, run_id
class Run: run_after = now()
for number, (task_id, record) in enumerate(json.loads(sys.argv[1])):
    run_id = f"manual__{number}+00:00"
    if task_id == "failed":
        error = ValueError("loss <is> nan")
        cloudseg_dagkit.notify_failure({"ti": Task("train", run_id), "run_id": run_id, "exception": error})
    elif task_id == "watch":
        cloudseg_dagkit.began_at = lambda: now().isoformat()
        from cloudseg import stages
        where = cloudseg_dagkit.where_to_look()
        cloudseg_dagkit.send_messages(stages.watch(**where).as_json(), where["unrecorded"])
    else:
        if task_id == "promote":
            weights = add_weights(open_runtime())
            add_verdict(open_runtime(), weights, "PROMOTE", None)
            names = {"expected_champion": None, "verdict_id": make_id("ve", weights.weights_id, "")}
            promote(open_runtime().store, open_runtime().catalog, weights.weights_id, actor="a", reason="r", **names)
        cloudseg_dagkit.emit_metrics_and_notify({"ti": Task(task_id, run_id), "run_id": run_id}, record)
"""
_COMPARED = {
    "outcome": "REJECT",
    "reasons": ["Held-out IoU fell by 0.2."],
    "champion_id": "w-1",
    "challenger_id": "w-2",
    "verdict_id": "v-2",
}


def _run(tmp_path: Path, events: list[Any], settings: dict[str, str], *, prepare: str = "quarantine") -> str:
    environment = (
        os.environ
        | airflow_home(tmp_path)
        | {
            "PYTHONPATH": f"{DAGS}{os.pathsep}{REPO}",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "AIRFLOW__API__BASE_URL": "https://airflow.example/team/",
            "CLOUDSEG_HOME": str(tmp_path / "home"),
            "CLOUDSEG_ALERT_DISK_PERCENT": "0",
            "TMPDIR": str(tmp_path),
        }
        | settings
    )
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, json.dumps(events), prepare],
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
        ("promote", {}),
        ("predict", {"created": 30, "seconds": 60.0}),
        ("predict", {"created": 0, "seconds": 1.0}),
        ("finish", {"weights_id": None, "done": 0, "total": 0, "switched": False}),
        ("finish", {"weights_id": "w-3", "done": 7, "total": 7, "switched": True}),
        ("failed", None),
        ("failed", None),
        ("train", {"seconds": 12.5, "images_per_s": 40.0}),
        ("doctor", None),
        ("watch", None),
    ]
    with receivers(free_ports(1)[0]) as (received, settings):
        _run(tmp_path_factory.mktemp("airflow"), events, settings)
    return received


CHAMPION = keys.id_from_hash("w", keys.sha256_of(b"weights"))  # those of tests/stages/test_plans.py
PAGES = "https://airflow.example/team/plugin/cloud_masks/cloudseg"


def test_the_webhook_receives_one_object_for_each_event(received: Received):
    assert [(post["event"], post["state"]) for post in received.posts] == [
        ("quarantine grows", "begins"),
        ("challenger rejected", "happened"),
        ("champion changed", "happened"),
        ("readers see a new model", "happened"),
        ("task failed", "begins"),
        ("task failed", "ends"),
    ]


@pytest.mark.parametrize(
    ("number", "name", "sentence", "link"),
    [
        (
            0,
            "quarantine-grows",
            "Files that went to quarantine within a day: 1; new scenes: 0.",
            f"{PAGES}/quarantine",
        ),
        (1, "challenger-rejected", "w-2 does not replace w-1. Held-out IoU fell by 0.2.", f"{PAGES}/weights/w-2"),
        (2, "champion-changed", f"The champion is {CHAMPION}. a test; a second one", f"{PAGES}/weights/{CHAMPION}"),
        (
            3,
            "readers-switched",
            "Readers see the masks of w-3: every scene that they saw has one.",
            f"{PAGES}/readers",
        ),
        (
            4,
            "task-failed",
            "Task train of cloudseg_retrain failed for good: loss <is> nan",
            "https://airflow.example/team/dags/cloudseg_retrain/runs/manual__10%2B00%3A00/tasks/train",
        ),
    ],
)
def test_a_message_has_a_sentence_a_link_and_the_anchor_of_the_runbook(
    received: Received, number: int, name: str, sentence: str, link: str
):
    post = received.posts[number]
    found = {key: post[key] for key in ("alert", "sentence", "link", "runbook")}
    assert found == {"alert": name, "sentence": sentence, "link": link, "runbook": f"docs/how-to/runbook.md#{name}"}
    assert post["text"] == f"cloudseg: {post['event']}. {sentence} {link} Runbook: {post['runbook']}"


def test_every_message_has_an_id_of_its_own(received: Received):
    ids = [post["event_id"] for post in received.posts]
    assert len(set(ids)) == len(ids)
    begins, ends = ids[-2:]
    assert begins.removesuffix("-1") == ends.removesuffix("-2"), "of one alert"


def test_recipients_get_one_mail_for_each_event(received: Received):
    ends = {"ends": "resolved: "}
    assert [str(mail["Subject"]) for mail in received.mails] == [
        f"cloudseg: {ends.get(post['state'], '')}{post['event']}" for post in received.posts
    ]
    mail = received.mails[4]
    assert (mail["To"], mail["From"]) == ("people@example.org", "stack@example.org")
    body = next(part.get_payload(decode=True).decode() for part in mail.walk() if part.get_content_maintype() == "text")
    assert "loss &lt;is&gt; nan" in body, "external text is escaped"
    assert "docs/how-to/runbook.md#task-failed" in body


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
            {
                "conn_type": "http",
                "host": f"http://127.0.0.1:{port}",
                "login": "user",
                "password": "hidden-secret",
            }
        ),
        "AIRFLOW_CONN_CLOUDSEG_MAIL": mail,
    }
    output = _run(tmp_path, [("compare", _COMPARED)], unreachable)
    assert output.count("notification 'challenger rejected' was not sent") == 2
    assert "hidden-secret" not in output
    with receivers(free_ports(1)[0]) as (received, settings):
        _run(tmp_path, [("watch", None), ("watch", None)], settings)
    assert [post["event"] for post in received.posts].count("challenger rejected") == 1, "the watch sends it, once"
    assert len(received.mails) == len(received.posts)


def test_without_a_catalog_an_alert_is_sent_once(tmp_path: Path):
    home = tmp_path / "home"
    with receivers(free_ports(1)[0]) as (received, settings):
        _run(tmp_path, [], settings)
        (home / "catalog.db").rename(home / "kept.db")
        (home / "catalog.db").mkdir()
        _run(tmp_path, [("watch", None), ("failed", None), ("watch", None), ("failed", None)], settings, prepare="")
        assert [post["alert"] for post in received.posts] == ["not-operational", "task-failed"]
        assert received.posts[0]["sentence"].startswith("cloudseg is not operational, catalog: ")
        (home / "catalog.db").rmdir()
        (home / "kept.db").rename(home / "catalog.db")
        _run(tmp_path, [("watch", None), ("watch", None)], settings, prepare="")
    assert [(post["alert"], post["state"]) for post in received.posts[2:]] == [
        ("not-operational", "ends"),
        ("quarantine-grows", "begins"),
    ]


def test_without_receivers_nothing_is_sent_and_nothing_is_logged(tmp_path: Path):
    assert "was not sent" not in _run(
        tmp_path, [("compare", _COMPARED)], {"AIRFLOW_CONN_CLOUDSEG_WEBHOOK": "", "AIRFLOW_CONN_CLOUDSEG_MAIL": ""}
    )
