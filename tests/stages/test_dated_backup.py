"""Dated backups: whole copies that share files, a number of which is kept; and the rehearsal of a restore."""

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from cloudseg import stages
from cloudseg.cli import main
from cloudseg.errors import InputError, ObjectCorrupt, ObjectMissing, SettingsError
from cloudseg.raster.synthetic import make_tiles
from cloudseg.runtime import open_runtime
from cloudseg.storage import LocalStore

# `cloudseg.stages.backup` is the function of that name.
backup_module = import_module("cloudseg.stages.backup")


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An embedded home with scenes, and the folder for its backups."""
    for name in [name for name in os.environ if name.startswith("CLOUDSEG_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDSEG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CLOUDSEG_THREADS", "1")
    monkeypatch.setenv("CLOUDSEG_BACKUP_FOLDER", str(tmp_path / "copies"))
    (tmp_path / "copies").mkdir()
    make_tiles(tmp_path / "tiles", count=3, size=64)
    stages.ingest(str(tmp_path / "tiles"))
    return tmp_path / "copies"


def _files(folder: Path) -> dict[str, os.stat_result]:
    return {
        path.relative_to(folder).as_posix(): path.stat()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix == ".tif"
    }


def test_a_second_copy_shares_the_files_of_the_first_and_the_oldest_goes(copies: Path) -> None:
    first = stages.dated_backup("2026-11-01", keep=2)
    assert first["objects_copied"] > 5
    second = stages.dated_backup("2026-11-02", keep=2)
    assert (second["objects_copied"], second["rows"]) == (0, first["rows"])
    old, new = _files(copies / "2026-11-01"), _files(copies / "2026-11-02")
    assert old.keys() == new.keys()
    assert all(old[name].st_ino == new[name].st_ino for name in old)
    third = stages.dated_backup("2026-11-03", keep=2)
    assert (third["kept"], third["removed"]) == (["2026-11-02", "2026-11-03"], ["2026-11-01"])
    assert sorted(path.name for path in copies.iterdir()) == third["kept"]
    # The newest copy is whole without the oldest.
    assert stages.rehearse_restore()["folder"] == str(copies / "2026-11-03")


def test_the_copy_of_a_date_is_made_once(copies: Path) -> None:
    stages.dated_backup("2026-11-01")
    before = (copies / "2026-11-01" / "catalog.db").stat()
    again = stages.dated_backup("2026-11-01")
    assert again["existed"]
    assert (copies / "2026-11-01" / "catalog.db").stat() == before


def test_a_copy_that_was_killed_has_another_name_and_is_continued(
    copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backup_module, "_copy_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            stages.dated_backup("2026-11-01")
    assert [path.name for path in copies.iterdir()] == [".unfinished-2026-11-01"]
    with pytest.raises(InputError, match="no such backup"):
        stages.rehearse_restore()
    assert stages.dated_backup("2026-11-02")["kept"] == ["2026-11-02"]
    assert [path.name for path in copies.iterdir()] == ["2026-11-02"]


def test_an_old_copy_that_is_half_deleted_is_none(copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages.dated_backup("2026-11-01", keep=1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            stages.dated_backup("2026-11-02", keep=1)
    with pytest.raises(InputError, match=r"no such backup.*2026-11-02"):
        stages.rehearse_restore("2026-11-01")
    assert stages.dated_backup("2026-11-02", keep=1)["kept"] == ["2026-11-02"]
    assert [path.name for path in copies.iterdir()] == ["2026-11-02"]


def test_what_goes_with_its_row_meanwhile_is_no_error(copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training deletes its older checkpoints, and their rows, while a backup runs."""
    scene_id = stages.scenes(limit=None)[0]["scene_id"]
    copy_rows, calls = backup_module._copy_rows, []

    def copy_then_remove(*both: object) -> object:
        found = copy_rows(*both)
        if not calls:
            stages.remove_scene(scene_id, reason="test")
        calls.append(found)
        return found

    monkeypatch.setattr(backup_module, "_copy_rows", copy_then_remove)
    record = stages.dated_backup("2026-11-01")
    assert len(calls) == 2
    assert record["rows"]["scene"] == calls[0]["scene"] - 1


def test_an_object_that_is_lost_fails_the_backup(copies: Path) -> None:
    runtime = open_runtime()
    store = runtime.store
    assert isinstance(store, LocalStore)
    key = next(iter(store.list_keys("scenes/")))
    (store.root / key).unlink()
    with pytest.raises(ObjectMissing):
        stages.dated_backup("2026-11-01")


def test_a_rehearsal_measures_and_finds_damage(copies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages.dated_backup("2026-11-01")
    record = stages.rehearse_restore("2026-11-01")
    assert record["objects"] > 5
    assert record["bytes"] == sum(
        path.stat().st_size
        for path in (copies / "2026-11-01" / "store").rglob("*")
        if path.is_file() and path.parts[-3] in ("scenes", "labels")
    )
    assert record["restore_s"] >= 0
    with pytest.raises(SystemExit, match="0"):
        main(["restore", str(copies / "2026-11-01"), "--rehearse"])
    assert "restore_s" in capsys.readouterr().out
    file = next(iter((copies / "2026-11-01" / "store" / "scenes").rglob("*.tif")))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ObjectCorrupt):
        stages.rehearse_restore("2026-11-01")


def test_without_a_folder_nothing_is_made(copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUDSEG_BACKUP_FOLDER")
    assert stages.dated_backup("2026-11-01") == {"skip": "CLOUDSEG_BACKUP_FOLDER is not set: no backup is made"}
    with pytest.raises(SettingsError, match="CLOUDSEG_BACKUP_FOLDER"):
        stages.rehearse_restore("2026-11-01")


def test_the_restore_is_rehearsed_on_sundays(copies: Path) -> None:
    assert stages.rehearse_restore("2026-11-02", when="weekly") == {"skip": "the restore is rehearsed weekly"}
    assert stages.rehearse_restore("2026-11-01", when="never") == {"skip": "the restore is rehearsed never"}
    stages.dated_backup("2026-11-01")
    assert stages.rehearse_restore("2026-11-01", when="weekly")["skip"] is None


@pytest.mark.parametrize(("date", "keep"), [("../x", 3), ("2026-11-01", 0)])
def test_a_wrong_date_or_number_is_refused(copies: Path, date: str, keep: int) -> None:
    with pytest.raises(InputError):
        stages.dated_backup(date, keep=keep)


def test_a_home_is_not_backed_up_into_itself(copies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CLOUDSEG_HOME may still name the backup that somebody looked into: its catalog would be replaced while in use."""
    before = (tmp_path / "home" / "catalog.db").stat()
    with pytest.raises(InputError, match="the home itself"):
        stages.backup(str(tmp_path / "home"))
    assert (tmp_path / "home" / "catalog.db").stat().st_ino == before.st_ino
    stages.backup(str(copies / "once"))
    monkeypatch.setenv("CLOUDSEG_HOME", str(copies / "once"))
    with pytest.raises(InputError, match="the home itself"):
        stages.backup(str(copies / "once"))


def test_a_folder_that_cannot_be_made_is_one_line(copies: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "below"
    with pytest.raises(InputError, match=f"{below}: this folder cannot be made \\(found Not a directory\\)"):
        stages.backup(str(below))


def test_a_disk_that_is_not_mounted_is_no_new_folder(copies: Path) -> None:
    """The mount point is there, the folder on the disk is not."""
    stages.dated_backup("2026-11-01")
    copies.rename(copies.with_name("disk"))
    with pytest.raises(InputError, match=f"the folder of the backups is missing.*no folder {copies}.*Mount its disk"):
        stages.dated_backup("2026-11-02")
    assert not copies.exists()
    copies.with_name("disk").rename(copies)
    assert stages.dated_backup("2026-11-02")["kept"] == ["2026-11-01", "2026-11-02"]
