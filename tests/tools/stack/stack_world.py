"""The running stack that the slow tests share, with access to its catalog, store and DAG runs."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from receivers import Received

from cloudseg.catalog import model_rows, training_rows
from cloudseg.raster.synthetic import make_tiles
from cloudseg.records import Weights
from cloudseg.runtime import Runtime, open_runtime
from tools.airflow_api import ENDED, AirflowApi
from tools.stack.home import StackHome
from tools.stack.stack import Stack

LABELED, UNLABELED, SIZE = 12, 4, 160
SLICE = 24
"""Scenes of the real data set: enough that each split of smoke has both classes, few enough to take minutes."""
QUICK = {
    # A dead worker is noticed within half a minute instead of two; all other settings are those of production.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
    # One thread makes every machine and worker compute the same.
    "CLOUDSEG_THREADS": "1",
}


@dataclass
class World:
    stack: Stack
    heard: Received
    tiles: Path
    source: str
    """Source of the tiles, for the table."""
    weights: dict[str, str] = field(default_factory=dict)

    @property
    def api(self) -> AirflowApi:
        return self.stack.api

    @property
    def home(self) -> StackHome:
        return self.stack.home

    @contextlib.contextmanager
    def runtime(self) -> Iterator[Runtime]:
        """Open catalog and store with the settings of the workers."""
        settings = self.stack.services["worker-default"].spec.environment
        mine = {name: value for name, value in settings.items() if name.startswith(("CLOUDSEG_", "AWS_"))}
        before = dict(os.environ)
        os.environ.update(mine)
        try:
            yield open_runtime()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def of_every_process(self, ask: Callable[[psutil.Process], Any]) -> list[Any]:
        """Return `ask(process)` for every process of every service, except those that end meanwhile."""
        answers = []
        for process in [process for service in self.stack.services.values() for process in service.processes()]:
            with contextlib.suppress(psutil.NoSuchProcess):  # of which ZombieProcess is one
                answers.append(ask(process))
        return answers

    def trigger(self, dag_id: str, form: dict[str, Any]) -> str:
        return self.retry(lambda: self.api.trigger(dag_id, form))

    def retry(self, ask: Callable[[], Any], limit_s: float = 180) -> Any:
        """Return `ask()`, repeated while the API or its database restarts."""
        until = time.monotonic() + limit_s
        while True:
            try:
                return ask()
            except Exception:  # a restarting service raises errors of any kind; one that lasts is raised
                if time.monotonic() > until:
                    raise
                time.sleep(1)

    def task(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        return next(task for task in self.retry(lambda: self.api.tasks(dag_id, run_id)) if task["task_id"] == task_id)

    def wait(self, what: str, ready: Callable[[], Any], limit_s: float, every_s: float = 0.5) -> Any:
        until = time.monotonic() + limit_s
        while not (found := ready()):
            assert time.monotonic() < until, f"waited {limit_s:.0f} s for {what}"
            time.sleep(every_s)
        return found

    def finish(self, dag_id: str, run_id: str, limit_s: float = 900) -> str:
        """Wait for the end of a run and return its state."""
        state = self.wait(
            f"{dag_id} {run_id}",
            lambda: (s := self.retry(lambda: self.api.run_state(dag_id, run_id))) in ENDED and s,
            limit_s,
            1.0,
        )
        return str(state)

    def wait_for_scheduled_runs(self) -> None:
        """Wait for the end of the scheduled runs that Airflow creates when DAGs are unpaused; the catalog is empty.

        Otherwise the first scheduled retraining could start on the labels that a test has just ingested.
        """
        for dag_id in ("cloudseg_ingest", "cloudseg_retrain", "cloudseg_maintain"):
            states = self.wait(f"the first run of {dag_id}", lambda name=dag_id: self._ended_runs(name), 300, 1.0)
            assert set(states) == {"success"}, f"{dag_id}: {states}"

    def _ended_runs(self, dag_id: str) -> list[str]:
        states = list(self.api.runs(dag_id).values())
        return states if all(state in ENDED for state in states) else []

    def begin_training(self) -> str:
        """Start a retraining, wait until its training has stored a checkpoint, and return the DAG run's id."""
        run_id = self.trigger("cloudseg_retrain", {"recipe": "smoke", "force": True})
        with self.runtime() as runtime:

            def is_under_way() -> bool:
                with runtime.catalog.read() as db:
                    run = training_rows.find_run(db, f"airflow-{run_id}")
                    assert run is None or run.status == "running", (
                        "the training completed before it could be interrupted"
                    )
                    return any(found.step > 0 for found in training_rows.list_checkpoints(db, f"airflow-{run_id}"))

            self.wait("a checkpoint in the store", is_under_way, 900, 0.05)
        return str(run_id)

    def finish_training(self, run_id: str, limit_s: float = 1200) -> dict[str, Any]:
        """Wait for the end of the task `train`, stop the rest of the run and return the task instance."""

        def ended() -> dict[str, Any] | None:
            task = self.task("cloudseg_retrain", run_id, "train")
            return task if task["state"] in ("success", "failed") else None

        task = self.wait("the training", ended, limit_s, 1.0)
        path = f"/api/v2/dags/cloudseg_retrain/dagRuns/{quote(run_id, safe='')}"
        self.retry(lambda: self.api.call("PATCH", path, {"state": "failed"}))
        assert task["state"] == "success"
        return dict(task)

    def trained(self, run_id: str) -> dict[str, Any]:
        """Return the record of the training."""
        return dict(self.api.xcom("cloudseg_retrain", run_id, "train", "return_value"))

    def weights_of(self, weights_id: str) -> Weights:
        with self.runtime() as runtime, runtime.catalog.read() as db:
            return model_rows.get_weights(db, weights_id)

    def tensors(self, weights_id: str) -> dict[str, Any]:
        from cloudseg.model.weights import load_weights

        weights = self.weights_of(weights_id)
        with self.runtime() as runtime:
            return dict(load_weights(runtime.store.get(weights.key, weights.sha256)).net.state_dict())


def choose_tiles(folder: Path, shared: Path) -> tuple[Path, str]:
    """Return a folder with scenes of the real data set if it is there, else synthetic tiles, and a description."""
    images = sorted((shared / "s2_catalogue" / "images").glob("*.tif"))
    labeled = [path for path in images if (shared / "s2_catalogue" / "labels" / path.name).is_file()]
    if not labeled:
        make_tiles(folder, count=LABELED, size=SIZE, unlabeled=UNLABELED)
        return folder, f"{LABELED + UNLABELED} synthetic tiles"
    for path in labeled[:: max(1, len(labeled) // SLICE)][:SLICE]:
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(shared / "s2_catalogue" / kind / path.name, folder / kind / path.name)
    return folder, f"{SLICE} scenes of the Sentinel-2 data set"
