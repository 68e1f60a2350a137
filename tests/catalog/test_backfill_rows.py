"""The order of the backfill, its plans, and how far each month is, on every database."""

from datetime import UTC, datetime

import pytest
import rows

from cloudseg.catalog import Catalog, backfill_rows, model_rows, scene_rows
from cloudseg.records import Backfill, Month

W2 = "w-2"


def sc(number: int) -> str:
    return f"sc-{number:020d}"


def when(year: int, month: int, hour: int = 12) -> datetime:
    return datetime(year, month, 1, hour, tzinfo=UTC)


@pytest.fixture
def archive(full_catalog: Catalog) -> Catalog:
    """Scenes 1 (masked by w-1 and w-2, labeled, at place mgrs:31UBQ) and 2 (without time), and five more."""
    with full_catalog.begin() as db:
        scene_rows.add_scene(db, rows.scene(3, acquired_at=when(2025, 1)))
        scene_rows.add_scene(db, rows.scene(4, acquired_at=when(2023, 5)))
        scene_rows.add_scene(db, rows.scene(5, acquired_at=when(2020, 1), place="mgrs:31UBQ"))
        scene_rows.add_scene(db, rows.scene(6, acquired_at=when(2026, 1), publishable=False))
        scene_rows.add_scene(db, rows.scene(7, acquired_at=when(2026, 2), bands=["red", "green"]))
    return full_catalog


def order(catalog: Catalog, weights_id: str = W2) -> list[str]:
    with catalog.read() as db:
        bands = ["red", "green", "blue"]
        return [scene.scene_id for scene in backfill_rows.iter_waiting(db, weights_id, bands=bands)]


def plan(night: str) -> Backfill:
    return Backfill(backfill_id=f"bf-{night}", weights_id=W2, night=night, megapixels=1, created_at=rows.START)


def test_labeled_places_first_then_the_newest(archive: Catalog):
    # Scene 2 has no time of acquisition: the time of its ingest counts, in June 2024.
    assert order(archive) == [sc(5), sc(3), sc(2), sc(4)]


def test_what_an_earlier_plan_named_comes_last(archive: Catalog):
    with archive.begin() as db:
        assert backfill_rows.add_plan(db, plan("1"), [sc(5), sc(3)])
    assert order(archive) == [sc(2), sc(4), sc(5), sc(3)]
    assert order(archive, "w-1") == [sc(5), sc(3), sc(2), sc(4)], "plans of other weights do not count"


def test_a_night_has_one_plan(archive: Catalog):
    with archive.begin() as db:
        assert backfill_rows.add_plan(db, plan("1"), [sc(5), sc(3)])
        assert not backfill_rows.add_plan(db, plan("1"), [sc(4)])
        assert backfill_rows.list_planned(db, "bf-1") == [sc(5), sc(3)]
        assert backfill_rows.find_plan(db, W2, "1") == plan("1")
        assert backfill_rows.find_plan(db, W2, "2") is None


def test_months_in_utc(archive: Catalog):
    with archive.begin() as db:
        # In the session's zone of another machine this would be another month.
        scene_rows.add_scene(db, rows.scene(8, acquired_at=when(2025, 2, hour=0)))
        scene_rows.add_scene(db, rows.scene(9, acquired_at=when(2025, 1, hour=23)))
        model_rows.add_mask(db, rows.mask(8, of=8, by=2))
        found = backfill_rows.list_months(db, W2, bands=["red", "green", "blue"])
        assert backfill_rows.add_plan(db, plan("1"), [sc(8), sc(9), sc(2)])
        assert backfill_rows.list_touched(db, "bf-1") == ["unknown", "2025-02", "2025-01"]
    expected = [("2025-02", 1, 1), ("2025-01", 0, 2), ("2024-06", 1, 1), ("2023-05", 0, 1), ("2020-01", 0, 1)]
    assert found == [Month(month=m, done=d, total=n) for m, d, n in [*expected, ("unknown", 0, 1)]]
