"""Scratch directories are deleted at the end and after a kill, but never while their owner runs."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cloudseg import scratch
from cloudseg.errors import BadScene, SettingsError, StoreUnreachable
from cloudseg.scratch import check_room, reserve_file, scratch_directory

_OWNER = """
import sys
from cloudseg.scratch import scratch_directory
with scratch_directory("test") as folder:
    (folder / "copy").write_bytes(b"x")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def _owner() -> "tuple[subprocess.Popen[str], Path]":
    process = subprocess.Popen([sys.executable, "-c", _OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_directories_of_killed_owners_are_deleted_and_of_running_ones_kept(top: Path) -> None:
    (dead, left), (alive, kept) = _owner(), _owner()
    os.kill(dead.pid, signal.SIGKILL)
    dead.communicate()
    assert left.exists()
    with scratch_directory("test") as mine:
        assert set(top.iterdir()) == {kept, mine}
    alive.communicate()
    assert list(top.iterdir()) == []


def test_links_with_the_prefix_are_not_followed(top: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (top / "cloudseg-work-link").symlink_to(outside)
    (top / "cloudseg-work-file").touch()
    with scratch_directory("test"):
        assert (outside / "precious").exists()


def test_an_unusable_temporary_folder_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match="TMPDIR"), scratch_directory("test"):
        pass


def test_a_full_disk_is_not_blamed_on_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = BadScene("the file cannot be decoded")
    check_room(tmp_path, error)
    monkeypatch.setattr(scratch, "_LEAST_FREE", 1 << 62)
    with pytest.raises(StoreUnreachable, match="disk of the temporary directory is full"):
        check_room(tmp_path, error)


def test_a_reserved_file_has_its_blocks_and_a_full_disk_is_an_error(top: Path) -> None:
    with scratch_directory("test") as folder:
        reserve_file(folder / "file", 1 << 20)
        found = (folder / "file").stat()
        assert found.st_size == 1 << 20
        assert found.st_blocks * 512 >= 1 << 20, "a sparse file: mapped, it ends the process where the disk is full"
        with pytest.raises(StoreUnreachable, match=str(top)):
            reserve_file(folder / "large", 1 << 62)
