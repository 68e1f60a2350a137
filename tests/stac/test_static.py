"""The static catalog: written once, right after every kill and every race, and nothing is left over."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cloudseg import keys
from cloudseg.catalog import model_rows, scene_rows
from cloudseg.records import Promotion
from cloudseg.stac import index, items
from cloudseg.stac.items import mask_item
from cloudseg.stac.static import publish, repair
from cloudseg.storage import LocalStore
from cloudseg.storage.s3 import S3Store
from tests.stac.conftest import MAY, Killed, StacWorld, WatchedStore, contents

pytestmark = pytest.mark.filterwarnings("ignore::pystac.errors.DeprecatedWarning")


def is_right(stac: StacWorld) -> bool:
    """Whether every document is what the rows say, and no other is there."""
    return repair(stac.site, stac.catalog, dry_run=True, verify=True) == 0


def test_again_changes_nothing(published: StacWorld) -> None:
    before = {path: path.stat().st_mtime_ns for path in published.root.rglob("*.*")}
    assert published.publish() == 0
    assert repair(published.site, published.catalog, verify=True) == 0
    assert {path: path.stat().st_mtime_ns for path in published.root.rglob("*.*")} == before


def test_repair_alone_makes_the_same_catalog(stac: StacWorld) -> None:
    count = repair(stac.site, stac.catalog)
    made = stac.contents()
    assert count == len(made)
    shutil.rmtree(stac.root)
    stac.publish()
    assert stac.contents() == made


def test_only_what_a_new_mask_touches_is_written(published: StacWorld) -> None:
    before = published.contents()
    mask = published.mask(published.scenes[1], 1)
    months = {"scenes": ["2024-06"], "masks": ["2024-06"]}
    assert publish(published.site, published.catalog, months) > 0
    after = published.contents()
    changed = {key for key in after if after[key] != before.get(key)}
    old = next(key for key in before if key.startswith("stac/masks/2024-06/mk-"))
    assert changed == {
        "stac/masks/collection.json",
        "stac/masks/2024-06/catalog.json",
        "stac/masks/2024-06/items.parquet",
        f"stac/masks/2024-06/{mask.mask_id}.json",
        old,  # its successor
        "stac/scenes/2024-06/catalog.json",
        "stac/scenes/2024-06/items.parquet",
        f"stac/scenes/2024-06/{published.scenes[1].scene_id}.json",
    }
    assert is_right(published)


def test_in_a_store_of_an_earlier_release_nothing_points_to_what_is_not_there(stac: StacWorld) -> None:
    publish(stac.site, stac.catalog, {"masks": ["2024-06"], "scenes": ["2024-06"], "models": [], "snapshots": []})
    check_links(stac)
    assert [item.datetime.month for item in stac.items("masks") if item.datetime] == [6]
    repair(stac.site, stac.catalog)
    assert len(stac.items("masks")) == 4


def test_killed_at_every_write_the_next_publish_completes_it(published: StacWorld, tmp_path: Path) -> None:
    """A new mask and a new month in a catalog that has others; killed before each write, so after each other one."""
    published.mask(published.scenes[3], 0)
    published.mask(published.scenes[1], 1)
    saved = tmp_path / "saved"
    shutil.copytree(published.root, saved)

    def run(before: Any) -> None:
        shutil.rmtree(published.root)
        shutil.copytree(saved, published.root)
        publish(published.on(WatchedStore(published.world.store.root, before)), published.catalog, published.months())

    count = 0

    def count_up(number: int) -> None:
        nonlocal count
        count = max(count, number)

    run(before=count_up)
    wanted = published.contents()
    assert count > 10
    for number in range(1, count + 1):

        def die(at: int, number: int = number) -> None:
            if at == number:
                raise Killed

        with pytest.raises(Killed):
            run(before=die)
        check_links(published)
        published.publish()
        assert published.contents() == wanted, f"killed before write {number}"


def test_killed_while_it_removes_a_month_nothing_points_to_what_is_gone(published: StacWorld, tmp_path: Path) -> None:
    months = published.months()
    with published.catalog.begin() as db:
        db.exec_driver_sql("DELETE FROM mask WHERE scene_id = ?", (published.scenes[1].scene_id,))
    saved = tmp_path / "saved"
    shutil.copytree(published.root, saved)
    for number in range(1, 40):

        def die(at: int, number: int = number) -> None:
            if at == number:
                raise Killed

        site = published.on(WatchedStore(published.world.store.root, die))
        try:
            publish(site, published.catalog, months)
        except Killed:
            check_links(published)
        else:
            break
        repair(published.site, published.catalog)  # items that nothing lists any more are found by `maintain` only
        assert is_right(published), f"killed before write {number}"
        shutil.rmtree(published.root)
        shutil.copytree(saved, published.root)
    assert number > 5
    assert is_right(published)


def check_links(stac: StacWorld) -> None:
    """No list or collection points to what is not there: bytes first, then what points to them."""
    for path in stac.root.rglob("*.json"):
        values = json.loads(path.read_text())
        if values["type"] != "Feature":
            targets = [entry["href"] for entry in values["links"] if entry["rel"] in ("item", "child", "items")]
            targets += [asset["href"] for asset in values.get("assets", {}).values()]
            assert [target for target in targets if not Path(target).is_file()] == []


def test_two_publishers_at_once_lose_nothing(published: StacWorld, tmp_path: Path) -> None:
    """The other one runs as a whole between any two writes of the first, with rows that the first has not seen."""
    published.mask(published.scenes[1], 1)
    saved, late = tmp_path / "saved", published.scenes[2].scene_id
    shutil.copytree(published.root, saved)
    count = 0
    for number in range(1, 40):
        shutil.rmtree(published.root)
        shutil.copytree(saved, published.root)
        with published.catalog.begin() as db:
            db.exec_driver_sql("DELETE FROM mask WHERE scene_id = ?", (late,))
        published.mask(published.scenes[2], 0)
        ran = False

        def other(at: int, number: int = number) -> None:
            nonlocal ran
            if at == number and not ran:
                ran = True
                published.mask(published.scenes[2], 1)
                published.publish()

        publish(
            published.on(WatchedStore(published.world.store.root, before=other)), published.catalog, published.months()
        )
        if not ran:
            break
        count += 1
        assert is_right(published), f"the other one before write {number}"
    assert count > 5


def add_copies(stac: StacWorld, numbers: range) -> None:
    """Add scenes and masks of May with the rasters of the first one."""
    scene, mask = stac.scenes[0], stac.masks[0]
    with stac.catalog.begin() as db:
        for i in numbers:
            copy = {"scene_id": f"sc-copy{i}", "source_sha256": f"{i:064}"}
            scene_rows.add_scene(db, scene.model_copy(update=copy))
            of_copy = {"mask_id": f"mk-copy{i}", "scene_id": f"sc-copy{i}"}
            model_rows.add_mask(db, mask.model_copy(update=of_copy))


def indexed(stac: StacWorld) -> list[str]:
    file = pa.BufferReader(stac.store.get(keys.stac_index("masks", "2024-05")))
    return list(pq.read_table(file, columns=["id"])["id"].to_pylist())


def test_of_a_month_only_the_rows_that_changed_are_made(published: StacWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    add_copies(published, range(6))
    published.publish()
    before = indexed(published)
    made = []

    def watched(site: Any, mask: Any, *rest: Any) -> Any:
        made.append(mask.mask_id)
        return mask_item(site, mask, *rest)

    monkeypatch.setattr(items, "mask_item", watched)
    add_copies(published, range(6, 7))
    publish(published.site, published.catalog, {"masks": ["2024-05"]})
    assert set(made) == {"mk-copy6"}
    assert indexed(published) == sorted([*before, "mk-copy6"])
    monkeypatch.undo()
    published.publish()
    assert is_right(published)
    with published.catalog.begin() as db:
        db.exec_driver_sql("DELETE FROM mask WHERE mask_id = 'mk-copy2'")
    published.publish()
    assert indexed(published) == sorted([*(set(before) - {"mk-copy2"}), "mk-copy6"])
    assert is_right(published)


def test_an_index_of_other_states_is_made_anew(published: StacWorld) -> None:
    """Another writer replaced it, and was killed before it wrote the list."""
    add_copies(published, range(3))
    published.publish()
    key = keys.stac_index("masks", "2024-05")
    older = published.store.get(key)
    add_copies(published, range(3, 5))
    published.publish()
    path = published.world.store.root / key
    path.chmod(0o644)
    path.write_bytes(older)
    add_copies(published, range(5, 6))
    published.publish()
    assert len(indexed(published)) >= 6
    assert is_right(published)


def test_a_removed_mask_leaves_nothing(published: StacWorld) -> None:
    scene = published.scenes[1]
    with published.catalog.begin() as db:
        db.exec_driver_sql("DELETE FROM mask WHERE scene_id = ?", (scene.scene_id,))
    assert repair(published.site, published.catalog) > 0
    assert [key for key in published.contents() if key.startswith("stac/masks/2024-06/")] == []
    assert "2024-06" not in published.contents()["stac/masks/collection.json"].decode()
    assert b'"related"' not in published.contents()[keys.stac_item("scenes", "2024-06", scene.scene_id)]
    assert is_right(published)


def test_publish_alone_removes_what_is_no_longer_there(published: StacWorld) -> None:
    months = published.months()
    with published.catalog.begin() as db:
        db.exec_driver_sql("DELETE FROM mask")
    publish(published.site, published.catalog, months)
    assert [key for key in published.contents() if key.startswith("stac/masks/")] == ["stac/masks/collection.json"]
    assert is_right(published)


@pytest.mark.parametrize("damage", ["item", "catalog.json", "collection.json", "items.parquet", "stray", "month"])
def test_damage_is_repaired(published: StacWorld, damage: str) -> None:
    wanted = published.contents()
    root = published.root
    if damage == "item":
        next((root / "masks" / "2024-05").glob("mk-*.json")).unlink()
    elif damage == "stray":
        (root / "masks" / "2024-05" / "mk-0.tif.aux.xml").write_text("<PAMDataset/>")
        (root / "notes").mkdir()
        (root / "notes" / "a.json").write_text("{}")
    elif damage == "month":
        shutil.copytree(root / "masks" / "2024-05", root / "masks" / "2023-01")
    elif damage == "catalog.json":
        (root / "masks" / "2024-05" / damage).write_text("[]")
    else:
        path = next(root.rglob(damage))
        path.unlink() if path.suffix == ".parquet" else path.write_text("{}")
    found = repair(published.site, published.catalog, dry_run=True)
    assert found > 0
    assert repair(published.site, published.catalog) > 0
    assert published.contents() == wanted
    assert repair(published.site, published.catalog) == 0


def test_other_bytes_in_an_item_are_found_by_verify(published: StacWorld) -> None:
    wanted = published.contents()
    path = next((published.root / "masks" / "2024-05").glob("mk-*.json"))
    path.write_text(path.read_text().replace("Cloud", "Claud"))
    assert repair(published.site, published.catalog) == 0
    assert repair(published.site, published.catalog, verify=True) == 1
    assert published.contents() == wanted


def test_a_dry_run_writes_nothing(stac: StacWorld) -> None:
    assert repair(stac.site, stac.catalog, dry_run=True) > 0
    assert stac.contents() == {}


def test_after_a_rollback_the_older_mask_is_the_latest(published: StacWorld) -> None:
    scene_id = published.scenes[0].scene_id

    def states() -> dict[str, bool]:
        found = [
            item.properties for item in published.items("masks") if item.properties["cloudseg:scene_id"] == scene_id
        ]
        return {values["version"]: values["deprecated"] for values in found}

    promote(published, 1, generation=1)
    assert states() == {"1": True, "2": False}
    promote(published, 0, generation=2)
    assert states() == {"1": False, "2": True}
    assert {item.properties["version"]: item.properties["deprecated"] for item in published.items("models")} == {
        "1": False,
        "2": True,
    }


def promote(stac: StacWorld, model: int, *, generation: int) -> None:
    row = Promotion(
        generation=generation,
        weights_id=stac.weights[model].weights_id,
        previous_weights_id=None,
        action="promote",
        verdict_id=None,
        actor="test",
        reason="test",
        created_at=MAY,
    )
    with stac.catalog.begin() as db:
        model_rows.add_promotion(db, row)
    stac.publish()


def test_another_address_changes_every_document(published: StacWorld) -> None:
    count = sum(not key.endswith(".webp") for key in published.contents())
    settings = replace(published.site.settings, public_url="https://data.example")
    assert repair(replace(published.site, settings=settings), published.catalog) == count
    assert b"stac/catalog.json" not in published.contents()[keys.STAC_ROOT].replace(b"https://data.example/stac", b"")


def test_without_the_library_there_is_no_stale_index(
    published: StacWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(index.importlib.util, "find_spec", lambda _: None)
    index.can_index.cache_clear()
    published.mask(published.scenes[1], 1)
    published.publish()
    published.publish()
    left = [key for key in published.contents() if key.endswith(".parquet")]
    assert sorted(key.split("/")[2] for key in left if "masks" in key) == ["2024-05", "undated"]
    assert "items-2024-06" not in json.loads(published.contents()["stac/masks/collection.json"])["assets"]
    assert caplog.text.count("pip install 'cloudseg[gis]'") == 1
    monkeypatch.undo()
    index.can_index.cache_clear()
    assert repair(published.site, published.catalog) > 0
    assert is_right(published)


def test_on_s3(stac: StacWorld, s3_store: S3Store) -> None:
    for key in stac.world.store.list_keys():
        s3_store.put(key, stac.world.store.get(key))
    site = stac.on(s3_store)
    assert stac.publish(site) == len(contents(s3_store))
    assert stac.publish(site) == 0
    stac.mask(stac.scenes[1], 1)
    assert stac.publish(site) > 0
    with stac.catalog.begin() as db:
        db.exec_driver_sql("DELETE FROM mask WHERE scene_id = ?", (stac.scenes[2].scene_id,))
    assert repair(site, stac.catalog) > 0
    assert repair(site, stac.catalog, dry_run=True, verify=True) == 0
    item = json.loads(s3_store.get(keys.stac_item("scenes", "2024-05", stac.scenes[0].scene_id)))
    assert item["assets"]["image"]["href"] == s3_store.uri_of(stac.scenes[0].key)
    assert item["assets"]["image"]["href"].startswith("s3://")


def test_a_store_that_is_never_quiet_ends_in_an_error(published: StacWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloudseg.errors import ObjectExists, StoreUnreachable
    from cloudseg.stac import static

    monkeypatch.setattr(static, "_ATTEMPTS", 3)
    monkeypatch.setattr(static, "_LONGEST_PAUSE_S", 0.01)

    class Busy(LocalStore):
        def replace(self, key: str, data: bytes, expected: bytes | None = None) -> Any:
            raise ObjectExists("changed", subject=key)

    published.mask(published.scenes[1], 1)
    with pytest.raises(StoreUnreachable, match="busy"):
        published.publish(published.on(Busy(published.world.store.root)))


def test_a_row_that_cannot_be_described_keeps_no_other_from_being_found(
    published: StacWorld, caplog: pytest.LogCaptureFixture
) -> None:
    broken = published.weights[1].weights_id
    with published.catalog.begin() as db:
        db.exec_driver_sql("UPDATE weights SET metadata = '{}' WHERE weights_id = ?", (broken,))
    shutil.rmtree(published.root)
    published.publish()
    assert f"no STAC item of {broken}" in caplog.text
    assert [item.id for item in published.items("models")] == [published.weights[0].weights_id]
    assert len(published.items("masks")) == 4
    assert len(published.items("scenes")) == 3
    assert is_right(published)


def test_scenes_have_a_thumbnail_that_is_made_once_and_for_old_scenes_too(published: StacWorld) -> None:
    scene = published.scenes[0]
    before = {path: path.read_bytes() for path in (published.world.store.root / "scenes").rglob("*.tif")}
    item = next(item for item in published.items("scenes") if item.id == scene.scene_id)
    picture = Path(item.assets["thumbnail"].href)
    with Image.open(picture) as image:
        assert (image.format, image.size) == ("WEBP", (scene.width, scene.height))
        assert len({tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3)}) > 10
    data = picture.read_bytes()
    assert len(data) <= min(40_000, scene.size)
    picture.unlink()
    assert repair(published.site, published.catalog, dry_run=True) == 1
    assert repair(published.site, published.catalog) == 1
    assert picture.read_bytes() == data
    assert before == {path: path.read_bytes() for path in (published.world.store.root / "scenes").rglob("*.tif")}
    assert is_right(published)


def test_a_scene_that_cannot_be_read_has_its_item_and_no_thumbnail(stac: StacWorld) -> None:
    scene = stac.scenes[0]
    path = Path(stac.site.store.gdal_path(scene.key))
    path.chmod(0o644)
    path.write_bytes(b"no raster")
    stac.publish()
    assert scene.scene_id in {item.id for item in stac.items("scenes")}
    assert not list(stac.root.rglob(f"{scene.scene_id}.webp"))
