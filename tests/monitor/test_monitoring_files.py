"""docker/monitoring against the code: names of alerts and metrics, limits, what Airflow and the DAGs emit; promtool."""

import ast
import fnmatch
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from promtool_program import find_promtool

from cloudseg.monitor import conditions
from cloudseg.monitor.alerts import ALERTS
from cloudseg.monitor.exposition import METRICS, PREFIX
from cloudseg.settings import Settings

REPO = Path(__file__).parents[2]
FOLDER = REPO / "docker" / "monitoring"
UNIT_TESTS = Path(__file__).parent / "rules_test.yml"
PRINTED = {PREFIX + metric.name for metric in METRICS}
_NAME = re.compile(r"\b(?:cloudseg|airflow)_[a-z0-9_]+\b")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def rules() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in load(FOLDER / "alerts.yml")["groups"] for rule in group["rules"]}


def mappings() -> list[dict[str, Any]]:
    return load(FOLDER / "statsd_mapping.yml")["mappings"]


def mapped() -> set[str]:
    """Return the names of metrics that the mapping makes; a summary also has a sum and a count."""
    return {entry["name"] for entry in mappings() if entry.get("action") != "drop"}


def dashboard() -> list[dict[str, Any]]:
    return json.loads((FOLDER / "grafana_dashboard.json").read_text("utf-8"))["panels"]


def dashboard_queries() -> list[str]:
    return [target["expr"] for panel in dashboard() for target in panel["targets"]]


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run([find_promtool(), *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- alerts -----------------------------------------------------------------------------------------------------------


def test_the_rules_are_the_alerts_that_last():
    """The same names, severities, titles and anchors as the messages have; what merely happened needs no rule."""
    lasting = {kind.name: kind for kind in ALERTS.values() if kind.lasts}
    assert rules().keys() == lasting.keys()
    for name, rule in rules().items():
        kind, notes = lasting[name], rule["annotations"]
        assert rule["labels"] == {"severity": kind.severity}, name
        assert (notes["summary"], notes["runbook"]) == (kind.title, kind.runbook), name
        assert notes["description"], name


def test_the_limits_are_the_defaults_of_the_settings():
    default = {name: field.default for name, field in Settings.model_fields.items()}
    expected = {
        "no-good-night": f"> {default['alert_night_hours']:.0f} * 3600",
        "masks-late": f"> {default['alert_mask_minutes']:.0f} * 60",
        "quarantine-grows": f">= {default['alert_quarantine_files']}",
    }
    for name, limit in expected.items():
        assert limit in rules()[name]["expr"], name


def test_the_limits_of_scenes_outside_of_the_training_are_those_of_the_message():
    masks, share = conditions._OUTSIDE_MASKS, conditions._OUTSIDE_SHARE
    rule = rules()["outside-training"]["expr"]
    assert f"cloudseg_masks_outside_training_last_week >= {masks} and" in rule
    assert f"> {share} * cloudseg_masks_compared_with_training_last_week" in rule
    (panel,) = (panel for panel in dashboard() if "Share of the scenes outside" in panel["title"])
    assert [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]] == [None, share]


def test_an_alert_that_is_asked_for_by_name_exists():
    asked = re.findall(r'alert="([a-z-]+)"', (FOLDER / "alerts.yml").read_text("utf-8"))
    assert asked
    assert set(asked) <= ALERTS.keys()


def test_every_rule_fires_in_a_unit_test():
    fired = {name for test in load(UNIT_TESTS)["tests"] for name in _expected(test)}
    assert fired == rules().keys()


def _expected(test: dict[str, Any]) -> set[str]:
    samples = [s["labels"] for part in test.get("promql_expr_test", []) for s in part["exp_samples"]]
    named = {name for labels in samples for name in re.findall(r'alertname="([a-z-]+)"', labels)}
    return named | {part["alertname"] for part in test.get("alert_rule_test", []) if part["exp_alerts"]}


def test_promtool_takes_the_rules():
    assert f"{len(rules())} rules found" in promtool("check", "rules", FOLDER / "alerts.yml")


def test_promtool_sees_every_alert_fire_and_none_without_a_reason():
    assert "SUCCESS" in promtool("test", "rules", UNIT_TESTS)


def test_promtool_takes_the_configuration(tmp_path: Path):
    for name in ("alerts.yml", "prometheus.yml"):
        shutil.copy(FOLDER / name, tmp_path / name)
    key = tmp_path / "key"
    key.touch()
    configuration = tmp_path / "prometheus.yml"
    text = configuration.read_text("utf-8")
    assert "/tmp/metrics_key" in text  # noqa: S108 -- in the container
    configuration.write_text(text.replace("/tmp/metrics_key", str(key)))  # noqa: S108
    assert "SUCCESS" in promtool("check", "config", configuration)


# --- names ------------------------------------------------------------------------------------------------------------


def test_every_metric_in_rules_and_dashboard_exists():
    queries = [rule["expr"] for rule in rules().values()] + dashboard_queries()
    named = {name for query in queries for name in _NAME.findall(query)}
    assert len(named) > 20
    assert named <= PRINTED | mapped(), named - PRINTED - mapped()


def test_every_metric_that_is_printed_is_on_the_dashboard_or_in_a_rule():
    text = " ".join(dashboard_queries() + [rule["expr"] for rule in rules().values()])
    shown = set(_NAME.findall(text))
    elsewhere = {"masks", "mask_latency_scenes", "approvals_waiting_since_timestamp_seconds", "scenes_added_last_day"}
    assert PRINTED - shown == {PREFIX + name for name in elsewhere}


def test_what_a_rule_compares_is_on_the_dashboard():
    compared = {name for rule in rules().values() for name in _NAME.findall(rule["expr"])}
    assert compared - {"cloudseg_figures_timestamp_seconds"} <= set(_NAME.findall(" ".join(dashboard_queries())))


def test_metrics_of_statsd_have_names_of_their_own():
    assert not mapped() & PRINTED


def test_what_the_service_emits_is_mapped():
    emitted = set[str]()
    for path in (REPO / "dags" / "cloudseg_notify.py", REPO / "plugins" / "cloudseg_celery.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("stats.incr", "stats.gauge", "stats.timing"):
                emitted.add(_literal(node.args[0]))
    assert len(emitted) >= 12
    for name in emitted:
        assert _find(f"airflow.{name}") != "dropped", name


def _literal(node: ast.expr) -> str:
    """Return a name with every inserted value replaced by one word."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "word" for part in node.values)
    return ast.literal_eval(node)


def _find(name: str) -> str:
    """Return the metric of the first mapping that fits; `*` is one part of a name (statsd_exporter, Glob matching)."""
    for entry in mappings():
        if entry.get("match_type") == "regex":
            fits = re.search(entry["match"], name) is not None
        else:
            fits = entry["match"].count(".") == name.count(".") and fnmatch.fnmatchcase(name, entry["match"])
        if fits:
            return entry["name"]
    raise AssertionError(f"{name} fits nothing")


def test_what_is_mapped_of_airflow_is_emitted_by_it():
    """Names in this version's own list of metrics, with their variables as `*`."""
    found = importlib.util.find_spec("airflow")  # importing it takes seconds
    if found is None or found.origin is None:
        pytest.skip("the extra `airflow` is not installed")
    template = Path(found.origin).parent / "_shared" / "observability" / "metrics" / "metrics_template.yaml"
    known = set[str]()
    for entry in load(template)["metrics"]:
        name = entry["name"] if entry["legacy_name"] == "-" else entry["legacy_name"]
        known.add("airflow." + re.sub(r"\{.+?\}", "*", name))
    asked = {entry["match"] for entry in mappings() if not entry["match"].startswith((".", "airflow.cloudseg."))}
    assert len(asked) > 10
    assert asked <= known, asked - known


EMIT = """
import socket, os
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("127.0.0.1", 0))
receiver.settimeout(1)
os.environ["AIRFLOW__METRICS__STATSD_PORT"] = str(receiver.getsockname()[1])
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics.stats_utils import get_stats_factory
stats.initialize(factory=get_stats_factory(), export_legacy_names=True)
task = {"dag_id": "cloudseg_retrain", "task_id": "judge.compare"}
stats.incr("ti.finish", tags=task | {"state": "failed", "run_type": "scheduled"})
stats.timing("task.duration", 1234.0, tags=task)
stats.timing("dagrun.duration.success", 1234.0, tags={"dag_id": "cloudseg_ingest"})
stats.gauge("pool.open_slots", 1, tags={"pool_name": "gpu"})
stats.incr("cloudseg.masks", 3)
try:
    while True:
        print(receiver.recv(2000).decode())
except TimeoutError:
    pass
"""


def test_what_airflow_sends_arrives_under_the_names_of_the_mapping(tmp_path: Path):
    """A real StatsD client of Airflow, and a socket in the place of the exporter."""
    pytest.importorskip("statsd", reason="the extra `production` is not installed")
    settings = {"STATSD_ON": "True", "STATSD_HOST": "127.0.0.1", "STATSD_PREFIX": "airflow"}
    environment = os.environ | {f"AIRFLOW__METRICS__{name}": value for name, value in settings.items()}
    command = [sys.executable, "-W", "ignore", "-c", EMIT]
    done = subprocess.run(
        command,
        env=environment | {"AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    sent = [line.partition(":")[0] for line in done.stdout.splitlines() if line.startswith("airflow.")]
    found = {_find(name) for name in sent} - {"dropped"}
    assert found == {
        "airflow_ti_finish",
        "airflow_task_duration_seconds",
        "airflow_dagrun_duration_seconds",
        "airflow_pool_slots",
        "cloudseg_predicted_masks_total",
    }


def test_names_that_have_no_end_are_dropped():
    assert _find("airflow.dag_processing.last_run.seconds_ago.some_file") == "dropped"
    assert _find("airflow.ti.finish.cloudseg_retrain.judge__compare.failed") == "airflow_ti_finish"


# --- Grafana ----------------------------------------------------------------------------------------------------------


def test_the_dashboard_is_one_that_grafana_can_load():
    board = json.loads((FOLDER / "grafana_dashboard.json").read_text("utf-8"))
    source = load(FOLDER / "grafana_datasource.yml")["datasources"][0]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) >= 15
    taken = set[tuple[int, int]]()
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["description"], panel["title"]
        uids = {panel["datasource"]["uid"], *(target["datasource"]["uid"] for target in panel["targets"])}
        assert uids == {source["uid"]}, panel["title"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    for query in dashboard_queries():
        assert query.count("(") == query.count(")"), query


def test_compose_mounts_every_file():
    compose = load(REPO / "docker" / "compose.yaml")
    mounted = {v.split(":")[0] for service in compose["services"].values() for v in service.get("volumes", [])}
    assert {f"./monitoring/{path.name}" for path in FOLDER.iterdir()} <= mounted
