"""Queries of drift on every database."""

from datetime import timedelta

import rows

from cloudseg.catalog import Catalog, drift_rows, model_rows, scene_rows, training_rows
from cloudseg.drift.report import drift_report

START = rows.START


def test_brightness_is_added_once_and_training_scenes_are_measured_first(full_catalog: Catalog):
    with full_catalog.begin() as db:
        scene_rows.add_scene(db, rows.scene(3))
        assert [s.name for s in drift_rows.list_unmeasured(db, "sn-1", limit=9)] == [
            "synthetic_1",
            "synthetic_3",
            "synthetic_2",
        ]
        assert [s.name for s in drift_rows.list_unmeasured(db, None, limit=1)] == ["synthetic_3"]
        assert drift_rows.add_brightness(db, rows.brightness(1))
        assert not drift_rows.add_brightness(db, rows.brightness(1, 0.9))
        assert drift_rows.add_brightness(db, rows.brightness(3, None))
        assert [s.name for s in drift_rows.list_unmeasured(db, "sn-1", limit=9)] == ["synthetic_2"]
        assert drift_rows.count_unmeasured(db) == 1


def test_training_figures_are_of_the_newest_label_that_the_snapshot_holds(full_catalog: Catalog):
    with full_catalog.begin() as db:
        newest = rows.label(5, of=1, cloud_fraction=0.4)
        scene_rows.add_label(db, newest)
        labels = {label.label_id: "train" for label in (rows.label(1, of=1), rows.label(2, of=1), newest)}
        frozen = rows.snapshot().model_copy(update={"snapshot_id": "sn-2"})
        held_out = rows.label(4, of=2, cloud_fraction=0.9)
        scene_rows.add_label(db, held_out)
        training_rows.add_snapshot(db, frozen, {**labels, held_out.label_id: "held_out"})
        scene_rows.add_label(db, rows.label(3, of=1, cloud_fraction=0.7))
        drift_rows.add_brightness(db, rows.brightness(1, 0.3))
    with full_catalog.read() as db:
        (found,) = drift_rows.list_training_figures(db, "sn-2")
        assert (found.scene_id, found.reflectance, found.cloud_fraction) == (rows.scene(1).scene_id, 0.3, 0.4)
        assert found.created_at == rows.scene(1).created_at
        assert drift_rows.list_training_figures(db, "sn-unknown") == []


def test_arrivals_have_the_mask_of_these_weights(full_catalog: Catalog):
    with full_catalog.begin() as db:
        model_rows.add_mask(db, rows.mask(3, of=1, by=1).model_copy(update={"cleaning": "{}", "cloud_fraction": 0.9}))
    with full_catalog.read() as db:
        found = drift_rows.list_arrivals(db, "w-1", since=START)
        assert [(f.scene_id, f.cloud_fraction) for f in found] == [
            (rows.scene(1).scene_id, 0.3),
            (rows.scene(2).scene_id, None),
        ]
        later = drift_rows.list_arrivals(db, "w-1", since=START + timedelta(hours=2))
        assert [f.scene_id for f in later] == [rows.scene(2).scene_id]
        assert drift_rows.find_newest_arrival(db) == START + timedelta(hours=2)


def test_places_are_counted_without_variants(full_catalog: Catalog):
    with full_catalog.begin() as db:
        model_rows.add_mask(db, rows.mask(4, of=2, by=1).model_copy(update={"cloud_fraction": 0.95}))
        model_rows.add_mask(db, rows.mask(5, of=1, by=1).model_copy(update={"cleaning": "{}", "cloud_fraction": 0.9}))
    with full_catalog.read() as db:
        found = drift_rows.list_places(db, "w-1", lower=0.3, upper=0.9)
        assert [(f.place, f.masks, f.overcast, f.clear) for f in found] == [
            (rows.scene(1).place, 1, 0, 1),
            (rows.scene(2).place, 1, 1, 0),
        ]
        assert (found[0].lon, found[0].lat) == (1.5, 45.0)


def test_a_report_of_a_large_shift(full_catalog: Catalog):
    """Sixty training scenes, then thirty in another week that are brighter; the same on every database."""
    with full_catalog.begin() as db:
        labels = {}
        for number in range(100, 190):
            late = number >= 160
            at = START + timedelta(weeks=3 if late else 0, minutes=number)
            scene_rows.add_scene(db, rows.scene(number, sensor="s2", created_at=at))
            drift_rows.add_brightness(db, rows.brightness(number, 0.1 + number % 60 / 600 + 0.3 * late))
            if not late:
                label = rows.label(number, of=number)
                scene_rows.add_label(db, label)
                labels[label.label_id] = "train"
        frozen = rows.snapshot().model_copy(update={"snapshot_id": "sn-3"})
        training_rows.add_snapshot(db, frozen, labels)
        weights = rows.weights(3).model_copy(update={"snapshot_id": "sn-3"})
        model_rows.add_weights(db, weights)
        model_rows.add_promotion(db, rows.promotion(3, of=3, previous=1))
    with full_catalog.read() as db:
        record = drift_report(db)
    (sentence,) = record.past_limit
    assert sentence.startswith("brightness of the scenes of s2 in 2024-W25 is higher than in training: median 0.4")
    assert (record.weights_id, record.snapshot_id, record.unmeasured) == ("w-3", "sn-3", 2)
    assert [note for note in record.notes if note.startswith("unknown is not compared")], record.notes
    assert record.as_json()["weeks"][0]["week"] == "2024-W25"


def test_a_report_without_a_champion_says_so(catalog: Catalog):
    with catalog.read() as db:
        record = drift_report(db)
    assert (record.weights_id, record.weeks, record.past_limit) == (None, [], [])
    assert record.notes == ["there is no champion yet, so there is nothing to compare with"]
