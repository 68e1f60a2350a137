"""The option of the worklist and the setting of evaluations ask the model of others, and nothing else does."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cloudseg import stages, teacher
from cloudseg.catalog import model_rows, training_rows
from cloudseg.errors import SettingsError
from cloudseg.raster.synthetic import make_tiles
from cloudseg.records import StoredObject
from cloudseg.runtime import open_runtime
from tests.bright_model import Bright
from tests.evaluate.world import build_world, make_tile, register_net
from tests.worklist.conftest import SIZE, make_world, part, sure


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a module with the interface of ukis-csmask where the extra would be."""
    module = ModuleType("ukis_csmask.mask")
    module.CSmask = Bright  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ukis_csmask", ModuleType("ukis_csmask"))
    monkeypatch.setitem(sys.modules, "ukis_csmask.mask", module)
    monkeypatch.setattr(teacher, "version", lambda name: "1.0.0")
    Bright.seen.clear()


def labeled_home() -> None:
    runtime = open_runtime()
    world = make_world(runtime.store, runtime.catalog)  # type: ignore[arg-type]
    pixels = np.full((3, SIZE, SIZE), 1500, np.uint16)
    pixels[:, :256, :256] = 8000
    scene_id = world.scene("block:a", pixels=pixels)
    world.mask(scene_id, sure(part(slice(0, 256), slice(0, 256))))
    world.label(scene_id, np.zeros((SIZE, SIZE)))


def test_the_worklist_asks_when_told(runtime_env: Path, installed: None):
    labeled_home()
    assert stages.worklist().second_opinion is None
    assert Bright.seen == []
    record = stages.worklist(second_opinion=True)
    assert [item.reason for item in record.items] == ["label_audit"]
    assert record.second_opinion is not None
    assert record.second_opinion["model"] == "ukis-csmask 1.0.0"
    assert Bright.seen[0].options["intra_op_num_threads"] == open_runtime().threads


def test_without_the_extra_the_worklist_says_what_to_install(runtime_env: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ukis_csmask.mask", None)
    with pytest.raises(SettingsError, match=r"cloudseg\[teacher\]"):
        stages.worklist(second_opinion=True)


def opinion_of_the_doctor() -> tuple[bool, bool, str] | None:
    checks = {check.name: check for check in stages.doctor().checks}
    found = checks.get("second opinion")
    return found and (found.ok, found.warning, found.detail)


def test_the_doctor_warns_where_evaluations_ask_and_the_extra_is_missing(
    runtime_env: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ukis_csmask.mask", None)
    assert opinion_of_the_doctor() is None, "nobody asks for it"
    monkeypatch.setenv("CLOUDSEG_SECOND_OPINION", "true")
    found = opinion_of_the_doctor()
    assert found
    assert found[:2] == (True, True)
    assert found[2].startswith("no training begins on this machine: ")
    assert "cloudseg[teacher]" in found[2]


def test_the_doctor_finds_the_extra(runtime_env: Path, installed: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLOUDSEG_SECOND_OPINION", "true")
    assert opinion_of_the_doctor() == (True, False, "ukis-csmask is installed")


@pytest.mark.parametrize("asked", [True, False])
def test_an_evaluation_asks_where_the_setting_says_so(
    runtime_env: Path, installed: None, monkeypatch: pytest.MonkeyPatch, asked: bool
):
    monkeypatch.setenv("CLOUDSEG_SECOND_OPINION", str(asked))
    runtime = open_runtime()
    tiles = [make_tile(f"t{n}", "train", 0.4) for n in range(3)] + [make_tile("v", "validation", 0.5)]
    snapshot_id = build_world(runtime.store, runtime.catalog, [*tiles, make_tile("h", "held_out", 0.5)])
    weights = register_net(runtime.store, runtime.catalog, 0.5)
    stages.evaluate(weights.weights_id, snapshot_id=snapshot_id)
    with runtime.catalog.read() as db:
        evaluation = model_rows.find_evaluation(db, weights.weights_id, snapshot_id, "held_out")
    assert evaluation is not None
    stored = StoredObject.model_validate(evaluation.report["json"])
    found = json.loads(runtime.store.get(stored.key, stored.sha256))["second_opinion"]
    assert (found is not None) == asked
    assert bool(Bright.seen) == asked


def test_without_the_extra_nothing_is_trained_for_an_evaluation_that_cannot_follow(
    runtime_env: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make_tiles(tmp_path / "tiles", count=8, size=64)
    stages.ingest(str(tmp_path / "tiles"))
    monkeypatch.setenv("CLOUDSEG_SECOND_OPINION", "true")
    monkeypatch.setitem(sys.modules, "ukis_csmask.mask", None)
    with pytest.raises(SettingsError, match=r"cloudseg\[teacher\]") as refused:
        stages.retrain("smoke")
    assert refused.value.subject == "CLOUDSEG_SECOND_OPINION"
    assert refused.value.expected == "ukis-csmask"
    assert str(refused.value.found).startswith("not installed")
    with open_runtime().catalog.read() as db:
        assert len(training_rows.list_snapshots(db)) == 1
        assert training_rows.list_runs(db) == []
