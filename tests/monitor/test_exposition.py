"""What `cloudseg metrics` and /metrics print, read by the parser of Prometheus' own client."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from promtool_program import find_promtool

from cloudseg import stages
from cloudseg.cli import root
from cloudseg.monitor.exposition import METRICS, PREFIX, describe, metrics_text
from cloudseg.monitor.figures import Figures, Latency, ModelFigures

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture
def home(runtime_env: Path, migrated_file: Path) -> Path:
    """Set CLOUDSEG_HOME to a folder with an empty catalog."""
    runtime_env.mkdir()
    shutil.copy(migrated_file, runtime_env / "catalog.db")
    return runtime_env


@pytest.fixture
def figures(home: Path) -> Figures:
    """Return the figures of an empty catalog."""
    return stages.metrics()


@pytest.fixture
def known(figures: Figures) -> Figures:
    """Return figures with what an empty catalog does not know."""
    model = ModelFigures(weights_id="w-1", version=7, iou=0.8, iou_lower=0.75, iou_upper=None)
    changed = {
        "champion": model,
        "champion_since": AT,
        "latency_day": Latency(scenes=0, p50_s=None, p95_s=None),
        "latency_week": Latency(scenes=3, p50_s=90.0, p95_s=600.0),
        "alerts": {"drift": 2},
        "night": figures.night.model_copy(update={"due_since": AT}),
    }
    return figures.model_copy(update=changed)


def values(text: str) -> dict[tuple[str, ...], float]:
    """Return the samples by name and values of the labels, in the order of their names."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_metric_has_a_help_a_type_and_a_unit(figures: Figures):
    families = {family.name: family for family in text_string_to_metric_families(metrics_text(figures))}
    assert list(families) == [PREFIX + metric.name for metric in METRICS]
    for name, family in families.items():
        assert (family.type, bool(family.documentation)) == ("gauge", True), name
        assert not name.endswith("_total"), "a gauge is no counter"
        assert not any(part in ("minutes", "hours", "days", "kb", "mb", "percent") for part in name.split("_")), name


def test_every_figure_is_a_metric_and_has_its_source():
    """A figure that is added must be exported; ids and flags are no numbers."""
    exported = {path for metric in METRICS for path in metric.samples.values()}
    found = set[str]()
    for name, field in Figures.model_fields.items():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        kind = next((kind for kind in kinds if isinstance(kind, type) and hasattr(kind, "model_fields")), None)
        found |= {f"{name}.{inner}" for inner in kind.model_fields} if kind else {name}
    plain = {"champion.weights_id", "challenger.weights_id", "bytes.store_is_exact"}
    assert exported == found - plain
    for path in exported - {"at", "approvals.oldest_at"}:
        assert describe(path), path


def test_samples_are_the_figures_and_what_is_unknown_has_none(known: Figures):
    found = values(metrics_text(known))
    assert found["cloudseg_model_version", "champion"] == 7
    assert found["cloudseg_model_held_out_iou_lower_ratio", "champion"] == 0.75
    assert ("cloudseg_model_held_out_iou_upper_ratio", "champion") not in found
    assert ("cloudseg_model_version", "challenger") not in found
    assert found["cloudseg_champion_since_timestamp_seconds",] == AT.timestamp()
    assert found["cloudseg_retrain_due_since_timestamp_seconds",] == AT.timestamp()
    assert found["cloudseg_mask_latency_seconds", "95", "7d"] == 600.0
    assert ("cloudseg_mask_latency_seconds", "50", "1d") not in found
    assert found["cloudseg_alerts_open", "drift"] == 2
    assert ("cloudseg_night_cost",) not in found


def test_the_command_prints_text_and_json(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLOUDSEG_GPU_HOUR_PRICE", "2.5")

    def run(*options: str) -> str:
        result = CliRunner().invoke(root, ["metrics", *options])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    found = values(run())
    assert (found["cloudseg_masks",], found["cloudseg_night_cost",]) == (0.0, 0.0)
    assert json.loads(run("--json"))["masks"]["total"] == 0


def test_what_reads_figures_loads_neither_torch_nor_airflow():
    code = (
        "import sys, cloudseg.monitor.exposition; "
        "print([n for n in ('torch', 'airflow', 'rasterio') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def test_promtool_finds_no_fault(known: Figures):
    """A metric without a sample is not checked, so the figures are those of a service in use."""
    command = [find_promtool(), "check", "metrics"]
    done = subprocess.run(command, input=metrics_text(known), capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
