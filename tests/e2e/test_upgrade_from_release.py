"""A home that release 0.1.0 made is migrated by today's code and goes on: nothing lost, new masks published.

docs/how-to/upgrade.md promises it.
"""

import sqlite3
import tarfile
from pathlib import Path

import pytest

from cloudseg import stages
from cloudseg.runtime import open_runtime

DATA = Path(__file__).parents[1] / "data" / "earlier"
REVISION = "0005_look_up_keys"
"""The schema of 0.1.0."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(DATA / "home_0.1.0.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setenv("CLOUDSEG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CLOUDSEG_THREADS", "1")
    return tmp_path / "home"


def _read(home: Path, statement: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(home / "catalog.db") as db:
        return db.execute(statement).fetchall()


def test_a_home_of_the_release_is_migrated_verified_and_published_with(home: Path) -> None:
    assert _read(home, "SELECT version_num FROM alembic_version") == [(REVISION,)]
    ids = {
        table: _read(home, f"SELECT {table}_id, sha256 FROM {table} ORDER BY 1")  # noqa: S608
        for table in ("scene", "label", "mask", "weights")
    }
    assert (len(ids["scene"]), len(ids["label"]), len(ids["mask"]), len(ids["weights"])) == (14, 12, 5, 1)

    catalog = open_runtime().catalog  # migrates
    assert catalog.revision() == catalog.head_revision() != REVISION
    assert {table: _read(home, f"SELECT {table}_id, sha256 FROM {table} ORDER BY 1") for table in ids} == ids  # noqa: S608
    record = stages.maintain(dry_run=False, orphan_hours=0, verify=True)
    assert (record.missing, record.orphans) == ([], [])
    assert record.stac > len(ids["scene"]), "the static STAC catalog is written"

    assert {label["state"] for label in stages.labels(limit=None)} == {"accepted"}
    (model,) = stages.models(limit=None)
    assert model["alias"] == "champion"
    assert stages.evaluate(model["weights_id"]).metrics["iou"] == model["held_out"]["iou"]

    predicted = stages.predict(new=True)
    assert (len(predicted.masks), predicted.failed) == (9, {})
    masks = stages.masks(limit=None)
    assert len(masks) == 14
    assert {(mask["mask_id"], mask["sha256"]) for mask in masks} >= set(ids["mask"])
    line = stages.lineage(masks[0]["mask_id"])
    assert (line["weights"]["weights_id"], len(line["labels"])) == (model["weights_id"], 12)
    assert stages.maintain(verify=True).stac == 0


def test_a_snapshot_of_the_release_is_found_again_and_its_way_back_is_a_backup(home: Path, tmp_path: Path) -> None:
    known = _read(home, "SELECT snapshot_id FROM snapshot")
    assert [(stages.snapshot("smoke").snapshot_id,)] == known
    stages.backup(str(tmp_path / "copy"))
    record = stages.rehearse_restore(folder=str(tmp_path / "copy"))
    assert record["objects"] > 60
