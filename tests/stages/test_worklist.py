"""The stage and the command: the list of a real home, its folder, and what happens without a champion."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cloudseg import stages
from cloudseg.cli import _run
from cloudseg.errors import InputError, NotInCatalog
from cloudseg.runtime import open_runtime
from tests.worklist.conftest import World, make_world, part, sure, undecided


@pytest.fixture
def home(runtime_env: Path) -> World:
    """Return a home with two masked scenes, one of them with a mask by other weights."""
    runtime = open_runtime()
    world = make_world(runtime.store, runtime.catalog)  # type: ignore[arg-type]
    differing = world.scene("block:a")
    world.mask(differing, sure(part(slice(0, 128), slice(0, 256))))
    world.mask(differing, sure(), weights_id=world.other)
    world.mask(world.scene("block:b"), undecided(0.5))
    return world


def test_without_a_champion_the_list_is_empty(runtime_env: Path):
    record = stages.worklist()
    assert (record.items, record.weights_id, record.masked) == ([], None, 0)
    with pytest.raises(NotInCatalog, match="no champion whose masks could be corrected"):
        stages.worklist(scene_ids=["sc-0123456789abcdef0123"])


def test_the_champions_masks_are_examined(home: World):
    record = stages.worklist(count=5)
    assert record.weights_id == home.champion
    assert (record.masked, record.examined, record.failed) == (2, 2, {})
    assert {item.reason for item in record.items} == {"disagreement", "uncertain"}
    assert stages.worklist(count=5).items == record.items
    assert [item.rank for item in stages.worklist(count=1).items] == [1]


def test_other_weights_can_be_examined(home: World):
    record = stages.worklist(weights_id=home.other)
    assert (record.weights_id, record.masked) == (home.other, 1)
    with pytest.raises(NotInCatalog):
        stages.worklist(weights_id="w-unknown")


@pytest.mark.parametrize(("name", "value"), [("count", 0), ("count", 1001), ("megapixels", 0)])
def test_numbers_out_of_range_are_refused(home: World, name: str, value: int):
    with pytest.raises(InputError, match=f"{name}: out of range"):
        stages.worklist(**{name: value})


def test_a_mask_that_someone_found_wrong_is_listed_by_its_scene(home: World, tmp_path: Path):
    fine = home.scene("block:c")
    mask = home.mask(fine, sure())
    record = stages.worklist(scene_ids=[fine, fine], out=str(tmp_path / "w"))
    (item,) = record.items
    assert (item.scene_id, item.mask_id, item.reason) == (fine, mask.mask_id, "requested")
    assert (item.windows[0].height, item.windows[0].width) == (512, 512)
    assert (tmp_path / "w" / "labels" / f"{fine}.gpkg").is_file()


def test_a_scene_without_a_mask_cannot_be_corrected(home: World):
    with pytest.raises(NotInCatalog, match="the scene has no mask to correct"):
        stages.worklist(scene_ids=[home.scene("block:c")])
    with pytest.raises(NotInCatalog, match="sc-unknown"):
        stages.worklist(scene_ids=["sc-unknown"])


def test_the_command_prints_the_reasons_and_writes_the_folder(
    home: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "list"
    assert _run(["worklist", "--count", "5", "--out", str(folder), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["folder"] == str(folder)
    assert sorted(path.name for path in (folder / "labels").iterdir()) == sorted(
        f"{item['scene_id']}.gpkg" for item in record["items"]
    )
    assert _run(["worklist"]) == 0
    shown = capsys.readouterr().out
    assert all(item["words"] in shown for item in record["items"])
    assert _run(["worklist", "--out", str(folder)]) == 2  # it may hold a drawing


def test_the_list_is_made_without_torch(home: World, tmp_path: Path):
    """Nothing is predicted, so a machine without the extra `ml` can make it."""
    code = (
        "import sys; sys.modules['torch'] = None; from cloudseg import stages; "
        f"print(len(stages.worklist(out={str(tmp_path / 'w')!r}).items))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "2"), done.stderr[-2000:]


def test_pictures_and_masks_of_the_folder_do_not_come_back_as_scenes(home: World, tmp_path: Path):
    stages.worklist(out=str(tmp_path / "list"))
    record = stages.ingest(str(tmp_path / "list"))
    assert (record.added, record.known) == ([], 0)
    assert record.labelled == []
