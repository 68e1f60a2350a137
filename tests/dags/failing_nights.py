"""Nights in a real Airflow database on a real home, in which each task in turn fails for good: a program.

It prints one line of JSON: for each run its DAG, the task that failed on purpose (None: none did), the states of the
tasks, how often that task was tried, and the runs that tasks have triggered so far. Messages go to the receivers that
the environment names. In the last two runs of `cloudseg_predict` the time of the workers is over at once.

All runs of a DAG are one DAG run that is cleared, so each task fails in a run in which those before it had succeeded:
finished work is found, and the model is trained once.
"""

import json
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cloudseg_dagkit as kit
from airflow.models.dagrun import DagRun
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType
from dag_files import load_dags
from sqlalchemy import select

from cloudseg import stages
from cloudseg.errors import StoreUnreachable
from cloudseg.raster.synthetic import make_tiles
from cloudseg.runtime import open_runtime

NIGHT = datetime(2026, 11, 30, 2, tzinfo=UTC)
INGEST = ("doctor", "ingest", "announce_scenes", "plan_labels", "announce_labels", None)
RETRAIN = (
    *("doctor", "plan", "snapshot", "plan_training", "train", "evaluate", "compare", "ask_or_not", "promote", None),
    "approve",
)
PREDICT = ("doctor", "plan", "predict", "check", None)
"""The task that fails, run by run; None: all is well. `approve` comes last: it asks a person what was decided."""
SENTENCE = "no answer"
_LABELED, _UNLABELED, _SIZE = 12, 2, 160
"""As in tests/tools/demo/test_standalone.py: the recipe `smoke` makes a champion of these."""


class Fault:
    """Which task of which DAG fails."""

    dag_id = task_id = ""

    def before_task(self, context: Any) -> None:
        """Do what every task does first, then fail with an error that is retried, if it is this task's turn."""
        kit.before_task(context)
        if (context["ti"].dag_id, context["ti"].task_id) == (self.dag_id, self.task_id):
            raise StoreUnreachable(SENTENCE, subject=self.task_id, next_step="Start it.")


def _deliver(tiles: Path, inbox: Path, count: int) -> None:
    """Move scenes with their labels into the inbox, so that a run has something to announce; then those without."""
    waiting = sorted((not (tiles / "labels" / path.name).is_file(), path) for path in (tiles / "images").iterdir())
    for _, image in waiting[:count]:
        for kind in ("images", "labels"):
            (inbox / kind).mkdir(parents=True, exist_ok=True)
            if (tiles / kind / image.name).is_file():
                shutil.move(tiles / kind / image.name, inbox / kind / image.name)


def _run(dag: Any, conf: dict[str, Any], failing: str | None) -> dict[str, Any]:
    """Clear the DAG run and run it; the doctor only when it is to fail, because it takes a second."""
    skipped = None if failing == "doctor" else "doctor"
    done = dag.test(run_conf=conf, logical_date=NIGHT, run_after=NIGHT, mark_success_pattern=skipped)
    found = {ti.task_id: ti for ti in done.get_task_instances()}
    return {
        "dag": dag.dag_id,
        "failing": failing,
        "run_id": done.run_id,
        "states": {name: str(ti.state) for name, ti in found.items()},
        "tries": found[failing].try_number if failing else 0,
        "triggered": _triggered(),
    }


def _triggered() -> list[dict[str, Any]]:
    """Return the runs that tasks have triggered; no scheduler runs here, so they wait."""
    asked = select(DagRun).where(DagRun.run_type == DagRunType.OPERATOR_TRIGGERED).order_by(DagRun.id)
    with create_session() as session:
        return [
            {"dag": run.dag_id, "run_id": run.run_id, "state": str(run.state), "conf": run.conf}
            for run in session.scalars(asked)
        ]


def _end_time_at_once() -> None:
    """From now on the time of a worker is over before it has drawn a scene."""
    drain = stages.drain
    stages.drain = lambda **asked: drain(**asked | {"minutes": 1e-9})  # type: ignore[assignment]


def _away(store: Path, away: Path) -> None:
    """Replace the folder of the store by a file: the service is not operational."""
    store.rename(away)
    store.write_text("no folder", encoding="utf-8")


def _back(store: Path, away: Path) -> None:
    store.unlink()
    away.rename(store)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    fault, nights = Fault(), []
    kit.DEFAULT_ARGS.update(pre_execute=fault.before_task, retry_delay=timedelta(0), retry_exponential_backoff=False)
    initdb()
    make_tiles(place / "tiles", count=_LABELED, size=_SIZE, unlabeled=_UNLABELED)
    store = Path(open_runtime().store.uri.removeprefix("file://"))
    dags = load_dags()

    def run(dag_id: str, failing: str | None, conf: dict[str, Any]) -> None:
        fault.dag_id, fault.task_id = dag_id, failing or ""
        if failing == "doctor":
            fault.task_id = ""
            _away(store, place / "away")
        nights.append(_run(dags[dag_id], conf, failing))
        if failing == "doctor":
            _back(store, place / "away")

    for failing in INGEST:
        _deliver(place / "tiles", place / "inbox", 2 if failing else 100)
        run("cloudseg_ingest", failing, {"source": str(place / "inbox"), "min_new_labels": 1})
    for failing in RETRAIN:
        approval = "ask" if failing == "approve" else "auto"
        run("cloudseg_retrain", failing, {"recipe": "smoke", "approval": approval, "force": True})
    for failing in PREDICT:
        run("cloudseg_predict", failing, {} if failing else {"threshold": 0.9})  # all have masks; now other ones
    _end_time_at_once()
    for _ in range(2):  # a run that is cleared after it triggered the next one
        run("cloudseg_predict", None, {"threshold": "0.8", "minutes": 45})
    run("cloudseg_watch", None, {})
    sys.stdout.write("\n" + json.dumps(nights) + "\n")
