"""The whole service once around on synthetic tiles.

It turns, turning it again changes nothing, and being killed costs only time.
"""

import json
import os
import subprocess
import sys
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
# Run in a process of its own: the circle, in which the process dies the moment before the first row of a table is
# written.
TURN = """
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
    """A home for all tests of this file, and no other setting."""
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("CLOUDSEG_")]:
        patch.delenv(name)
    home = tmp_path_factory.mktemp("e2e")
    patch.setenv("CLOUDSEG_HOME", str(home))
    patch.setenv("CLOUDSEG_THREADS", "1")  # the same sums in every process
    yield home
    patch.undo()


def turn(folder: Path) -> tuple[PromoteRecord, PredictRecord]:
    """Turn the circle once; a verdict that is not PROMOTE is overruled, so that there is a champion."""
    ingest(str(folder))
    verdict = retrain("smoke").promote
    assert verdict is not None
    if not verdict.promoted:
        verdict = promote(verdict.challenger_id, force=True, reason="test", actor="test")
    return verdict, predict(new=True)


@pytest.fixture(scope="module")
def turned(environment: Path, synthetic_folder: Path) -> tuple[PromoteRecord, PredictRecord]:
    return turn(synthetic_folder)


def held() -> tuple[dict[str, int], set[str]]:
    """Count the rows of every table and return the keys of all objects."""
    runtime = open_runtime()
    with runtime.catalog.read() as db:
        rows = {
            name: db.execute(select(func.count()).select_from(table)).scalar_one()
            for name, table in tables.metadata.tables.items()
        }
    return rows, set(runtime.store.list_keys())


def without_reports(objects: set[str]) -> set[str]:
    return {key for key in objects if not key.startswith("evaluations/")}


def test_tiles_become_masks(turned: tuple[PromoteRecord, PredictRecord], synthetic_folder: Path):
    verdict, predicted = turned
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


def test_a_mask_tells_what_it_was_made_of(turned: tuple[PromoteRecord, PredictRecord]):
    found = lineage(turned[1].masks[0])
    assert found["weights"]["weights_id"] == turned[0].champion_id
    assert found["snapshot"]["snapshot_id"] == snapshot("smoke").snapshot_id
    assert {label["split"] for label in found["labels"]} == {"train", "validation", "held_out"}
    assert all(len(label["scene"]["source_sha256"]) == 64 for label in found["labels"])
    json.dumps(found)


def test_turning_it_again_changes_nothing(turned: tuple[PromoteRecord, PredictRecord], synthetic_folder: Path):
    before = held()
    again = ingest(str(synthetic_folder))
    assert (again.added, again.labelled, again.quarantined) == ([], [], [])
    skipped = retrain("smoke")
    assert "force" in skipped.skipped
    assert skipped.train is None
    assert predict(new=True).masks == []
    repeated = predict(scene_ids=[scenes(limit=1)[0]["scene_id"]])
    assert (len(repeated.masks), repeated.created) == (1, 0)
    assert promote(turned[0].champion_id).verdict_id == turned[0].verdict_id
    assert held() == before


def test_nothing_is_left_over_and_nothing_is_missing(turned: tuple[PromoteRecord, PredictRecord]):
    record = maintain(orphan_hours=0, verify=True, as_of="2100-01-01T00:00:00Z")
    assert (record.orphans, record.missing, record.repaired) == ([], [], [])
    assert doctor().ok


def test_a_circle_killed_before_the_promotion_ends_with_the_same_bytes(
    turned: tuple[PromoteRecord, PredictRecord], synthetic_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The whole retraining in one call; tests/faults kills each step at every point."""
    undisturbed = held()
    monkeypatch.setenv("CLOUDSEG_HOME", str(tmp_path))
    died = subprocess.run(
        [sys.executable, "-c", TURN, str(synthetic_folder), "promotion"], capture_output=True, text=True, check=False
    )
    assert died.returncode == KILLED, died.stderr[-2000:]
    ingest(str(synthetic_folder))
    again = retrain("smoke")
    assert again.skipped
    if again.promote is None:  # the verdict did not grant it, a person did
        promote(turned[0].challenger_id, force=True, reason="test", actor="test")
    predict(new=True)
    rows, objects = held()
    assert rows == undisturbed[0]
    # A killed process may leave an object that no row names; here even that is the same one, for the content gives the
    # key. Only a report differs: it shows how fast the training went.
    assert without_reports(objects) == without_reports(undisturbed[1])
    assert models()[0]["weights_id"] == turned[0].champion_id
