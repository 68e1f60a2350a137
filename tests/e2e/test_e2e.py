"""The pipeline end to end on synthetic tiles: running it again changes nothing, and a killed run recovers."""

import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import func, select

from cloudseg.catalog import tables
from cloudseg.keys import CHAMPION_POINTER
from cloudseg.records import PredictRecord, PromoteRecord
from cloudseg.runtime import open_runtime
from cloudseg.stages import (
    doctor,
    ingest,
    lineage,
    maintain,
    masks,
    models,
    predict,
    promote,
    retrain,
    scenes,
    snapshot,
)

KILLED = 9
# The pipeline for a child process, which exits just before the first row of a table is written.
PIPELINE = """
import os, sys
from sqlalchemy import Engine, event
from cloudseg import stages

@event.listens_for(Engine, "before_cursor_execute")
def die(connection, cursor, statement, parameters, context, many):
    if statement.startswith(f"INSERT INTO {sys.argv[2]} "):
        os._exit(9)

stages.ingest(sys.argv[1])
done = stages.retrain("smoke")
if done.promote and not done.promote.promoted:
    stages.promote(done.promote.challenger_id, force=True, reason="test", actor="test")
stages.predict(new=True)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory):
    """Set CLOUDSEG_HOME for all tests of this file, and no other setting."""
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("CLOUDSEG_")]:
        patch.delenv(name)
    home = tmp_path_factory.mktemp("e2e")
    patch.setenv("CLOUDSEG_HOME", str(home))
    patch.setenv("CLOUDSEG_THREADS", "1")  # the same floating-point sums in every process
    yield home
    patch.undo()


def run_pipeline(folder: Path) -> tuple[PromoteRecord, PredictRecord]:
    """Run the pipeline once; promote the challenger even against the verdict, so that there is a champion."""
    ingest(str(folder))
    verdict = retrain("smoke").promote
    assert verdict is not None
    if not verdict.promoted:
        verdict = promote(verdict.challenger_id, force=True, reason="test", actor="test")
    return verdict, predict(new=True)


class Said(logging.Handler):
    """What a run says beside its result: records of the log, and what libraries write to stderr."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.stderr = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


ALLOWED: dict[str, str] = {}
"""Lines of WARNING and above that a healthy run may log: how they begin, and why."""


@pytest.fixture(scope="module")
def said() -> Said:
    return Said()


@pytest.fixture(scope="module")
def first_run(environment: Path, synthetic_folder: Path, said: Said) -> tuple[PromoteRecord, PredictRecord]:
    root = logging.getLogger()
    level, stderr = root.level, os.dup(2)
    with tempfile.TemporaryFile("w+") as file:
        root.addHandler(said)
        root.setLevel(logging.INFO)
        os.dup2(file.fileno(), 2)
        try:
            return run_pipeline(synthetic_folder)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            root.removeHandler(said)
            root.setLevel(level)
            file.seek(0)
            said.stderr = file.read()


def read_contents() -> tuple[dict[str, int], set[str]]:
    """Return the number of rows of every table and the keys of all objects."""
    runtime = open_runtime()
    with runtime.catalog.read() as db:
        rows = {
            name: db.execute(select(func.count()).select_from(table)).scalar_one()
            for name, table in tables.metadata.tables.items()
        }
    return rows, set(runtime.store.list_keys())


def without_reports(objects: set[str]) -> set[str]:
    return {key for key in objects if not key.startswith("evaluations/")}


def test_tiles_become_masks(first_run: tuple[PromoteRecord, PredictRecord], synthetic_folder: Path):
    verdict, predicted = first_run
    tiles = len(list((synthetic_folder / "images").iterdir()))
    assert len(scenes(limit=None)) == tiles
    assert verdict.promoted
    assert verdict.champion_id == verdict.challenger_id
    assert (len(predicted.masks), predicted.created, predicted.failed) == (tiles, tiles, {})
    listed = models()[0]
    assert (listed["alias"], listed["version"], listed["recipe"]) == ("champion", 1, "smoke")
    assert 0 <= listed["held_out"]["iou"] <= 1
    assert {mask["mask_id"] for mask in masks(limit=None)} == set(predicted.masks)
    pointer = json.loads(open_runtime().store.get(CHAMPION_POINTER))
    assert pointer["weights_id"] == verdict.champion_id


def test_a_healthy_run_says_nothing_that_worries(first_run: tuple[PromoteRecord, PredictRecord], said: Said):
    """Python's own warnings are errors in every test (`filterwarnings` of pyproject.toml)."""
    lines = [f"{record.levelname} {record.name}: {record.getMessage()}" for record in said.records]
    worrying = [
        line
        for line, record in zip(lines, said.records, strict=True)
        if record.levelno >= logging.WARNING and not record.getMessage().startswith(tuple(ALLOWED))
    ]
    assert worrying == []
    assert said.stderr == ""
    walls = [line for line in lines if "{" in line or (" ends: " in line and len(line) > 450)]
    assert walls == [], "\n".join(walls)
    assert [line for line in lines if "onnxruntime" in line or "Increased scale" in line] == []
    assert any("finishing: quantizing to int8" in line for line in lines)
    assert any(line.startswith("INFO cloudseg.stages: ingest ends: ") for line in lines)


def test_lineage_of_a_mask_is_complete(first_run: tuple[PromoteRecord, PredictRecord]):
    found = lineage(first_run[1].masks[0])
    assert found["weights"]["weights_id"] == first_run[0].champion_id
    assert found["snapshot"]["snapshot_id"] == snapshot("smoke").snapshot_id
    assert {label["split"] for label in found["labels"]} == {"train", "validation", "held_out"}
    assert all(len(label["scene"]["source_sha256"]) == 64 for label in found["labels"])
    json.dumps(found)


def test_running_the_pipeline_again_changes_nothing(
    first_run: tuple[PromoteRecord, PredictRecord], synthetic_folder: Path
):
    before = read_contents()
    again = ingest(str(synthetic_folder))
    assert (again.added, again.labelled, again.quarantined) == ([], [], [])
    skipped = retrain("smoke")
    assert "force" in skipped.skipped
    assert skipped.train is None
    assert predict(new=True).masks == []
    repeated = predict(scene_ids=[scenes(limit=1)[0]["scene_id"]])
    assert (len(repeated.masks), repeated.created) == (1, 0)
    assert promote(first_run[0].champion_id).verdict_id == first_run[0].verdict_id
    assert read_contents() == before


def test_no_object_is_orphaned_or_missing(first_run: tuple[PromoteRecord, PredictRecord]):
    record = maintain(orphan_hours=0, verify=True, as_of="2100-01-01T00:00:00Z")
    assert (record.orphans, record.missing, record.repaired) == ([], [], [])
    assert doctor().ok


def test_pipeline_killed_before_the_promotion_recovers_with_the_same_bytes(
    first_run: tuple[PromoteRecord, PredictRecord],
    synthetic_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Kill a retraining that is one call; tests/faults kills each step at every commit point."""
    undisturbed = read_contents()
    monkeypatch.setenv("CLOUDSEG_HOME", str(tmp_path))
    died = subprocess.run(
        [sys.executable, "-c", PIPELINE, str(synthetic_folder), "promotion"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert died.returncode == KILLED, died.stderr[-2000:]
    ingest(str(synthetic_folder))
    again = retrain("smoke")
    assert again.skipped
    if again.promote is None:  # it was promoted against the verdict
        promote(first_run[0].challenger_id, force=True, reason="test", actor="test")
    predict(new=True)
    rows, objects = read_contents()
    assert rows == undisturbed[0]
    # A killed process may leave an object that no row names. Here its key is the same, because keys are derived from
    # the content. Only reports differ: they show the speed of the training.
    assert without_reports(objects) == without_reports(undisturbed[1])
    assert models()[0]["weights_id"] == first_run[0].champion_id
