"""The objects of a removed scene: none that another row names, and none is forgotten wherever the process is killed."""

from pathlib import Path

import pytest

from cloudseg import stages
from cloudseg.catalog import label_rows, scene_rows
from cloudseg.raster.synthetic import make_tiles
from cloudseg.records import Quarantined, Scene
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import remove
from cloudseg.storage import LocalStore


@pytest.fixture
def runtime(runtime_env: Path, tmp_path: Path) -> Runtime:
    """A home with one labeled scene."""
    make_tiles(tmp_path / "tiles", count=1, size=64)
    stages.ingest(str(tmp_path / "tiles"))
    return open_runtime()


def labeled_scene(runtime: Runtime) -> Scene:
    with runtime.catalog.read() as db:
        return next(scene for scene in scene_rows.list_scenes(db) if label_rows.list_of_scene(db, scene.scene_id))


def test_an_object_that_another_scene_has_too_stays(runtime: Runtime) -> None:
    scene = labeled_scene(runtime)
    other = {"scene_id": "sc-" + "f" * 20, "name": "other", "source_sha256": "f" * 64, "source_uri": "file:///other"}
    with runtime.catalog.begin() as db:
        assert scene_rows.add_scene(db, scene.model_copy(update=other))
    planned = stages.remove_scene(scene.scene_id, reason="test", dry_run=True)
    record = stages.remove_scene(scene.scene_id, reason="test")
    assert record.kept == planned.kept == [scene.key]
    assert record.objects == planned.objects == 1, "its label"
    assert runtime.store.exists(scene.key)


def test_what_was_killed_between_two_objects_is_continued(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, delete, calls = labeled_scene(runtime), LocalStore.delete, list[str]()

    def killed(store: LocalStore, key: str) -> None:
        calls.append(key)
        if len(calls) == 2:
            raise KeyboardInterrupt
        delete(store, key)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            stages.remove_scene(scene.scene_id, reason="test")
    assert runtime.store.exists(calls[1])
    assert stages.list_removals()[0]["finished_at"] is None
    record = stages.remove_scene(scene.scene_id, reason="test")
    assert (record.already, record.objects) == (True, 2)
    assert not any(runtime.store.exists(key) for key in calls)
    assert stages.list_removals()[0]["finished_at"] is not None


def test_a_row_that_is_added_while_it_is_planned_goes_too(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, plan, calls = labeled_scene(runtime), remove._plan, list[str]()
    entry = {"quarantine_id": "qu-1", "name": "x", "source_sha256": "0" * 64, "error": "BadScene", "what": "x"}
    entry |= {"found": None, "expected": None, "next_step": "", "created_at": scene.created_at}

    def plan_and_add(of: Runtime, scene_id: str) -> object:
        found = plan(of, scene_id)
        if not calls:
            with of.catalog.begin() as db:
                scene_rows.add_quarantined(db, Quarantined.model_validate(entry | {"source_uri": scene.source_uri}))
        calls.append(scene_id)
        return found

    monkeypatch.setattr(remove, "_plan", plan_and_add)
    record = stages.remove_scene(scene.scene_id, reason="test")
    assert (len(calls), record.quarantined) == (2, 1)
    assert stages.quarantine() == []
