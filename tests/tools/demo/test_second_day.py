"""What arrives at a demo's second day is what its pages need: a correction that waits, and files in quarantine."""

from pathlib import Path

import pytest

from cloudseg import stages
from cloudseg.raster.synthetic import make_tiles
from tools.demo.second_day import BROKEN, NO_IMAGE, write_second_day


def test_a_correction_waits_and_two_files_are_in_quarantine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDSEG_HOME", str(tmp_path / "home"))
    make_tiles(tmp_path / "tiles", count=2, size=160, unlabeled=0)
    stages.ingest(str(tmp_path / "tiles"))
    scene = write_second_day(tmp_path / "tiles", tmp_path / "second")
    record = stages.ingest(str(tmp_path / "second"))
    assert len(record.quarantined) == 2
    waiting = stages.labels(state="proposed")
    assert [(label["scene"], label["source"], label["version"]) for label in waiting] == [(scene, "analyst:ada", 2)]
    assert {entry["name"] for entry in stages.quarantine()} == {Path(BROKEN).stem, Path(NO_IMAGE).stem}
