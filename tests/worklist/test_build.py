"""Worklists of worlds in which the right answer is known: what is found, in which window, and in which order."""

from pathlib import Path

import numpy as np
import pytest

from cloudseg.catalog import model_rows
from cloudseg.errors import StoreUnreachable
from cloudseg.records import WorklistItem
from cloudseg.worklist import Worklist, build_worklist
from tests.worklist.conftest import CLEAR, SIZE, World, part, sure, undecided


def build(world: World, *, count: int = 20, megapixels: int = 100, **arguments) -> Worklist:
    return build_worklist(
        world.store, world.catalog, weights_id=world.champion, count=count, megapixels=megapixels, **arguments
    )


def only(world: World) -> WorklistItem:
    (item,) = build(world).items
    return item


def at(item: WorklistItem) -> tuple[int, int]:
    return item.windows[0].row_off, item.windows[0].col_off


def test_a_sure_model_without_labels_leaves_nothing_to_do(world: World):
    world.mask(world.scene("block:a"), sure(part(slice(0, 200), slice(0, 200))))
    made = build(world)
    assert (made.items, made.examined, made.masked) == ([], 1, 1)


def test_an_undecided_window_is_found_with_its_figures(world: World):
    scene_id = world.scene("block:a")
    mask = world.mask(scene_id, undecided(0.5, window=(256, 0)))
    item = only(world)
    assert (item.scene_id, item.mask_id, item.reason) == (scene_id, mask.mask_id, "uncertain")
    assert at(item) == (256, 0)
    assert item.score == pytest.approx(0.5 + 0.5 * 0.169, abs=0.01)  # half at one bit, half at probability 0.02
    assert "50% of the unlabeled pixels are within 0.1 of the threshold 0.40" in item.words
    assert "mean entropy" in item.words


def test_pixels_that_are_labeled_are_not_uncertain(world: World):
    scene_id = world.scene("block:a")
    steps = undecided(0.5, window=(256, 0))
    world.mask(scene_id, steps)
    label = np.full((SIZE, SIZE), 255)
    label[256:, :256] = (steps >= 100)[256:, :256]  # the label agrees with the mask
    assert [item.reason for item in build(world).items] == ["uncertain"]
    world.label(scene_id, label)
    assert build(world).items == []


def test_a_sliver_of_observed_pixels_does_not_win(world: World):
    steps = np.full((SIZE, SIZE), 255, np.uint8)
    steps[:20, :256] = 100  # at the threshold, but a thirteenth of the window
    world.mask(world.scene("block:a"), steps)
    assert build(world).items == []


def test_two_models_that_differ_are_found(world: World):
    scene_id = world.scene("block:a")
    cloud = part(slice(0, 256), slice(256, 320))  # a quarter of the window at (0, 256)
    world.mask(scene_id, sure(cloud))
    world.mask(scene_id, sure(), weights_id=world.other)
    item = only(world)
    assert (item.reason, at(item), item.score) == ("disagreement", (0, 256), 0.25)
    assert item.words == f"this mask and the one by {world.other} differ in 25% of the pixels"


def test_where_one_model_has_no_data_nothing_is_compared(world: World):
    scene_id = world.scene("block:a")
    other = sure(part(slice(0, 64), slice(0, 64)))
    other[256:] = 255
    world.mask(scene_id, sure(part(slice(256, 512), slice(0, 512))))
    world.mask(scene_id, other, weights_id=world.other)
    item = only(world)
    assert (at(item), item.score) == ((0, 0), 64 * 64 / 256**2)


def test_a_wrong_label_is_found_and_a_right_one_is_not(world: World):
    cloud = part(slice(100, 200), slice(100, 200))
    right, wrong = world.scene("block:a"), world.scene("block:b")
    for scene_id in (right, wrong):
        world.mask(scene_id, sure(cloud))
    world.label(right, cloud)
    world.label(wrong, ~cloud, source="analyst:ada")  # inverted
    item = only(world)
    assert (item.scene_id, item.reason, item.score) == (wrong, "label_error", 1.0)
    assert "the label (newest version 1, analyst:ada)" in item.words
    assert "labeled clear" in item.words


def test_the_newest_label_counts(world: World):
    cloud = part(slice(100, 200), slice(100, 200))
    scene_id = world.scene("block:a")
    world.mask(scene_id, sure(cloud))
    world.label(scene_id, ~cloud)
    assert len(build(world).items) == 1
    world.label(scene_id, cloud, source="corrected")
    assert build(world).items == []


def test_where_the_newest_label_has_no_opinion_the_older_one_counts(world: World):
    cloud = part(slice(100, 200), slice(100, 200))
    scene_id = world.scene("block:a")
    world.mask(scene_id, sure(cloud))
    world.label(scene_id, ~cloud)
    corner = np.full((SIZE, SIZE), 255)
    corner[:256, :256] = cloud[:256, :256]
    world.label(scene_id, corner, source="corner")
    item = only(world)  # the corner is right now, the rest is as wrong as it was
    assert (0, 0) not in {(window.row_off, window.col_off) for window in item.windows}
    assert item.score == 1.0


def test_a_label_that_waits_for_a_decision_keeps_its_scene_off_the_list(world: World):
    scene_id = world.scene("block:a")
    world.mask(scene_id, undecided(0.5))
    world.label(scene_id, np.full((SIZE, SIZE), 255), state="proposed")
    assert build(world).items == []


def test_a_rejected_label_changes_nothing(world: World):
    cloud = part(slice(100, 200), slice(100, 200))
    scene_id = world.scene("block:a")
    world.mask(scene_id, sure(cloud))
    world.label(scene_id, ~cloud, state="rejected")
    assert build(world).items == []


def dates(world: World, count: int, roof: np.ndarray | None, *, overcast: int = 0, grid: int = 0) -> list[str]:
    """Add masks of one place on several days: a roof on every date, and clouds that move."""
    found = []
    for day in range(count + overcast):
        cloud = part(slice(0, SIZE), slice(40 * day, 40 * day + 30)) if day < count else np.ones((SIZE, SIZE), bool)
        scene_id = world.scene("block:city", number=day, transform=[30, 0, 4e5 + 30 * grid * day, 0, -30, 5e6])
        world.mask(scene_id, sure(cloud | roof if roof is not None else cloud))
        found.append(scene_id)
    return found


ROOF = part(slice(300, 400), slice(20, 120))


def test_a_roof_that_is_cloud_on_every_date_is_found(world: World):
    scenes = dates(world, 6, ROOF, overcast=2)
    item = only(world)
    assert (item.reason, at(item)) == ("always_cloud", (256, 0))
    assert item.scene_id == scenes[5]  # the latest date that is not overcast
    assert item.score == pytest.approx(100 * 100 / 256**2, abs=0.001)
    assert "15% of the pixels are cloud on at least 90% of 6 mostly clear dates" in item.words


def test_clouds_that_move_are_no_roof(world: World):
    dates(world, 8, None)
    assert build(world).items == []


def test_what_chance_explains_is_no_roof(world: World):
    half = part(slice(0, SIZE), slice(0, 256))  # half of the scene is cloud on every date
    for day in range(5):
        world.mask(world.scene("block:city", number=day), sure(half))
    item = only(world)
    assert at(item) == (0, 0)
    assert item.score == pytest.approx(1 - 0.5**5, abs=1e-4)
    assert "100% of the pixels are cloud on at least 90% of 5 mostly clear dates, 3.1% expected" in item.words


def test_few_dates_are_not_enough(world: World):
    dates(world, 4, ROOF)
    assert build(world).items == []


def test_scenes_that_do_not_lie_on_each_other_are_not_compared(world: World):
    dates(world, 6, ROOF, grid=1)
    assert build(world).items == []


def test_a_day_counts_once(world: World):
    for number in range(6):
        scene_id = world.scene("block:city", number=0, sensor=f"sensor-{number}")
        world.mask(scene_id, sure(ROOF))
    assert build(world).items == []


def test_the_reasons_take_turns(world: World):
    for place in "abc":
        world.mask(world.scene(f"block:{place}"), undecided(0.9))
    differing = world.scene("block:d")
    world.mask(differing, sure(part(slice(0, 30), slice(0, 256))))
    world.mask(differing, sure(), weights_id=world.other)
    assert [item.reason for item in build(world, count=3).items] == ["disagreement", "uncertain", "uncertain"]


def test_no_place_fills_the_list(world: World):
    for number in range(4):
        world.mask(world.scene("block:a", number=number), undecided(1 - 0.01 * number))
    for place, share in (("b", 0.4), ("c", 0.3)):
        world.mask(world.scene(f"block:{place}"), undecided(share))
    made = build(world, count=6)
    assert [item.place for item in made.items] == ["block:a", "block:a", "block:b", "block:c"]


def test_no_sensor_fills_the_list_while_there_are_others(world: World):
    for place in "abcd":
        world.mask(world.scene(f"block:{place}", sensor="sentinel-2-l1c"), undecided(0.9))
    for place in "ef":
        world.mask(world.scene(f"block:{place}", sensor="landsat-8-l1"), undecided(0.2))
    sensors = [item.sensor for item in build(world, count=4).items]
    assert sorted(sensors) == ["landsat-8-l1"] * 2 + ["sentinel-2-l1c"] * 2
    assert len(build(world, count=6).items) == 6  # there are no others: the list is filled


def test_a_scene_is_on_the_list_once_with_its_best_windows(world: World):
    scene_id = world.scene("block:a")
    steps = undecided(0.4)
    steps[256:400, 256:512] = 100
    world.mask(scene_id, steps)
    world.mask(scene_id, sure(), weights_id=world.other)
    (item,) = build(world).items
    assert [(window.row_off, window.col_off) for window in item.windows][:2] == [(256, 256), (0, 0)]
    scores = [window.score for window in item.windows]
    assert scores == sorted(scores, reverse=True)


def test_the_same_catalog_gives_the_same_list(world: World):
    for place in "cab":
        world.mask(world.scene(f"block:{place}"), undecided(0.5))
    first, second = build(world), build(world)
    assert first == second
    assert [item.scene_id for item in first.items] == sorted(item.scene_id for item in first.items)  # ties by id
    assert [item.rank for item in first.items] == [1, 2, 3]


def test_other_items_are_another_list(world: World):
    world.mask(world.scene("block:a"), undecided(0.5))
    before = build(world).worklist_id
    world.mask(world.scene("block:b"), undecided(0.4))
    assert build(world).worklist_id != before


def test_the_budget_takes_the_newest_scene_of_every_place_first(world: World):
    for place in "ab":
        for number in range(2):
            world.mask(world.scene(f"block:{place}", number=number), undecided(0.5 + 0.1 * number))
    made = build(world, megapixels=1)  # half for single scenes: one of 0.26 megapixels, and a second just does not fit
    assert made.examined == 1
    assert made.masked == 4
    assert build(world, megapixels=2).examined == 3
    newest = {item.scene.rpartition("_")[2] for item in build(world, count=1, megapixels=1).items}
    assert newest == {"1"}


def test_progress_counts_scenes_and_places(world: World):
    dates(world, 5, None)
    steps = []
    build(world, on_progress=lambda *step: steps.append(step))
    assert steps == [*((done, 5, "scenes") for done in range(1, 6)), (1, 1, "places")]


def damage(world: World, scene_id: str, *, content: bytes | None) -> None:
    with world.catalog.read() as db:
        mask = model_rows.find_mask(db, scene_id, world.champion)
    path = Path(world.store.gdal_path(mask.companions["probability"]["key"]))
    path.chmod(0o600)
    path.unlink() if content is None else path.write_bytes(content)


@pytest.mark.parametrize("content", [None, b"no raster"])
def test_a_scene_that_cannot_be_read_is_named_and_the_others_are_examined(world: World, content: bytes | None):
    bad, good = world.scene("block:a"), world.scene("block:b")
    for scene_id in (bad, good):
        world.mask(scene_id, undecided(0.5))
    damage(world, bad, content=content)
    made = build(world)
    assert [item.scene_id for item in made.items] == [good]
    assert made.failed[bad]["error"] in ("ObjectMissing", "ObjectCorrupt")
    assert made.examined == 1


def test_a_store_that_does_not_answer_ends_the_work(world: World, monkeypatch: pytest.MonkeyPatch):
    world.mask(world.scene("block:a"), undecided(0.5))

    def fails(*_: object) -> None:
        raise StoreUnreachable("the store does not answer")

    monkeypatch.setattr(world.store, "gdal_path", fails)
    with pytest.raises(StoreUnreachable):
        build(world)


def test_rasters_of_different_sizes_are_an_error_of_that_scene(world: World):
    scene_id = world.scene("block:a")
    world.mask(scene_id, undecided(0.5))
    world.mask(scene_id, np.full((256, 256), CLEAR), weights_id=world.other)
    made = build(world)
    assert made.failed[scene_id]["error"] == "DataError"
    assert "256 x 256, 512 x 512" in made.failed[scene_id]["found"]


def test_small_scenes_are_one_window(world: World):
    scene_id = world.scene("block:a", size=100)
    world.mask(scene_id, np.full((100, 100), 100, np.uint8))
    (window,) = only(world).windows
    assert (window.height, window.width, window.score) == (100, 100, 1.0)
