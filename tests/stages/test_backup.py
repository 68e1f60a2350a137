"""A backup is restored into an empty catalog of another kind, and there the champion predicts the same mask."""

import os
from collections.abc import Iterator
from pathlib import Path

import postgres_server
import pytest
from sqlalchemy import URL

from cloudseg.catalog import Catalog, model_rows
from cloudseg.errors import InputError, ObjectCorrupt, StateError
from cloudseg.raster.synthetic import make_tiles
from cloudseg.runtime import open_runtime
from cloudseg.stages import backup, ingest, lineage, maintain, predict, promote, restore, retrain, scenes
from tests.seaweed import Seaweed


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An embedded home after one run of the pipeline, with scenes that have no mask yet."""
    folder = tmp_path_factory.mktemp("backup")
    make_tiles(folder / "tiles", count=12, size=128)
    with pytest.MonkeyPatch.context() as patch:
        _settle(patch, folder / "home")
        ingest(str(folder / "tiles"))
        verdict = retrain("smoke").promote
        if not verdict.promoted:
            promote(verdict.challenger_id, force=True, reason="test", actor="test")
        predict([scene["scene_id"] for scene in scenes(limit=None)[:2]])
        backup(str(folder / "copy"))
    return folder


def _settle(patch: pytest.MonkeyPatch, home: Path) -> None:
    for name in [name for name in os.environ if name.startswith("CLOUDSEG_")]:
        patch.delenv(name)
    patch.setenv("CLOUDSEG_HOME", str(home))
    patch.setenv("CLOUDSEG_THREADS", "1")


def _masks() -> dict[str, tuple[str, str]]:
    with open_runtime().catalog.read() as db:
        return {mask.scene_id: (mask.mask_id, mask.sha256) for mask in model_rows.list_masks(db)}


def test_restored_into_an_empty_home_the_same_mask_is_predicted(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _settle(monkeypatch, home / "home")
    wanted = scenes(limit=None)[5]["scene_id"]
    predict([wanted])
    expected = _masks()
    _settle(monkeypatch, tmp_path / "new")
    record = restore(str(home / "copy"))
    assert record["objects_copied"] > 20
    before = _masks()
    assert len(before) == 2
    assert wanted not in before, "it was masked after the backup"
    predict([wanted])
    assert _masks()[wanted] == expected[wanted]
    assert {scene: expected[scene] for scene in before} == before
    assert lineage(_masks()[wanted][0])["weights"]
    checked = maintain(verify=True)
    assert checked.missing == []


def _enter_servers(patch: pytest.MonkeyPatch, tmp_path: Path, database: URL, seaweed: Seaweed) -> None:
    """Work on a database of a PostgreSQL server and on an empty prefix of an S3 server."""
    _settle(patch, tmp_path / "home")
    seaweed.enter(patch, tmp_path)
    patch.setenv("CLOUDSEG_CATALOG_URL", database.render_as_string(hide_password=False))


def test_from_servers_into_empty_servers_the_same_mask_is_predicted(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql: postgres_server.Databases, seaweed: Seaweed
):
    """The embedded backup is restored to servers; a backup of these is restored to empty servers."""
    with postgresql.migrated() as first, postgresql.migrated() as second:
        _enter_servers(monkeypatch, tmp_path, first, seaweed)
        filled = restore(str(home / "copy"))
        saved = backup(str(tmp_path / "saved"))
        assert saved["rows"] == filled["rows"]
        wanted = scenes(limit=None)[5]["scene_id"]
        assert wanted not in _masks()
        predict([wanted])
        expected = _masks()
        _enter_servers(monkeypatch, tmp_path, second, seaweed)
        back = restore(str(tmp_path / "saved"))
        assert (back["rows"], back["objects_copied"]) == (saved["rows"], saved["objects_copied"])
        assert wanted not in _masks(), "it was masked after the backup"
        predict([wanted])
        assert _masks() == expected
        assert maintain(verify=True).missing == []


def test_a_second_backup_copies_what_is_new(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _settle(monkeypatch, home / "home")
    first = backup(str(tmp_path / "copy"))
    again = backup(str(tmp_path / "copy"))
    assert first["objects_there"] == 0
    assert (again["objects_copied"], again["objects_there"]) == (0, first["objects_copied"])
    assert again["rows"] == first["rows"]


def test_a_backup_can_be_inspected(home: Path, monkeypatch: pytest.MonkeyPatch):
    _settle(monkeypatch, home / "copy")
    assert len(scenes(limit=None)) == 14
    assert len(_masks()) == 2


def test_a_catalog_with_rows_is_not_touched(home: Path, monkeypatch: pytest.MonkeyPatch):
    _settle(monkeypatch, home / "home")
    with pytest.raises(StateError, match="not empty"):
        restore(str(home / "copy"))


def test_a_folder_with_something_else_is_not_touched(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _settle(monkeypatch, home / "home")
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="other than a backup"):
        backup(str(tmp_path))
    with pytest.raises(InputError, match="holds no backup"):
        restore(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_object_is_not_restored(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _settle(monkeypatch, home / "home")
    backup(str(tmp_path / "copy"))
    victim = next((tmp_path / "copy" / "store" / "models").rglob("*.safetensors"))
    victim.chmod(0o600)
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    _settle(monkeypatch, tmp_path / "new")
    with pytest.raises(ObjectCorrupt):
        restore(str(tmp_path / "copy"))
    assert Catalog(f"sqlite:///{tmp_path / 'new' / 'catalog.db'}").revision() is not None
    assert scenes() == [], "no row without bytes"
