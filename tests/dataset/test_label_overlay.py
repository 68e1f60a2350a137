"""The label of a scene is the overlay of its accepted labels: in snapshots, in slices and in evaluations."""

import json
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from cloudseg import keys
from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA
from cloudseg.catalog import Catalog, label_rows, scene_rows, training_rows
from cloudseg.dataset import build_snapshot, open_chips
from cloudseg.errors import EmptySplit
from cloudseg.evaluate.evaluation import evaluate_weights
from cloudseg.evaluate.scene_result import SceneResult
from cloudseg.evaluate.table import read_table
from cloudseg.records import Chip, LabelState, SnapshotRecord, StoredObject
from cloudseg.storage import LocalStore
from tests.evaluate.world import register_net
from tests.tiny_world import CPU, draw, places, recipe

AddScene = Callable[..., str]
UInt8 = npt.NDArray[np.uint8]


def half_cloud() -> UInt8:
    """Return a label of 64 × 64 pixels whose left half, 2048 pixels, is cloud."""
    label = np.full((64, 64), MASK_CLEAR, np.uint8)
    label[:, :32] = MASK_CLOUD
    return label


def partial() -> UInt8:
    """Return an opinion on 96 pixels: 80 of the cloud are clear, 16 of the clear ground are cloud."""
    label = np.full((64, 64), MASK_NO_DATA, np.uint8)
    label[10:20, 4:12] = MASK_CLEAR
    label[40:44, 50:54] = MASK_CLOUD
    return label


@pytest.fixture
def corrected(add_scene: AddScene) -> Callable[..., tuple[str, str]]:
    """Return a function that adds a scene with a label and a partial correction; it returns their ids."""

    def add(split: str = "train", **more: object) -> tuple[str, str]:
        pixels, _ = draw(1, (64, 64))
        place = places(split, 1)[0]
        return (
            add_scene(place, pixels=pixels, label=half_cloud(), **more),
            add_scene(place, pixels=pixels, label=partial(), **more),
        )

    return add


def decide(catalog: Catalog, label_id: str, *states: LabelState) -> None:
    with catalog.begin() as db:
        for state in states:
            label_rows.add_event(db, scene_rows.get_label(db, label_id), state, actor="ada", reason="because")


def read_chips(store: LocalStore, catalog: Catalog, record: SnapshotRecord) -> list[tuple[Chip, UInt8]]:
    with catalog.read() as db:
        snapshot = training_rows.get_snapshot(db, record.snapshot_id)
    with open_chips(store, snapshot) as chips:
        return [(chip, chips.label(chip).copy()) for chip in chips.chips]


def test_a_partial_correction_merges(
    store: LocalStore, catalog: Catalog, corrected: Callable[..., tuple[str, str]]
) -> None:
    first, second = corrected()
    record = build_snapshot(store, catalog, recipe())
    ((chip, label),) = read_chips(store, catalog, record)
    expected = np.where(partial() != MASK_NO_DATA, partial(), half_cloud())
    np.testing.assert_array_equal(label, expected)
    assert {value: int((label == value).sum()) for value in (0, 1, 255)} == {0: 2112, 1: 2048 - 80 + 16, 255: 0}
    assert (chip.label_id, chip.labelled_fraction) == (second, 1.0)
    assert chip.chip_id == keys.make_id("ch", first, second, "0", "0", "1"), "a hash over all that took part"
    assert record.counts["train"]["cloud_fraction"] == round((2048 - 80 + 16) / 4096, 6)
    with catalog.read() as db:
        assert training_rows.list_snapshot_labels(db, record.snapshot_id) == {first: "train", second: "train"}
        objects = [store.exists(scene_rows.get_label(db, label_id).key) for label_id in (first, second)]
    assert objects == [True, True], "both versions stay addressable"


def test_withdrawing_restores_what_was_before(store: LocalStore, catalog: Catalog, add_scene: AddScene) -> None:
    pixels, _ = draw(1, (64, 64))
    place = places("train", 1)[0]
    first = add_scene(place, pixels=pixels, label=half_cloud())
    before = build_snapshot(store, catalog, recipe())
    second = add_scene(place, pixels=pixels, label=partial())
    merged = build_snapshot(store, catalog, recipe())
    assert merged.snapshot_id != before.snapshot_id
    decide(catalog, second, "withdrawn")
    assert build_snapshot(store, catalog, recipe()) == before.model_copy(update={"created": False})
    decide(catalog, second, "accepted")
    assert build_snapshot(store, catalog, recipe()) == merged.model_copy(update={"created": False})
    decide(catalog, first, "withdrawn")
    alone = build_snapshot(store, catalog, recipe())
    ((_, label),) = read_chips(store, catalog, alone)
    np.testing.assert_array_equal(label, partial())


def test_the_chips_of_one_label_keep_their_ids(store: LocalStore, catalog: Catalog, add_scene: AddScene) -> None:
    label_id = add_scene(places("train", 1)[0])
    ((chip, _),) = read_chips(store, catalog, build_snapshot(store, catalog, recipe()))
    assert (chip.label_id, chip.chip_id) == (label_id, keys.make_id("ch", label_id, "0", "0", "1"))


def test_labels_that_wait_or_were_rejected_are_in_no_snapshot(
    store: LocalStore, catalog: Catalog, add_scene: AddScene
) -> None:
    label_id = add_scene(places("train", 1)[0])
    decide(catalog, label_id, "withdrawn")
    with pytest.raises(EmptySplit, match=r"0 labeled scenes.*cloudseg labels list --state proposed"):
        build_snapshot(store, catalog, recipe())


def test_pixels_are_overlaid_before_they_are_reduced(store: LocalStore, catalog: Catalog, add_scene: AddScene) -> None:
    """One scene pixel of four without an opinion must not hide the three that have one, nor the reverse."""
    pixels, place = draw(1, (64, 64))[0], places("train", 1)[0]
    cloud, opinion = np.full((64, 64), MASK_CLOUD, np.uint8), np.full((64, 64), MASK_NO_DATA, np.uint8)
    opinion[::2, ::2] = MASK_CLEAR  # one of four pixels: the majority stays cloud
    opinion[:32:2, 1::2] = opinion[1:32:2, ::2] = MASK_CLEAR  # three of four in the upper half: clear
    add_scene(place, pixels=pixels, label=cloud)
    add_scene(place, pixels=pixels, label=opinion)
    record = build_snapshot(store, catalog, recipe(input={"working_resolution_m": 60.0}))
    ((_, label),) = read_chips(store, catalog, record)
    assert (label[:16, :32] == MASK_CLEAR).all()
    assert (label[16:32, :32] == MASK_CLOUD).all()


def test_the_slice_of_a_scene_follows_from_all_its_labels(
    store: LocalStore, catalog: Catalog, add_scene: AddScene
) -> None:
    pixels, place = draw(1, (64, 64))[0], places("train", 1)[0]
    correction = np.full((64, 64), MASK_NO_DATA, np.uint8)
    correction[:2, :30] = MASK_CLEAR
    add_scene(place, pixels=pixels, label=np.full((64, 64), MASK_CLOUD, np.uint8))
    add_scene(place, pixels=pixels, label=correction)
    ((chip, _),) = read_chips(store, catalog, build_snapshot(store, catalog, recipe()))
    assert chip.tags["cloud_cover"] == "overcast", "98.5 % are cloud; the newest label alone is clear"


def test_an_evaluation_uses_the_labels_of_its_snapshot_and_names_them(
    store: LocalStore, catalog: Catalog, corrected: Callable[..., tuple[str, str]]
) -> None:
    first, second = corrected("held_out")
    record = build_snapshot(store, catalog, recipe())
    decide(catalog, second, "withdrawn")  # the catalog's state of today is another
    weights = register_net(store, catalog, 0.4)
    evaluation = evaluate_weights(
        store, catalog, weights_id=weights.weights_id, snapshot_id=record.snapshot_id, device=CPU
    )
    (result,) = read_table(store, evaluation).scenes
    assert [(use.label_id, use.version) for use in result.labels] == [(first, 1), (second, 2)]
    assert (result.counts.cloud, result.counts.pixels) == (2048 - 80 + 16, 4096)
    part = {name: StoredObject.model_validate(evaluation.report[name]) for name in ("json", "html")}
    report = json.loads(store.get(part["json"].key))
    assert report["labels"] == [
        {
            "scene_id": result.scene_id,
            "name": result.name,
            "labels": [{"label_id": first, "version": 1}, {"label_id": second, "version": 2}],
        }
    ]
    html = store.get(part["html"].key).decode()
    assert f"version 1 <code>{first}</code>, version 2 <code>{second}</code>" in html
    assert "1 with a corrected label" in html
    after = build_snapshot(store, catalog, recipe())
    again = evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=after.snapshot_id, device=CPU)
    (result,) = read_table(store, again).scenes
    assert ([use.version for use in result.labels], result.counts.cloud) == ([1], 2048)
    # Evaluations of earlier versions name no labels.
    older = {name: value for name, value in result.as_json().items() if name != "labels"}
    assert SceneResult.model_validate(older).labels == []
