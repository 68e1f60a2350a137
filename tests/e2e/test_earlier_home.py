"""Catalog and store written by an earlier commit open unchanged, and an interrupted run of it resumes."""

import tarfile
from pathlib import Path

import pytest

from cloudseg import stages
from cloudseg.stages.plan import plan_train

DATA = Path(__file__).parents[1] / "data" / "earlier"
RUN = "run-interrupted"

# The recipe of that time uses names that are deprecated now.
pytestmark = pytest.mark.filterwarnings("ignore:recipe value .* is now called:FutureWarning")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(DATA / "home_252b5d5.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setenv("CLOUDSEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_everything_is_listed(home: Path) -> None:
    masks, models = stages.masks(limit=None), stages.models(limit=None)
    assert len(masks) == 13
    assert [model["decision"] for model in models].count("declined") == 1
    assert [model["alias"] for model in models].count("champion") == 1
    assert len(stages.quarantine(limit=None)) == 1
    line = stages.lineage(masks[0]["mask_id"])
    assert line["snapshot"]["snapshot_id"] == models[-1]["snapshot_id"]
    assert line["labels"]


def test_nothing_is_missing_and_nothing_is_collected(home: Path) -> None:
    record = stages.maintain(dry_run=False, orphan_hours=0, verify=True)
    assert (record.missing, record.orphans, record.repaired) == ([], [], [])


def test_finished_work_is_not_repeated(home: Path) -> None:
    models = stages.models(limit=None)
    champion = next(model["weights_id"] for model in models if model["alias"] == "champion")
    assert stages.predict(new=True).masks == []
    before = stages.evaluate(champion)
    assert stages.evaluate(champion) == before
    assert stages.promote(champion).promoted
    challenger = next(model["weights_id"] for model in models if model["decision"] == "declined")
    record = stages.promote_unattended(challenger)
    assert not record.promoted
    assert record.reasons[0].startswith("declined by tester")


def test_labels_are_in_use_as_before_and_their_snapshot_is_found_again(home: Path) -> None:
    labels = stages.labels(limit=None)
    assert {(label["state"], label["actor"]) for label in labels} == {("accepted", "migration")}
    assert all(label["decided_at"] == label["created_at"] for label in labels)
    recipe = str(DATA / "interrupted.toml")
    known = next(run["snapshot_id"] for run in stages.runs(limit=None) if run["run_id"] == RUN)
    found = stages.snapshot(recipe)
    assert (found.snapshot_id, found.created) == (known, False)
    lineage = stages.lineage(stages.masks()[0]["mask_id"])
    assert {label["state"] for label in lineage["labels"]} == {"accepted"}
    assert not any(mask["disputed"] for mask in stages.masks(limit=None))


def test_the_interrupted_run_resumes(home: Path) -> None:
    snapshot_id = next(run["snapshot_id"] for run in stages.runs(limit=None) if run["run_id"] == RUN)
    recipe = str(DATA / "interrupted.toml")
    assert plan_train(snapshot_id, recipe=recipe, run_id=RUN)["would"] == "resume"
    record = stages.train(snapshot_id, recipe=recipe, run_id=RUN)
    assert (record.resumed_from_step, record.steps) == (4, 240)
