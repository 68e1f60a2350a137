"""Runs of `cloudseg_decide` in a real Airflow database on a real home, one after the other: a program.

It prints one line of JSON: for each run its state, the states of its tasks, what the catalog holds after it, and what
after its decision was made once more with the same arguments, as by a repeated task.
"""

import json
import sys
from typing import Any

from airflow.utils.db import initdb
from dag_files import load_dags

from cloudseg import stages
from cloudseg.catalog import label_rows, model_rows, quarantine_rows, reader_rows, scene_rows
from cloudseg.records import Quarantined
from cloudseg.runtime import Runtime, open_runtime
from tests.stages.test_decisions import add_verdict, challenger
from tests.stages.test_plans import NOW, add_label, add_scene, add_weights, make_champion

WAITING, BAD = "lb-" + "0" * 20, "lb-" + "1" * 20
RUNS: list[tuple[str, str]] = [
    ("promote", "v2"),
    ("roll_back", "v2"),
    ("decline", "v2"),
    ("promote", "v2"),
    ("withdraw_label", "used"),
    ("accept_label", "wait"),
    ("reject_label", BAD),
    ("release", "a.tif"),
    ("switch_readers", "v1"),
    ("switch_readers_back", "1"),
]
"""Decisions, and what each is about."""
STAGES = {
    "promote": stages.promote,
    "roll_back": stages.rollback,
    "decline": stages.decline,
    "withdraw_label": stages.withdraw_labels,
    "accept_label": stages.accept_labels,
    "reject_label": stages.reject_labels,
    "release": stages.release_from_quarantine,
    "switch_readers": stages.switch_readers,
    "switch_readers_back": stages.switch_readers_back,
}


def _labels(runtime: Runtime) -> dict[str, str]:
    with runtime.catalog.read() as db:
        stated = label_rows.list_stated(db)
        return {f"{scene_rows.get_scene(db, s.label.scene_id).name} {s.label.version}": s.event.state for s in stated}


def _found(runtime: Runtime) -> dict[str, Any]:
    with runtime.catalog.read() as db:
        history, switches = model_rows.list_promotions(db), reader_rows.list_switches(db)
        return {
            "champion": f"v{model_rows.get_weights(db, history[0].weights_id).version}",
            "generations": len(history),
            "why": f"{history[0].actor}: {history[0].reason}",
            "declined": [d.decision for d in model_rows.list_decisions(db, model_rows.list_weights(db)[0].weights_id)],
            "labels": _labels(runtime),
            "quarantine": quarantine_rows.count_quarantined(db),
            "switches": [f"{s.action} {s.mode}" for s in reversed(switches)],
        }


def _home() -> Runtime:
    """Champion v1, a challenger v2 with the verdict PROMOTE, labels, a file in quarantine."""
    runtime = open_runtime()
    first = add_weights(runtime)
    make_champion(runtime, first)
    second = challenger(runtime, outcome="PROMOTE", champion_id=first.weights_id, name="used")
    add_verdict(runtime, second, "HOLD", second.weights_id)  # a verdict against another champion does not count
    for label_id, name in ((WAITING, "wait"), (BAD, "bad")):
        label = add_label(runtime, add_scene(runtime, name))
        with runtime.catalog.begin() as db:
            proposed = label.model_copy(update={"label_id": label_id, "version": 2})
            scene_rows.add_label(db, proposed, state="proposed")
    with runtime.catalog.begin() as db:
        entry = {"quarantine_id": "qu-" + "0" * 20, "name": "a.tif", "source_uri": "file:///a.tif"}
        facts = {"source_sha256": "0" * 64, "error": "BadScene", "what": "broken", "found": None, "expected": None}
        row = {**entry, **facts, "next_step": "", "created_at": NOW}
        scene_rows.add_quarantined(db, Quarantined.model_validate(row))
    return runtime


if __name__ == "__main__":
    initdb()
    home, dag = _home(), load_dags()["cloudseg_decide"]
    ended = []
    for decision, about in RUNS:
        conf = {"decision": decision, "about": [about], "reason": f"because {decision}"}
        run = dag.test(run_conf=conf, mark_success_pattern="doctor" if ended else None)  # once is enough: a second each
        instances = {ti.task_id: ti for ti in run.get_task_instances()}
        found = {"run": str(run.state), "tasks": {name: str(ti.state) for name, ti in instances.items()}}
        found |= {"after": _found(home)}
        if run.state == "success":
            arguments = instances[decision].xcom_pull(task_ids="check", key="arguments")
            STAGES[decision](**arguments, actor="again", reason="again")  # type: ignore[operator]
        ended.append(found | {"repeated": _found(home)})
    sys.stdout.write("\n" + json.dumps(ended) + "\n")
