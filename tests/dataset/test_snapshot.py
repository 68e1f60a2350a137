"""Snapshots: the same labels give the same id, places keep their split, pixels are read as they were written."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cloudseg.bands import MASK_NO_DATA
from cloudseg.catalog import Catalog, scene_rows, training_rows
from cloudseg.dataset import build_snapshot, open_chips
from cloudseg.dataset.shard import ShardWriter
from cloudseg.errors import EmptySplit, ObjectCorrupt, SnapshotChanged
from cloudseg.grid import starts
from cloudseg.records import Snapshot
from cloudseg.storage import LocalStore
from tests.damage import flip_a_bit_unnoticed
from tests.tiny_world import draw, places, recipe

AddScene = Callable[..., str]


def get(catalog: Catalog, snapshot_id: str) -> Snapshot:
    with catalog.read() as db:
        return training_rows.get_snapshot(db, snapshot_id)


def other_world(folder: Path) -> tuple[LocalStore, Catalog]:
    catalog = Catalog(f"sqlite:///{folder / 'other.db'}")
    catalog.upgrade()
    return LocalStore(folder / "other"), catalog


def test_the_same_labels_give_the_same_snapshot_in_any_order(
    store: LocalStore, catalog: Catalog, tmp_path: Path, add_scene: AddScene
) -> None:
    names = places("train", 3) + places("held_out", 2)
    for number, place in enumerate(names):
        add_scene(place, seed=number, size=(100, 80))
    first = build_snapshot(store, catalog, recipe())
    assert first.created
    again = build_snapshot(store, catalog, recipe(optimizer={"lr": 0.5}))
    assert again == first.model_copy(update={"created": False})

    store2, catalog2 = other_world(tmp_path)
    with catalog.read() as db:
        pairs = [(scene_rows.get_scene(db, label.scene_id), label) for label in scene_rows.list_newest_labels(db)]
    for scene, label in reversed(pairs):
        for key in (scene.key, label.key):
            store2.put(key, store.get(key))
        with catalog2.begin() as db:
            scene_rows.add_scene(db, scene)
            scene_rows.add_label(db, label)
    assert build_snapshot(store2, catalog2, recipe()).snapshot_id == first.snapshot_id


def test_another_cut_or_another_label_gives_another_snapshot(
    store: LocalStore, catalog: Catalog, add_scene: AddScene
) -> None:
    place = places("train", 1)[0]
    add_scene(place, seed=1)
    first = build_snapshot(store, catalog, recipe())
    smaller = build_snapshot(store, catalog, recipe(data={"chip_size": 32}))
    _, label = draw(1, (64, 64))
    corrected = label.copy()
    corrected[:10] = 1
    pixels, _ = draw(1, (64, 64))
    add_scene(place, pixels=pixels, label=corrected)
    newer = build_snapshot(store, catalog, recipe())
    assert len({first.snapshot_id, smaller.snapshot_id, newer.snapshot_id}) == 3
    with open_chips(store, get(catalog, newer.snapshot_id)) as chips:
        assert len(chips.chips) == 1, "the newest label of a scene only"
        np.testing.assert_array_equal(chips.label(chips.chips[0]), corrected)


def test_chips_cover_the_scene_and_carry_its_pixels(store: LocalStore, catalog: Catalog, add_scene: AddScene) -> None:
    pixels, label = draw(3, (150, 100))
    pixels[:, :20, :30] = 0
    add_scene(places("train", 1)[0], size=(150, 100), pixels=pixels, label=label, sensor="sentinel-2-l1c")
    record = build_snapshot(store, catalog, recipe())
    expected = label.copy()
    expected[:20, :30] = MASK_NO_DATA
    seen = np.zeros((150, 100), bool)
    with open_chips(store, get(catalog, record.snapshot_id)) as chips:
        assert [(c.row_off, c.col_off) for c in chips.chips] == [
            (row, col) for row in starts(150, 64) for col in starts(100, 64)
        ]
        for chip in chips.chips:
            window = slice(chip.row_off, chip.row_off + 64), slice(chip.col_off, chip.col_off + 64)
            np.testing.assert_array_equal(chips.pixels(chip), pixels[:, *window])
            np.testing.assert_array_equal(chips.label(chip), expected[window])
            assert chip.cloud_fraction == pytest.approx((expected[window] == 1).sum() / (expected[window] != 255).sum())
            assert chip.tags == {"synthetic": "yes", "sensor": "sentinel-2-l1c", "cloud_cover": "mixed"}
            seen[window] = True
    assert seen.all()


def test_a_smaller_scene_is_padded_and_masked(store: LocalStore, catalog: Catalog, add_scene: AddScene) -> None:
    add_scene(places("train", 1)[0], size=(40, 50))
    record = build_snapshot(store, catalog, recipe())
    with open_chips(store, get(catalog, record.snapshot_id)) as chips:
        (chip,) = chips.chips
        assert (chip.height, chip.width, chip.labelled_fraction) == (40, 50, 1.0)
        assert (chips.label(chip)[40:] == 255).all()
        assert (chips.label(chip)[:, 50:] == 255).all()
        assert (chips.pixels(chip)[:, 40:] == 0).all()
        assert chips.pixels(chip)[:, :40, :50].min() > 0


def test_chips_without_labeled_pixels_are_left_out(store: LocalStore, catalog: Catalog, add_scene: AddScene) -> None:
    _, label = draw(5, (64, 128))
    label[:, :64] = 255
    add_scene(places("train", 1)[0], size=(64, 128), seed=5, label=label)
    record = build_snapshot(store, catalog, recipe())
    assert record.counts["chips"] == 1
    assert record.counts["train"]["places"] == 1


def test_working_pixels_are_means(store: LocalStore, catalog: Catalog, add_scene: AddScene) -> None:
    pixels, label = draw(6, (128, 130))
    add_scene(places("train", 1)[0], size=(128, 130), pixels=pixels, label=label)
    record = build_snapshot(store, catalog, recipe(input={"working_resolution_m": 60.0}))
    with open_chips(store, get(catalog, record.snapshot_id)) as chips:
        assert [(c.row_off, c.col_off) for c in chips.chips] == [(0, 0), (0, 1)]
        means = pixels[:, :128, :128].reshape(3, 64, 2, 64, 2).mean(axis=(2, 4))
        assert np.abs(chips.pixels(chips.chips[0]) - means).max() <= 0.5


def test_held_out_places_stay_held_out(store: LocalStore, catalog: Catalog, add_scene: AddScene) -> None:
    held, train = places("held_out", 1)[0], places("train", 1)[0]
    add_scene(held, seed=1)
    add_scene(train, seed=2)
    build_snapshot(store, catalog, recipe())
    for seed in range(3, 8):
        add_scene(held, seed=seed)
    record = build_snapshot(store, catalog, recipe())
    with open_chips(store, get(catalog, record.snapshot_id)) as chips:
        assert {chip.place for chip in chips.of("train")} == {train}
        assert len(chips.of("held_out")) == 6
    # What the catalog has recorded takes precedence over the rule: a place keeps the split that was decided.
    odd = places("train", 3)[-1]
    with catalog.begin() as db:
        scene_rows.decide_places(db, {odd: "held_out"})
    add_scene(odd, seed=9)
    for dry_run in (True, False):
        counts = build_snapshot(store, catalog, recipe(), dry_run=dry_run).counts
        assert (counts["train"]["places"], counts["held_out"]["places"]) == (1, 2)


def test_some_label_sources_are_only_held_out(store: LocalStore, catalog: Catalog, add_scene: AddScene) -> None:
    own, foreign, shared = places("train", 3)
    add_scene(own, seed=1)
    add_scene(shared, seed=2)
    only = recipe(data={"chip_size": 64, "held_out_sources": ["elsewhere"]})
    build_snapshot(store, catalog, only)
    add_scene(foreign, seed=3, source="elsewhere")
    add_scene(shared, seed=4, source="elsewhere")  # the place is trained on: such a scene is not used at all
    for dry_run in (True, False):
        counts = build_snapshot(store, catalog, only, dry_run=dry_run).counts
        assert (counts["train"]["scenes"], counts["held_out"]["scenes"]) == (2, 1)
    # A recipe that names no source trains on the shared place, but the foreign place stays held out.
    counts = build_snapshot(store, catalog, recipe()).counts
    assert (counts["train"]["scenes"], counts["held_out"]["scenes"]) == (3, 1)


@pytest.mark.parametrize("what", ["scene", "label"])
def test_nothing_is_learned_from_pixels_that_changed(
    store: LocalStore, catalog: Catalog, add_scene: AddScene, what: str
) -> None:
    add_scene(places("train", 1)[0], size=(100, 80))
    with catalog.read() as db:
        (label,) = scene_rows.list_newest_labels(db)
        scene = scene_rows.get_scene(db, label.scene_id)
    damaged = scene if what == "scene" else label
    flip_a_bit_unnoticed(Path(store.gdal_path(damaged.key)))
    name = scene.scene_id if what == "scene" else label.label_id
    with pytest.raises(ObjectCorrupt, match=rf"{what} {name}.* bytes do not match") as caught:
        build_snapshot(store, catalog, recipe())
    assert caught.value.expected == damaged.sha256
    with catalog.read() as db:
        assert training_rows.list_snapshots(db) == []


def test_dry_run_writes_nothing(store: LocalStore, catalog: Catalog, add_scene: AddScene) -> None:
    add_scene(places("train", 1)[0])
    before = sorted(store.list_keys())
    record = build_snapshot(store, catalog, recipe(), dry_run=True)
    assert not record.created
    assert record.counts["train"] == {"chips": 1, "scenes": 1, "places": 1, "cloud_fraction": None}
    assert sorted(store.list_keys()) == before
    with catalog.read() as db:
        assert training_rows.list_snapshots(db) == []


def test_no_fitting_scene_is_an_error(store: LocalStore, catalog: Catalog, add_scene: AddScene) -> None:
    add_scene(places("train", 1)[0])
    with pytest.raises(EmptySplit, match=r"red green blue.*expected red nir"):
        build_snapshot(store, catalog, recipe(model={"bands": ["red", "nir"]}))


def test_changed_and_missing_shards_are_noticed_and_rebuilt(
    store: LocalStore, catalog: Catalog, add_scene: AddScene
) -> None:
    add_scene(places("train", 1)[0])
    record = build_snapshot(store, catalog, recipe())
    snapshot = get(catalog, record.snapshot_id)
    (key,) = store.list_keys("shards/")
    path, data = store.root / key, store.get(key)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(SnapshotChanged, match="not what the manifest names"), open_chips(store, snapshot):
        pass
    path.write_bytes(data[:-1])
    with pytest.raises(SnapshotChanged, match="bytes"), open_chips(store, snapshot, verify=False):
        pass
    path.unlink()
    with pytest.raises(SnapshotChanged, match="no object"), open_chips(store, snapshot):
        pass
    assert build_snapshot(store, catalog, recipe()) == record.model_copy(update={"created": False})
    assert store.get(key) == data


def test_killed_between_bytes_and_row_recovers(
    store: LocalStore, catalog: Catalog, tmp_path: Path, add_scene: AddScene
) -> None:
    add_scene(places("train", 1)[0])
    with (
        closing(sqlite3.connect(tmp_path / "catalog.db")) as now,
        closing(sqlite3.connect(tmp_path / "before.db")) as before,
    ):
        now.backup(before)
    first = build_snapshot(store, catalog, recipe())
    earlier = Catalog(f"sqlite:///{tmp_path / 'before.db'}")
    assert build_snapshot(store, earlier, recipe()) == first


def test_shards_share_what_did_not_change(store: LocalStore, tmp_path: Path) -> None:
    def pack(numbers: list[int]) -> set[str]:
        with ShardWriter(store, tmp_path, 3 * 8 * 8, max_bytes=40 * 192, min_bytes=4 * 192) as writer:
            for number in numbers:
                writer.begin_scene(f"scene {number:04d}")
                for part in range(2):
                    writer.add(np.full((1, 8, 8), 10 * number + part, np.uint16), np.zeros((8, 8), np.uint8))
            writer.finish()
        assert all(shard.object.size == 192 * shard.chips for shard in writer.shards)
        return {shard.object.sha256 for shard in writer.shards}

    many = list(range(200))
    before, after = pack(many), pack([number for number in many if number != 101])
    assert len(before) > 8
    assert len(before - after) <= 3, "one scene less changes the shards around it, not the rest"
