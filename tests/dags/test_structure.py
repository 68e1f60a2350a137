"""The DAG files: the list of them, their imports, and the tasks and dependencies of each DAG."""

import ast
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dag_files import DAGS, FILES, REPO, SHARED, airflow_home, task_functions

from cloudseg.raster.thresholds import THRESHOLD_NAMES
from cloudseg.recipe import recipe_names

DAG_IDS = sorted(FILES.values())


def test_every_dag_file_is_listed() -> None:
    found = {path.name for path in DAGS.glob("*.py")}
    assert found == set(FILES) | SHARED, "add new DAG files to FILES in tests/dags/dag_files.py"
    assert set((DAGS / ".airflowignore").read_text().split()) == SHARED


def run_python(code: str, *arguments: str, home: Path) -> str:
    """Return the output of code in a new interpreter, without the warnings and state of Airflow in this one."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | airflow_home(home),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def test_airflow_finds_every_dag_and_no_error(tmp_path: Path) -> None:
    """A DAG's id is the name of its file."""
    code = (
        "import json, sys; from airflow.dag_processing.dagbag import BundleDagBag as DagBag\n"
        "bag = DagBag(dag_folder=sys.argv[1], bundle_path=sys.argv[1], bundle_name='dags-folder')\n"
        "print(json.dumps([{dag.fileloc: name for name, dag in bag.dags.items()}, bag.import_errors]))"
    )
    found, errors = json.loads(run_python(code, str(DAGS), home=tmp_path).splitlines()[-1])
    assert errors == {}
    assert sorted(found.values()) == DAG_IDS
    assert all(Path(file).stem == dag_id for file, dag_id in found.items())


@pytest.mark.parametrize("name", sorted(FILES))
def test_parsing_a_dag_file_imports_nothing_heavy(name: str, tmp_path: Path) -> None:
    code = (
        "import sys, airflow.sdk, airflow.providers.standard.operators.hitl\n"
        "sys.path.insert(0, sys.argv[1]); before = set(sys.modules)\n"
        "__import__(sys.argv[2]); print(*sorted(set(sys.modules) - before))"
    )
    out = run_python(code, str(DAGS), Path(name).stem, home=tmp_path)
    loaded = {module.split(".")[0] for module in out.split()}
    assert loaded.isdisjoint({"torch", "rasterio", "numpy", "sqlalchemy", "cloudseg", "shapely", "pandas"})
    assert {Path(name).stem, "cloudseg_dagkit"} <= loaded


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_task_body_has_at_most_five_lines(name: str) -> None:
    functions = task_functions(DAGS / name)
    assert functions
    for function in functions:
        lines = {line for node in function.body for line in range(node.lineno, (node.end_lineno or 0) + 1)}
        assert len(lines) <= 5, f"{name}: {function.name} has {len(lines)} lines"


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_task_calls_one_stage_and_no_other_part_of_the_library(name: str) -> None:
    tree = ast.parse((DAGS / name).read_text(encoding="utf-8"))
    imported = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        if "cloudseg" in ast.unparse(node)
    ]
    shared = tuple(f"from {Path(name).stem} " for name in SHARED)
    assert {line for line in imported if not line.startswith(shared)} == {"from cloudseg import stages"}
    for function in task_functions(DAGS / name):
        calls = [
            node
            for node in ast.walk(function)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "stages"
        ]
        # One call on each path: a `return` ends the first.
        returns = [node for node in ast.walk(function) if isinstance(node, ast.Return)]
        assert len(calls) <= max(1, len(returns)), f"{name}: {function.name}"


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_every_dag_follows_the_conventions(dags: dict[str, Any], dag_id: str) -> None:
    dag = dags[dag_id]
    assert set(dag.tags) == {"cloudseg", dag_id.removeprefix("cloudseg_")}
    assert dag.catchup is False
    assert dag.max_active_runs == 1
    assert dag.description
    for heading in (
        "**What it does.**",
        "**Started by**",
        "**What it does not protect against.**",
        "**When it fails",
        "Example conf: `{" if len(dag.params) else "There is no form.",
    ):
        assert heading in dag.doc_md, f"{dag_id} lacks: {heading}"


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_every_task_has_an_owner_and_the_retry_policy(dags: dict[str, Any], dag_id: str) -> None:
    from cloudseg_dagkit import RetryTransientErrors

    for task in dags[dag_id].tasks:
        assert task.owner == "cloudseg"
        assert task.retries == 2
        assert isinstance(task.retry_policy, RetryTransientErrors)
        assert task.execution_timeout is not None or task.task_id == "approve"


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_the_example_conf_of_the_manual_is_valid(dags: dict[str, Any], dag_id: str) -> None:
    dag = dags[dag_id]
    if not len(dag.params):
        return
    example = json.loads(dag.doc_md.split("Example conf: `")[1].split("`")[0])
    assert example
    for name, value in example.items():
        dag.params.get_param(name).resolve(value)


def test_the_schedules(dags: dict[str, Any]) -> None:
    assert dags["cloudseg_ingest"].timetable.expression == "*/5 * * * *"
    assert dags["cloudseg_maintain"].timetable.expression == "30 3 * * *"
    assert dags["cloudseg_ingest_stac"].timetable.can_be_scheduled is False
    assert dags["cloudseg_backfill"].timetable.expression == "30 4 * * *"
    assert dags["cloudseg_decide"].timetable.can_be_scheduled is False
    assert dags["cloudseg_watch"].timetable.expression == "*/15 * * * *"
    assert dags["cloudseg_backup"].timetable.expression == "30 5 * * *"
    retrain = dags["cloudseg_retrain"].timetable
    assert retrain.timetable.expression == "0 2 * * *"
    assert retrain.asset_condition.name == "cloudseg.labels"
    assert {asset.name for asset in dags["cloudseg_predict"].timetable.asset_condition.objects} == {
        "cloudseg.scenes",
        "cloudseg.champion",
    }


def test_assets_connect_the_dags(dags: dict[str, Any]) -> None:
    made = {
        (dag_id, task.task_id): [asset.name for asset in task.outlets]
        for dag_id, dag in dags.items()
        for task in dag.tasks
        if task.outlets
    }
    assert made == {
        ("cloudseg_ingest", "announce_scenes"): ["cloudseg.scenes"],
        ("cloudseg_ingest", "announce_labels"): ["cloudseg.labels"],
        ("cloudseg_ingest_stac", "announce_scenes"): ["cloudseg.scenes"],
        ("cloudseg_retrain", "promote"): ["cloudseg.champion"],
        ("cloudseg_predict", "predict"): ["cloudseg.masks"],
        ("cloudseg_backfill", "predict"): ["cloudseg.masks"],
        ("cloudseg_backfill", "announce"): ["cloudseg.backfilled_months"],
        ("cloudseg_decide", "promote"): ["cloudseg.champion"],
        ("cloudseg_decide", "roll_back"): ["cloudseg.champion"],
        ("cloudseg_decide", "accept_label"): ["cloudseg.labels"],
        ("cloudseg_decide", "withdraw_label"): ["cloudseg.labels"],
    }


def test_tasks_that_use_a_model_run_in_the_gpu_pool(dags: dict[str, Any]) -> None:
    bound = {task.task_id for dag in dags.values() for task in dag.tasks if (task.pool, task.queue) == ("gpu", "gpu")}
    assert bound == {"train", "evaluate", "compare", "promote", "predict", "decline"}, (
        "torch is installed in the image of the GPU workers only"
    )
    assert dags["cloudseg_retrain"].get_task("train").execution_timeout > timedelta(minutes=720)


def test_every_dag_begins_with_the_doctor(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        # An alert must go out most of all when the service is not operational.
        expected = ["watch"] if dag.dag_id == "cloudseg_watch" else ["doctor"]
        assert [task.task_id for task in dag.roots] == expected, dag.dag_id


def test_every_task_has_hooks_for_connections_and_metrics(dags: dict[str, Any]) -> None:
    import cloudseg_dagkit as kit

    for task in [task for dag in dags.values() for task in dag.tasks]:
        hooks = (
            task.partial_kwargs
            if task.is_mapped
            else {"pre_execute": task._pre_execute_hook, "post_execute": task._post_execute_hook}
        )
        assert (hooks["pre_execute"], hooks["post_execute"]) == (kit.before_task, kit.emit_metrics_and_notify), (
            task.task_id
        )
        failed = task.partial_kwargs["on_failure_callback"] if task.is_mapped else task.on_failure_callback
        assert list(failed if isinstance(failed, list | tuple) else [failed]) == [kit.notify_failure], task.task_id


def test_predict_is_mapped_and_displayed_by_name(dags: dict[str, Any]) -> None:
    predict = dags["cloudseg_predict"].get_task("predict")
    assert predict.is_mapped
    assert predict.partial_kwargs["map_index_template"] == "{{ shown_as }}"
    minutes = dags["cloudseg_predict"].params.get_param("minutes")
    assert predict.partial_kwargs["execution_timeout"] > timedelta(minutes=minutes.schema["maximum"])


def test_approval_is_on_a_branch_of_its_own(dags: dict[str, Any]) -> None:
    dag = dags["cloudseg_retrain"]
    assert dag.get_task("approve").upstream_task_ids == {"ask_or_not"}
    assert dag.get_task("approve").downstream_task_ids == {"promote"}
    assert dag.get_task("ask_or_not").downstream_task_ids == {"approve", "promote"}
    assert dag.get_task("promote").trigger_rule == "none_failed_min_one_success"
    approve = dag.get_task("approve")
    assert (approve.options, approve.defaults) == (["Approve", "Reject"], ["Reject"])
    assert approve.response_timeout == timedelta(days=3)


def test_the_params_list_every_recipe(dags: dict[str, Any]) -> None:
    assert dags["cloudseg_retrain"].params.get_param("recipe").schema["enum"] == recipe_names()


def test_new_labels_are_counted_for_the_recipe_that_is_trained(dags: dict[str, Any]) -> None:
    """`cloudseg_ingest` counts for `plan_retrain`'s default recipe; asset-triggered runs use the DAG's default."""
    from inspect import signature

    from cloudseg.stages import plan_retrain

    assert dags["cloudseg_retrain"].params["recipe"] == signature(plan_retrain).parameters["recipe"].default


def test_the_form_takes_a_threshold_as_a_number_as_text_or_by_name(dags: dict[str, Any]) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    threshold = dags["cloudseg_predict"].params.get_param("threshold")
    assert threshold.schema["examples"] == list(THRESHOLD_NAMES), "what the form suggests"
    for value in (None, 0.5, 1, "0.5", ".5", "1.0", *THRESHOLD_NAMES):
        assert threshold.resolve(value) == value
    for value in (0, 1.5, "", "2", "0.5 ", "brave", "nan", "1e-1", True):
        with pytest.raises(ParamValidationError):
            threshold.resolve(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("minutes", 0), ("minutes", -5), ("minutes", "ten"), ("recipe", "none"), ("approval", "yes"), ("force", 1)],
)
def test_invalid_params_are_refused(dags: dict[str, Any], name: str, value: object) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        dags["cloudseg_retrain"].params.get_param(name).resolve(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", "/data/tiles"),
        ("source", "stac+file:///etc"),
        ("bbox", "3,50,4"),
        ("bbox", "1,2,3,4; rm"),
        ("limit", 0),
        ("max_cloud_cover", 101),
        ("datetime", "x" * 100),
    ],
)
def test_an_invalid_search_is_refused_by_the_form(dags: dict[str, Any], name: str, value: object) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        dags["cloudseg_ingest_stac"].params.get_param(name).resolve(value)


def test_the_search_of_the_form_is_that_of_the_stage(dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from inspect import signature

    import cloudseg_dagkit as kit

    from cloudseg.stages import ingest

    values = dict.fromkeys(dags["cloudseg_ingest_stac"].params) | {"source": "stac+https://example.org"}
    monkeypatch.setattr(kit, "form", lambda: values | {"bbox": "3.0,50.4,3.2,50.6"})
    found = kit.stac_search()
    signature(ingest).bind(**found)
    assert found["bbox"] == [3.0, 50.4, 3.2, 50.6]
    assert "datetime" not in found
    assert set(values) <= set(signature(ingest).parameters)


def test_no_dag_file_names_a_path_a_key_or_the_clock() -> None:
    for name in FILES:
        text = (REPO / "dags" / name).read_text(encoding="utf-8").split('"""', 2)[2]
        for word in ("os.environ", "now(", "Path(", "SELECT ", ".tif", "/work", "CLOUDSEG_"):
            assert word not in text, f"{name}: {word}"


def test_the_worklist_depends_on_nothing_and_stops_nothing(dags: dict[str, Any]) -> None:
    worklist = dags["cloudseg_maintain"].get_task("worklist")
    assert worklist.upstream_task_ids == {"doctor"}
    assert worklist.downstream_task_ids == set()
    assert worklist.queue != "gpu", "it reads rasters only"


def test_the_backfill_finishes_also_when_a_batch_failed_or_none_ran(dags: dict[str, Any]) -> None:
    dag = dags["cloudseg_backfill"]
    assert dag.get_task("predict").is_mapped
    assert dag.get_task("finish").trigger_rule == "all_done", (
        "all_done_min_one_success skips a task if one before it was skipped"
    )
    assert dag.get_task("finish").upstream_task_ids == {"plan", "predict"}
    assert dag.get_task("check").upstream_task_ids == {"predict"}, "failed scenes fail the run"


@pytest.mark.parametrize(
    ("name", "value"),
    [("decision", "delete"), ("reason", " "), ("reason", "x" * 501), ("about", "v31"), ("about", ["x"] * 201)],
)
def test_an_invalid_decision_is_refused_by_the_form(dags: dict[str, Any], name: str, value: object) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        dags["cloudseg_decide"].params.get_param(name).resolve(value)


def test_nobody_decides_without_saying_what_and_why() -> None:
    """Checked on a DAG that is imported anew: a param keeps the value that another test gave it."""
    import runpy

    from airflow.sdk.exceptions import ParamValidationError

    params = runpy.run_path(str(DAGS / "cloudseg_decide.py"))["DAG"].params
    for name in ("decision", "reason"):
        with pytest.raises(ParamValidationError):
            params.get_param(name).resolve()


def test_every_decision_is_a_task_and_a_plan(dags: dict[str, Any]) -> None:
    from typing import get_args

    from cloudseg.records import DecisionName

    schema = dags["cloudseg_decide"].params.get_param("decision").schema
    assert tuple(schema["enum"]) == tuple(schema["values_display"]) == get_args(DecisionName)
    tasks = {task.task_id for task in dags["cloudseg_decide"].tasks}
    assert tasks == {"doctor", "check", *get_args(DecisionName)}
    assert dags["cloudseg_decide"].get_task("check").downstream_task_ids == set(get_args(DecisionName))


@pytest.mark.parametrize("dag_id", ["cloudseg_retrain", "cloudseg_decide"])
def test_the_fields_of_a_form_are_visible_and_say_their_default(dags: dict[str, Any], dag_id: str) -> None:
    """Airflow opens only its own section of a form: a field with a `section` of its own is hidden at first.

    Its form marks a field as required unless its type may be null (`FlexibleForm` of Airflow's UI).
    """
    params = dags[dag_id].params
    for name in params:
        schema, text = params.get_param(name).schema, params.get_param(name).description
        assert "section" not in schema, name
        optional = "null" in schema["type"]
        assert optional or name in ("recipe", "approval", "decision", "reason"), name
        if name not in ("about", "decision", "reason"):
            assert "Default: " in text, name


def test_the_help_of_the_minutes_names_those_of_the_recipe(dags: dict[str, Any]) -> None:
    from cloudseg.recipe import load_recipe

    minutes = load_recipe("nightly").budget.minutes
    assert f"which is {minutes:.0f} for nightly" in dags["cloudseg_retrain"].params.get_param("minutes").description


def test_the_graph_of_the_retraining_has_one_box_for_the_decision(dags: dict[str, Any]) -> None:
    groups = dags["cloudseg_retrain"].task_group_dict
    assert set(groups["decision"].children) == {"evaluate", "compare", "ask_or_not", "approve", "promote"}
