"""Scenes, labels, places and quarantine."""

import pytest
import rows
from sqlalchemy.exc import IntegrityError

from cloudseg.catalog import Catalog, scene_rows
from cloudseg.errors import NotInCatalog


def test_the_same_source_is_one_scene(catalog: Catalog):
    with catalog.begin() as db:
        assert scene_rows.add_scene(db, rows.scene(1))
        assert not scene_rows.add_scene(db, rows.scene(1, name="another name"))
        assert scene_rows.get_scene(db, rows.scene(1).scene_id).name == "synthetic_1"
        assert scene_rows.find_scene_by_source(db, rows.scene(1).source_sha256) == rows.scene(1)
        assert scene_rows.find_scene_by_source(db, "unknown") is None


def test_an_unknown_scene_is_reported(catalog: Catalog):
    with pytest.raises(NotInCatalog, match="sc-x: no such scene"), catalog.read() as db:
        scene_rows.get_scene(db, "sc-x")


def test_labels_are_versioned_per_scene(catalog: Catalog):
    with catalog.begin() as db:
        for number in (1, 2):
            scene_rows.add_scene(db, rows.scene(number))
        first = scene_rows.add_label(db, rows.label(1, of=1))
        second = scene_rows.add_label(db, rows.label(2, of=1))
        other = scene_rows.add_label(db, rows.label(3, of=2))
        assert [added and added.version for added in (first, second, other)] == [1, 2, 1]
        assert first is not None
        assert scene_rows.add_label(db, rows.label(1, of=1)) is None
        assert rows.labels_of(db, first.scene_id) == [second, first]
        assert scene_rows.list_newest_labels(db) == [second, other]
        assert scene_rows.count_labeled_scenes(db) == 2
        assert scene_rows.get_label(db, first.label_id) == first


def test_a_label_without_scene_is_refused(catalog: Catalog):
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"), catalog.begin() as db:
        scene_rows.add_label(db, rows.label(1, of=1))


def test_a_place_never_changes_its_split(catalog: Catalog):
    with catalog.begin() as db:
        assert scene_rows.decide_places(db, {"mgrs:31UDQ": "held_out", "mgrs:31UDP": "train"}) == {
            "mgrs:31UDQ": "held_out",
            "mgrs:31UDP": "train",
        }
    with catalog.begin() as db:
        assert scene_rows.decide_places(db, {"mgrs:31UDQ": "train", "mgrs:32TMS": "validation"}) == {
            "mgrs:31UDQ": "held_out",
            "mgrs:32TMS": "validation",
        }


def test_scenes_without_mask_are_publishable_and_oldest_first(full_catalog: Catalog):
    with full_catalog.begin() as db:
        scene_rows.add_scene(db, rows.scene(3, publishable=False))
        scene_rows.add_scene(db, rows.scene(4, created_at=rows.START))
        second, fourth = rows.scene(2), rows.scene(4)
        assert scene_rows.list_scenes_without_mask(db, "w-1") == [
            (fourth.scene_id, fourth.name),
            (second.scene_id, second.name),
        ]


def test_scenes_without_mask_can_be_filtered_by_bands(full_catalog: Catalog):
    with full_catalog.begin() as db:
        scene_rows.add_scene(db, rows.scene(3, bands=["nir", "red"]))
        scene_rows.add_scene(db, rows.scene(4, bands=[]))

        def waiting(*bands: str) -> list[str]:
            return [s.name for s in scene_rows.list_scenes_without_mask(db, "w-1", bands=bands)]

        assert waiting("red") == ["synthetic_2", "synthetic_3"]
        assert waiting("red", "nir") == ["synthetic_3"]
        assert waiting("red", "thermal") == []
        assert len(waiting()) == 3


def test_quarantine_is_written_once(catalog: Catalog):
    with catalog.begin() as db:
        assert scene_rows.add_quarantined(db, rows.quarantined(1))
        assert not scene_rows.add_quarantined(db, rows.quarantined(1))
        assert scene_rows.list_quarantined(db) == [rows.quarantined(1)]


def test_lists_have_a_limit(full_catalog: Catalog):
    with full_catalog.read() as db:
        assert [s.name for s in scene_rows.list_scenes(db, limit=1)] == ["synthetic_2"]
        assert len(scene_rows.list_scenes(db)) == 2
