"""What an ingest leaves in the temporary folder, and what it does when the disk is full."""

import tempfile
from pathlib import Path

import pytest

from cloudseg import scratch
from cloudseg.errors import StoreUnreachable
from tests.ingest.conftest import Service
from tests.ingest.tiles import random_dn, write


@pytest.fixture(autouse=True)
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_an_ingest_leaves_nothing_behind(service: Service, inbox: Path, top: Path) -> None:
    (top / "cloudseg-work-abandoned" / "deep").mkdir(parents=True)
    (top / "somebody-elses").mkdir()
    write(inbox / "good.tif", random_dn())
    (inbox / "bad.tif").write_bytes(b"II*\0")
    assert len(service.ingest(inbox).added) == 1
    assert [path.name for path in top.iterdir()] == ["somebody-elses"]


def test_with_a_full_disk_nothing_is_quarantined(
    service: Service, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inbox / "bad.tif").write_bytes(b"II*\0")
    monkeypatch.setattr(scratch, "_LEAST_FREE", 1 << 62)
    with pytest.raises(StoreUnreachable):
        service.ingest(inbox)
    assert service.quarantine() == {}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_copy_for_which_there_is_no_room_says_so(tmp_path: Path) -> None:
    (tmp_path / "scene.tif").write_bytes(b"x" * 100)
    (tmp_path / "copy").symlink_to("/dev/full")
    with pytest.raises(StoreUnreachable, match=r"is full.*100 bytes free"):
        scratch.copy_file(tmp_path / "scene.tif", tmp_path / "copy")
