"""Every alert of the service arrives at real receivers: once when it begins, once when it ends."""

import os
import subprocess
import sys
from collections import Counter

import pytest
from dag_files import REPO, airflow_home

pytest.importorskip("airflow.providers.http", reason="the extra `production` is not installed")
pytest.importorskip("aiosmtpd", reason="the extra `dev` is not installed")

from receivers import Received, receivers
from seaweed import free_ports

from cloudseg.monitor.alerts import ALERTS


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Received:
    """What arrived while every alert began, was found again, and ended."""
    folder = tmp_path_factory.mktemp("alerts")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDSEG_", "AIRFLOW"))}
    paths = os.pathsep.join(map(str, (REPO, REPO / "dags", REPO / "tests" / "dags")))
    with receivers(free_ports(1)[0]) as (received, settings):
        done = subprocess.run(
            [sys.executable, str(REPO / "tests" / "dags" / "alert_runs.py")],
            env=kept
            | airflow_home(folder / "airflow")
            | settings
            | {
                "AIRFLOW__API__BASE_URL": "https://airflow.example",
                "CLOUDSEG_HOME": str(folder / "home"),
                "CLOUDSEG_ALERT_DISK_PERCENT": "99.999",
                "PYTHONPATH": paths,
                "TMPDIR": str(folder),
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    return received


def test_every_alert_arrives_once_when_it_begins_and_once_when_it_ends(received: Received) -> None:
    changes = {"champion-changed": 3}  # the first one, a promotion, a rollback
    expected = Counter[tuple[str, str]]()
    for kind in ALERTS.values():
        states = ("begins", "ends") if kind.lasts else ("happened",)
        expected |= Counter({(kind.name, state): changes.get(kind.name, 1) for state in states})
    assert Counter((post["alert"], post["state"]) for post in received.posts) == expected
    assert Counter(mail["Subject"] for mail in received.mails) == Counter(
        f"cloudseg: {'resolved: ' if post['state'] == 'ends' else ''}{post['event']}" for post in received.posts
    )


PAGES = "https://airflow.example/plugin/cloud_masks/cloudseg"
RUN = "https://airflow.example/dags/cloudseg_retrain/runs/scheduled__2026-11-30T02%3A00%3A00%2B00%3A00"


@pytest.mark.parametrize(
    ("name", "sentence", "link"),
    [
        (
            "question-waits",
            "Promote v2 to champion? Nobody has answered; without an answer by 2026-12-03T02:10 nothing changes.",
            f"{RUN}/tasks/approve/required_actions",
        ),
        ("no-verdict", "The night of 2026-11-30 has no verdict 4 hours after it began.", RUN),
        ("no-good-night", "New labels: 1; no training has used them for ", f"{PAGES}/"),
        ("masks-late", "Scenes without a mask 60 minutes after their ingest: 85; the oldest is trained ", f"{PAGES}/"),
        ("damaged-objects", "Objects of the store that are missing or damaged: 1; the first is models/", f"{PAGES}/"),
        ("disk-nearly-full", "The disk of ", f"{PAGES}/"),
        (
            "outside-training",
            "Masks of the last 7 days whose scene is brighter or darker than the training scenes: 5 of 5; the newest "
            "is trained ",
            f"{PAGES}/drift",
        ),
        (
            "drift",
            "The scenes differ from those that the model was trained on: brightness of the scenes of unknown in "
            "2026-W25 is higher than in training: median 0.6",
            f"{PAGES}/drift",
        ),
    ],
)
def test_an_alert_says_what_is_wrong_and_where_to_look(received: Received, name: str, sentence: str, link: str) -> None:
    (begins,) = [post for post in received.posts if (post["alert"], post["state"]) == (name, "begins")]
    assert begins["sentence"].startswith(sentence)
    assert begins["link"] == link
    assert begins["runbook"] == f"docs/how-to/runbook.md#{name}"


def test_a_rollback_is_a_change_of_the_champion_like_a_promotion(received: Received) -> None:
    changes = [post for post in received.posts if post["alert"] == "champion-changed"]
    first, promoted, back = changes
    asked = next(post for post in received.posts if post["alert"] == "question-waits")
    assert received.posts.index(back) < received.posts.index(asked), "sent by the task, not by the next watch"
    assert first["sentence"].endswith("Promoted without a verdict by test: test")
    assert back["sentence"].startswith(f"The champion is {first['facts']['champion_id']}. Rolled back from ")
    assert back["sentence"].endswith(f"{promoted['facts']['champion_id']} by ada: misses thin clouds")
    assert back["link"] == f"{PAGES}/weights/{first['facts']['champion_id']}"
