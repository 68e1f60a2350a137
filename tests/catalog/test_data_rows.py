"""Labeled scenes, places and differences of snapshots, on every database."""

import rows

from cloudseg.catalog import Catalog, data_rows, label_rows, scene_rows, training_rows
from cloudseg.catalog.data_rows import DataFilter, PlaceBox, SensorCount


def fill(catalog: Catalog) -> None:
    """Add a corrected label to the labels 1 and 2 of scene 1, and a second snapshot."""
    with catalog.begin() as db:
        for number, of in ((3, 1), (4, 2)):
            scene_rows.add_label(db, rows.label(number, of=of), state="proposed")
        label_rows.add_event(db, rows.label(3, of=1), "rejected", actor="ada", reason="wrong")
        frozen = rows.snapshot(2)
        splits = {rows.label(1, of=1).label_id: "train", rows.label(4, of=2).label_id: "train"}
        training_rows.add_snapshot(db, frozen, splits)


def test_labels_are_counted_by_state(full_catalog: Catalog):
    fill(full_catalog)
    with full_catalog.read() as db:
        assert data_rows.count_by_state(db) == {"accepted": 2, "proposed": 1, "rejected": 1}
        assert data_rows.count_by_sensor(db) == [
            SensorCount("unknown", "train", 1, 1, 1),
            SensorCount("unknown", "undecided", 1, 0, 1),
        ]


def test_scenes_are_listed_with_all_their_labels(full_catalog: Catalog):
    fill(full_catalog)
    with full_catalog.read() as db:

        def listed(**wanted: str) -> list[str]:
            found = data_rows.list_scenes(db, DataFilter(**wanted))
            assert data_rows.count_scenes(db, DataFilter(**wanted)) == len(found)
            return [entry.scene.name for entry in found]

        assert listed() == ["synthetic_2", "synthetic_1"]
        assert listed(state="accepted") == listed(split="train") == listed(text="TIC_1") == ["synthetic_1"]
        assert listed(state="proposed") == listed(split="undecided") == ["synthetic_2"]
        assert listed(text="synthetic%") == listed(sensor="another") == []
        first = data_rows.list_scenes(db, DataFilter(), limit=1, offset=1)[0]
        assert first.split == "train"
        assert [(s.label.version, s.event.state) for s in first.labels] == [
            (1, "accepted"),
            (2, "accepted"),
            (3, "rejected"),
        ]


def test_places_have_the_bounds_of_their_scenes(full_catalog: Catalog):
    fill(full_catalog)
    with full_catalog.read() as db:
        assert sorted(data_rows.list_place_boxes(db)) == [
            PlaceBox("mgrs:31UBQ", "train", 1, 1, 1.5, 45.0, 1.7, 45.2),
            PlaceBox("mgrs:31UCQ", "undecided", 1, 1, 179.9, 45.0, 180.0, 45.2),
        ]


def test_a_difference_is_by_place_and_counts_changed_scenes(full_catalog: Catalog):
    fill(full_catalog)
    with full_catalog.read() as db:
        first, second = data_rows.list_difference_by_place(db, "sn-1", "sn-2")
        assert (first.place, len(first.added), len(first.removed), first.changed) == ("mgrs:31UBQ", 1, 1, 1)
        assert (second.place, len(second.added), len(second.removed), second.changed) == ("mgrs:31UCQ", 1, 0, 0)
        assert data_rows.list_difference_by_place(db, "sn-2", "sn-2") == []
