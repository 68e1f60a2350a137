"""A night that fails at each task in turn: the right message arrives once, whatever is retried or cleared."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from dag_files import DAGS, REPO, SHARED, airflow_home

pytest.importorskip("airflow.providers.http", reason="the extra `production` is not installed")

from receivers import receivers
from seaweed import free_ports

# One fixture runs all nights one after the other: three minutes on two cores, more beside other work.
pytestmark = pytest.mark.timeout(900)
UI = "https://airflow.example"


class Told(NamedTuple):
    """What happened, and what arrived."""

    nights: list[dict[str, Any]]
    posts: list[dict[str, Any]]

    def failed(self) -> list[dict[str, Any]]:
        """Return the runs that failed on purpose, but those of the doctor."""
        return [night for night in self.nights if night["failing"] not in (None, "doctor")]

    def about(self, dag_id: str, task_id: str) -> list[dict[str, Any]]:
        facts = {"dag": dag_id, "task": task_id}
        return [post for post in self.posts if facts.items() <= post["facts"].items()]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("nights")
    (folder / "dags").mkdir()
    for name in (*SHARED, ".airflowignore", *(f"cloudseg_{n}.py" for n in ("ingest", "retrain", "predict", "watch"))):
        (folder / "dags" / name).symlink_to(DAGS / name)  # `dag.test` parses all files for each run
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDSEG_", "AIRFLOW"))}
    with receivers(free_ports(1)[0]) as (received, settings):
        done = subprocess.run(
            [sys.executable, str(REPO / "tests" / "dags" / "failing_nights.py"), str(folder)],
            env=kept
            | airflow_home(folder / "airflow")
            | {
                "AIRFLOW__API__BASE_URL": UI,
                "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
                "AIRFLOW_CONN_CLOUDSEG_WEBHOOK": settings["AIRFLOW_CONN_CLOUDSEG_WEBHOOK"],
                "CLOUDSEG_ALERT_DISK_PERCENT": "0",
                "CLOUDSEG_DEVICE": "cpu",
                "CLOUDSEG_HOME": str(folder / "home"),
                "CLOUDSEG_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(map(str, (REPO, REPO / "dags", REPO / "tests" / "dags"))),
                "TMPDIR": str(folder),
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    return Told(json.loads(done.stdout.splitlines()[-1]), received.posts)


def test_each_task_failed_in_turn_after_all_its_tries(told: Told) -> None:
    failed = told.failed()
    assert Counter(night["dag"] for night in failed) == {
        "cloudseg_ingest": 4,
        "cloudseg_retrain": 9,
        "cloudseg_predict": 3,
    }
    for night in failed:
        assert (night["states"][night["failing"]], night["tries"]) == ("failed", 3), night
    for night in (night for night in told.nights if night["failing"] is None):
        assert set(night["states"].values()) <= {"success", "skipped"}, night


def test_the_next_run_goes_on_where_time_was_over_and_is_triggered_once(told: Told) -> None:
    """What Airflow makes of it: a run that waits for the scheduler, with the form of the first one."""
    assert not any(night["triggered"] for night in told.nights[:-3])
    first, again = told.nights[-3:-1]
    assert (first["states"]["more"], again["states"]["more"]) == ("success", "skipped")
    (waiting,) = first["triggered"]
    assert again["triggered"] == [waiting]
    assert (waiting["dag"], waiting["state"]) == ("cloudseg_predict", "queued")
    assert waiting["run_id"] == f"{first['run_id']}__part_2"
    assert (waiting["conf"]["threshold"], waiting["conf"]["minutes"]) == ("0.8", 45)


def test_the_right_message_arrives_once_and_its_end_once(told: Told) -> None:
    for night in told.failed():
        posts = told.about(night["dag"], night["failing"])
        ends = ["ends"] if night["failing"] != "approve" else []  # nobody has asked again
        assert [post["state"] for post in posts] == ["begins", *ends], night
        task = f"{UI}/dags/{night['dag']}/runs/{quote(night['run_id'], safe='')}/tasks/{night['failing']}"
        sentence = (
            f"Task {night['failing']} of {night['dag']} failed for good: {night['failing']}: no answer. Start it."
        )
        assert (posts[0]["alert"], posts[0]["severity"], posts[0]["sentence"]) == ("task-failed", "warning", sentence)
        assert posts[0]["link"].startswith(task)


def test_one_cause_is_one_message_in_whichever_dag_it_is_found(told: Told) -> None:
    """The doctor failed in three DAGs; what did not run because of that, or of any other failure, tells nothing."""
    stopped = [night for night in told.nights if night["failing"] == "doctor"]
    assert [night["states"]["doctor"] for night in stopped] == ["failed"] * 3
    assert [states(told.posts, "not-operational"), told.about("cloudseg_ingest", "doctor")] == [["begins", "ends"], []]


def test_nothing_else_arrives(told: Told) -> None:
    """Every failure once, every end once, and the new champion, which the watch saw too."""
    failures = len(told.failed())
    assert Counter((post["alert"], post["state"]) for post in told.posts) == {
        ("not-operational", "begins"): 1,
        ("not-operational", "ends"): 1,
        ("task-failed", "begins"): failures,
        ("task-failed", "ends"): failures - 1,
        ("champion-changed", "happened"): 1,
    }
    assert len({post["event_id"] for post in told.posts}) == len(told.posts)


def states(posts: Sequence[dict[str, Any]], alert: str) -> list[str]:
    return [post["state"] for post in posts if post["alert"] == alert]
