"""A catalog that is damaged, of another version, on a full disk or no file: a message and an exit code."""

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event

from cloudseg.catalog import Catalog, scene_rows
from cloudseg.errors import CatalogOutdated, CatalogUnreachable, CloudsegError, StateError
from cloudseg.runtime import open_runtime
from cloudseg.stages import doctor, runs, scenes
from cloudseg.stages.catalog_file import describe_catalog_disk
from cloudseg.stages.doctor import Check
from tests.catalog import rows


@pytest.fixture
def home(runtime_env: Path, migrated_file: Path) -> Path:
    """Return the folder of an embedded service with some scenes."""
    runtime_env.mkdir()
    shutil.copy(migrated_file, runtime_env / "catalog.db")
    runtime = open_runtime()
    with runtime.catalog.begin() as db:
        for number in range(1, 9):
            scene_rows.add_scene(db, rows.scene(number))
    runtime.catalog.engine.dispose()
    return runtime_env


def _change(home: Path, statement: str) -> None:
    with closing(sqlite3.connect(home / "catalog.db")) as db, db:
        db.execute(statement)


def _check() -> Check:
    return next(check for check in doctor(device=False).checks if check.name == "catalog")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE scene SET tags = '{'",
        "UPDATE scene SET bands = CAST(x'ff' AS TEXT)",
        "UPDATE scene SET created_at = 'yesterday'",
        "UPDATE scene SET created_at = 7",
        "UPDATE scene SET height = 'tall'",
        "UPDATE scene SET name = CAST(x'ff41' AS TEXT)",
        "UPDATE scene SET transform = '7'",
    ],
)
def test_a_row_that_cannot_be_read_is_named(home: Path, change: str) -> None:
    _change(home, change)
    with pytest.raises(CloudsegError, match="backup") as caught:
        scenes(limit=None)
    assert not caught.value.retry_helps
    doctor(device=False)


def test_errors_of_the_caller_are_not_blamed_on_the_catalog(home: Path) -> None:
    catalog = open_runtime().catalog
    for error in (ValueError("x"), TypeError("x"), KeyError("x"), UnicodeDecodeError("utf-8", b"x", 0, 1, "x")):
        with pytest.raises(type(error)), catalog.read():
            raise error


def test_damaged_pages_end_with_a_message(home: Path) -> None:
    whole = (home / "catalog.db").read_bytes()
    chance = random.Random(1)  # noqa: S311 -- the same damage in every run
    refused = 0
    for _ in range(25):
        damaged = bytearray(whole)
        at = chance.randrange(100, len(whole) - 64)
        damaged[at : at + 64] = chance.randbytes(64)
        (home / "catalog.db").write_bytes(damaged)
        for name in ("catalog.db-wal", "catalog.db-shm"):
            (home / name).unlink(missing_ok=True)
        doctor(device=False)
        for act in (scenes, runs):
            try:
                act(limit=None)
            except CloudsegError:
                refused += 1
    assert refused > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "another version of cloudseg made this catalog"),
        ("DELETE FROM alembic_version", "revision does not fit its tables"),
        ("UPDATE alembic_version SET version_num = '0001_create_catalog'", "revision does not fit its tables"),
    ],
)
def test_doctor_and_commands_agree_on_another_version(home: Path, change: str, words: str) -> None:
    _change(home, change)
    before = (home / "catalog.db").read_bytes()
    check = _check()
    assert not check.ok
    assert words in check.detail
    assert (home / "catalog.db").read_bytes() == before
    with pytest.raises((CatalogOutdated, StateError), match=words) as caught:
        scenes(limit=None)
    assert caught.value.exit_code == 4


def test_doctor_accepts_what_the_next_command_migrates(runtime_env: Path) -> None:
    assert _check().ok, "there is no catalog yet"
    shutil.rmtree(runtime_env)
    catalog = Catalog(f"sqlite:///{runtime_env / 'catalog.db'}")
    catalog.upgrade()
    catalog.downgrade("0003")
    catalog.engine.dispose()
    check = _check()
    assert check.ok, check.detail
    assert "the next command migrates it" in check.detail
    assert scenes(limit=None) == []


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/dev/full"), os.mkfifo, Path.mkdir])
def test_what_is_no_file_is_no_catalog(runtime_env: Path, make: Callable[[Path], object]) -> None:
    runtime_env.mkdir()
    make(runtime_env / "catalog.db")
    check = _check()
    assert not check.ok
    assert "not a regular file" in check.detail


def test_a_full_disk_is_called_full(tmp_path: Path, migrated_file: Path) -> None:
    shutil.copy(migrated_file, tmp_path / "catalog.db")
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")

    @event.listens_for(catalog.engine, "connect")
    def fill(connection: sqlite3.Connection, _: object) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    def add_many() -> None:
        for number in range(1, 500):
            with catalog.begin() as db:
                scene_rows.add_scene(db, rows.scene(number, tags={"source": "x" * 4000}))

    with pytest.raises(CatalogUnreachable, match="the catalog's disk is full") as caught:
        add_many()
    assert caught.value.retry_helps
    assert "Make room" in caught.value.next_step


_MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/export {folder}/nfs nfs4 rw 0 0
//server/share {folder}/with\\040blank cifs rw 0 0
/dev/sdb1 {folder}/nfs/local xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("where", "kind"), [("nfs/home", "nfs4"), ("with blank/home", "cifs"), ("nfs/local/home", None), ("home", None)]
)
def test_a_catalog_on_a_network_drive_is_pointed_out(tmp_path: Path, where: str, kind: str | None) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(_MOUNTS.format(folder=tmp_path))
    words = describe_catalog_disk(Catalog(f"sqlite:///{tmp_path / where / 'catalog.db'}"), mounts)
    if kind is None:
        assert words is None or "network" not in words
    else:
        assert words is not None
        assert f"network drive ({kind})" in words
