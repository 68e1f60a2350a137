"""Every alert of the service begins, is found again, and ends, on a real home: a program.

Messages go to the receivers that the environment names. Every step is made twice, as a watch or a retried task does.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudseg_dagkit as kit
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.execution_time.context import set_current_context
from cloudseg_notify import emit_metrics_and_notify, page_url

from cloudseg import stages
from cloudseg.catalog import drift_rows, model_rows, scene_rows, tables, training_rows
from cloudseg.recipe import load_recipe
from cloudseg.records import Mask, Quarantined, SceneBrightness, Snapshot, Weights
from cloudseg.runtime import Runtime, open_runtime
from tests.stages.test_plans import (
    NOW,
    add_label,
    add_run,
    add_scene,
    add_snapshot,
    add_verdict,
    add_weights,
    make_champion,
)

LATER = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
RUN = "scheduled__2026-11-30T02:00:00+00:00"


def twice(step: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    for _ in range(2):
        step(*arguments, **named)


def watch(as_of: str = LATER) -> None:
    """Do what the task of `cloudseg_watch` does."""
    kit.send_messages(stages.watch(pages_url=page_url(), as_of=as_of).as_json())


def home() -> tuple[Runtime, Weights, Snapshot]:
    """A champion trained on 60 dark scenes, 30 bright scenes without masks, a new label, a file in quarantine."""
    runtime, nightly = open_runtime(), load_recipe("nightly")
    trained = [add_scene(runtime, f"trained {number}") for number in range(60)]
    labels = [add_label(runtime, scene) for scene in trained]
    champion = add_run(runtime, add_snapshot(runtime, "first", labels), nightly, compared=True)
    make_champion(runtime, champion)
    arrived = [add_scene(runtime, f"new {number}") for number in range(30)]
    labels.append(add_label(runtime, arrived[0]))
    with runtime.catalog.begin() as db:
        for number, scene in enumerate(trained + arrived):
            bright = 0.1 + number / 600 + (0.4 if scene in arrived else 0)
            drift_rows.add_brightness(db, SceneBrightness(scene_id=scene.scene_id, reflectance=bright, created_at=NOW))
        late = tables.scene.update().where(tables.scene.c.name.startswith("new"))
        db.execute(late.values(created_at=NOW + timedelta(weeks=2)))
        for scene in trained[:5]:
            row = {"mask_id": f"mk-{scene.scene_id}", "scene_id": scene.scene_id, "weights_id": champion.weights_id}
            figures = {"threshold": 0.5, "cloud_fraction": 0.4, "valid_fraction": 1.0, "radiometry": "outside"}
            stored = {"key": f"masks/{scene.scene_id}", "sha256": "0" * 64, "size": 1, "companions": {}}
            model_rows.add_mask(db, Mask.model_validate(row | figures | stored | {"created_at": datetime.now(UTC)}))
        facts = {"name": "a.tif", "source_uri": "file:///a.tif", "source_sha256": "0", "error": "BadScene"}
        words = {"what": "broken", "found": None, "expected": None, "next_step": "", "created_at": datetime.now(UTC)}
        scene_rows.add_quarantined(db, Quarantined.model_validate({"quarantine_id": "qu-1", **facts, **words}))
    return runtime, champion, add_snapshot(runtime, "second", labels)


def train(runtime: Runtime, like: Weights, run_id: str) -> Weights:
    """Add a training and its weights, of the same snapshot and recipe as others."""
    with runtime.catalog.begin() as db:
        run = training_rows.get_run(db, str(like.run_id))
        training_rows.add_run(db, run.model_copy(update={"run_id": run_id}))
    return add_weights(runtime, run_id, like.snapshot_id)


def mend(runtime: Runtime, next_night: Snapshot) -> None:
    """A night learns the new label, no scene waits or is bright any more, the file is released, the disk has room."""
    with runtime.catalog.begin() as db:
        db.execute(tables.scene.update().values(publishable=False))
        db.execute(tables.scene_brightness.update().values(reflectance=None))
        db.execute(tables.quarantine.delete())
        db.execute(tables.mask.update().values(radiometry="inside"))
    add_run(runtime, next_night, load_recipe("nightly"), compared=True, number=1)
    os.environ["CLOUDSEG_ALERT_DISK_PERCENT"] = "0"


def task_instance(dag_id: str, task_id: str) -> Any:
    return SimpleNamespace(dag_id=dag_id, task_id=task_id, run_id=RUN, map_index=-1)


def ask(question: str) -> None:
    """Do what Airflow does when a task begins to wait for a person."""
    task = SimpleNamespace(subject=question, hitl_summary={"timeout_datetime": "2026-12-03T02:10:00+00:00"})
    kit.WaitingQuestion().notify({"ti": task_instance("cloudseg_retrain", "approve"), "task": task, "run_id": RUN})


def succeed(task_id: str, record: Any = None) -> None:
    ti = task_instance("cloudseg_retrain", task_id)
    kit.emit_metrics_and_notify({"ti": ti, "run_id": RUN}, record)


def fail() -> None:
    ti = task_instance("cloudseg_retrain", "train")
    kit.notify_failure({"ti": ti, "run_id": RUN, "exception": ValueError("loss is nan")})


class Watching:
    """A running task of `cloudseg_watch`, and an Airflow with one run of `cloudseg_retrain`."""

    def __init__(self, states: Sequence[str]) -> None:
        self.states = states

    def get_dr_count(self, dag_id: str, run_ids: list[str], states: list[str]) -> int:
        return int((dag_id, run_ids) == ("cloudseg_retrain", [RUN]) and bool(set(states) & set(self.states)))

    def xcom_push(self, **_: Any) -> None:
        return None


def verdict_is_due(states: Sequence[str] = ("running",), at: datetime = datetime(2026, 11, 30, 6, tzinfo=UTC)) -> None:
    """Do what the task `verdict` of `cloudseg_watch` does."""
    context: Any = {"ti": Watching(states), "dag_run": SimpleNamespace(run_after=at)}
    with set_current_context(context), suppress(AirflowSkipException):
        kit.send_alert(stages.raise_missing_verdict(**kit.late_night()))


def run_all() -> None:
    runtime, champion, next_night = home()
    store = Path(runtime.store.uri.removeprefix("file://"))
    key = store / champion.key
    twice(watch, datetime.now(UTC).isoformat())  # champion-changed, no-good-night, quarantine-grows, disk, drift
    twice(watch)  # masks-late
    key.rename(store / "away")
    twice(watch)  # damaged-objects
    (store / "away").rename(key)
    twice(watch)
    verdict_is_due(states=("success", "failed"))
    verdict_is_due(at=datetime(2026, 11, 30, 5, 45, tzinfo=UTC))  # that of the night before, which is over
    assert "no-verdict" not in {alert["name"] for alert in stages.alerts()}
    twice(verdict_is_due)
    weights = train(runtime, champion, f"airflow-{RUN}")
    make_champion(runtime, weights, replaces=champion.weights_id)
    twice(emit_metrics_and_notify, "promote", {})
    stages.rollback(weights.weights_id, actor="ada", reason="misses thin clouds")
    twice(emit_metrics_and_notify, "roll_back", {})
    twice(ask, "Promote v2 to champion?")
    twice(succeed, "approve")
    twice(fail)
    twice(succeed, "train", {"seconds": 1.0, "images_per_s": None})
    rejected = {"outcome": "REJECT", "reasons": ["Worse."], "champion_id": champion.weights_id}
    twice(succeed, "compare", rejected | {"challenger_id": "w-2", "verdict_id": "ve-2"})
    done = {"weights_id": champion.weights_id, "done": 9, "total": 9, "switched": True}
    twice(succeed, "finish", done)
    add_verdict(runtime, weights)
    with runtime.catalog.begin() as db:
        db.execute(tables.verdict.update().values(created_at=datetime.now(UTC)))
    verdict_is_due()  # it has one now
    mend(runtime, next_night)
    twice(watch)
    store.rename(store.with_name("gone"))
    store.write_text("no folder", encoding="utf-8")
    twice(watch)
    store.unlink()
    store.with_name("gone").rename(store)
    twice(watch)


if __name__ == "__main__":
    run_all()
    sys.stdout.write("\ndone\n")
