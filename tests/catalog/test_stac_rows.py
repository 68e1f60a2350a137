"""What the static STAC catalog holds, on every database."""

from datetime import UTC, datetime, timedelta

import pytest
import rows

from cloudseg.catalog import Catalog, model_rows, reader_rows, scene_rows, stac_rows

JUNE = datetime(2024, 6, 2, 10, 30, tzinfo=UTC)


def test_members_are_found_by_month(full_catalog: Catalog):
    with full_catalog.read() as db:
        months = {name: stac_rows.overview(db, name).months for name in stac_rows.COLLECTIONS}
        members = {
            (name, month): [member.item_id for member in stac_rows.list_members(db, name, month)]
            for name in stac_rows.COLLECTIONS
            for month in ("2024-05", "2024-06", "undated")
        }
    assert months == {
        "scenes": {"2024-06": 1, "undated": 1},
        "masks": {"2024-06": 2},
        "models": {"2024-06": 2},
        "snapshots": {"2024-06": 1},
    }
    assert {where: ids for where, ids in members.items() if ids} == {
        ("scenes", "2024-06"): [f"sc-{1:020d}"],
        ("scenes", "undated"): [f"sc-{2:020d}"],
        ("masks", "2024-06"): ["mk-1", "mk-2"],
        ("models", "2024-06"): ["w-1", "w-2"],
        ("snapshots", "2024-06"): ["sn-1"],
    }


def test_the_champion_decides_which_mask_is_the_latest(full_catalog: Catalog):
    scene_id = f"sc-{1:020d}"
    with full_catalog.read() as db:
        family = stac_rows.find_families(db, [scene_id])[scene_id]
    assert [(ref.mask_id, ref.version) for ref in family.masks] == [("mk-1", 1), ("mk-2", 2)]
    assert family.latest == family.masks[0], "w-1 is the champion"
    assert (family.neighbor("mk-1", 1), family.neighbor("mk-1", -1)) == (family.masks[1], None)


def test_readers_decide_which_mask_is_the_latest(full_catalog: Catalog):
    scene_id = f"sc-{1:020d}"
    with full_catalog.begin() as db:
        model_rows.add_weights(db, rows.weights(3))  # never promoted: its mask is in no line
        model_rows.add_mask(db, rows.mask(3, of=1, by=3))
        reader_rows.add_switch(db, rows.reader_switch(1, of=2))
        family = stac_rows.find_families(db, [scene_id])[scene_id]
        before = stac_rows.find_families(db, [scene_id], rows.START + timedelta(days=2))[scene_id]
        then = stac_rows.find_families(db, [scene_id], rows.START - timedelta(days=1))
    assert family.latest == family.masks[1]
    assert (family.neighbor("mk-2", 1), family.neighbor("mk-3", -1)) == (None, family.masks[1])
    assert before.latest == family.masks[1], "the switch is in effect since the first day"
    assert then == {}, "no mask was there"


def test_overview(full_catalog: Catalog):
    with full_catalog.read() as db:
        masks, scenes = stac_rows.overview(db, "masks"), stac_rows.overview(db, "scenes")
        models = stac_rows.overview(db, "models")
    assert masks.bounds == (1.5, 45.0, 1.7, 45.2)
    assert scenes.bounds == (-180.0, 45.0, 180.0, 45.2), "the second scene crosses the antimeridian"
    assert (masks.begins_at, masks.ends_at, masks.versions) == (JUNE, JUNE, ["1", "2"])
    assert masks.cloud_cover == pytest.approx((30.0, 30.0))
    assert models.bounds == (1.5, 45.0, 1.7, 45.2), "of the training scenes"


@pytest.mark.parametrize(
    ("moment", "month"),
    [
        (datetime(2023, 12, 31, 23, 59, 59, tzinfo=UTC), "2023-12"),
        (datetime(2024, 1, 1, tzinfo=UTC), "2024-01"),
        (datetime(1985, 2, 28, 12, tzinfo=UTC), "1985-02"),
        (None, "undated"),
    ],
)
def test_the_month_of_a_row_is_that_of_the_database(catalog: Catalog, moment: datetime | None, month: str):
    with catalog.begin() as db:
        scene_rows.add_scene(db, rows.scene(1, acquired_at=moment))
    with catalog.read() as db:
        assert stac_rows.overview(db, "scenes").months == {month: 1}
        assert stac_rows.month_of(moment) == month
        assert stac_rows.months_of_scenes(db, [f"sc-{1:020d}"]) == {month}
        assert len(stac_rows.list_members(db, "scenes", month)) == 1


def test_a_scene_that_may_not_be_published_is_no_member(catalog: Catalog):
    with catalog.begin() as db:
        scene_rows.add_scene(db, rows.scene(1, publishable=False))
        scene_rows.add_scene(db, rows.scene(2, footprint_wkb=None))
    with catalog.read() as db:
        seen = stac_rows.overview(db, "scenes")
        assert (seen.count, seen.months, seen.bounds) == (0, {}, None)
        assert stac_rows.list_members(db, "scenes", "2024-06") == []
