"""The quarantine by reason, and releases that are recorded."""

from datetime import timedelta

import pytest
import rows

from cloudseg.catalog import Catalog, quarantine_rows, scene_rows
from cloudseg.catalog.quarantine_rows import ReasonGroup
from cloudseg.errors import NotInCatalog

HOUR = timedelta(hours=1)


def fill(catalog: Catalog) -> None:
    with catalog.begin() as db:
        for number, (what, error) in enumerate(
            [("no CRS", "BadScene"), ("no CRS", "BadScene"), ("no CRS", "BadLabel"), ("no bands", "BadScene")], start=1
        ):
            at = rows.START + number * HOUR
            scene_rows.add_quarantined(
                db, rows.quarantined(number, name=f"{number}.tif", what=what, error=error, created_at=at)
            )


def one_of(error: str, what: str, number: int) -> ReasonGroup:
    at = rows.START + number * HOUR
    return ReasonGroup(error, what, 1, at, at, [f"{number}.tif"], f"qu-{number}", "Give it one.")


def test_groups_are_by_reason_with_count_times_and_newest_names(catalog: Catalog):
    fill(catalog)
    with catalog.begin() as db:
        for number in (5, 6, 7):
            at = rows.START + number * HOUR
            step = f"Step {number}."
            scene_rows.add_quarantined(
                db, rows.quarantined(number, name=f"{number}.tif", created_at=at, next_step=step)
            )
    with catalog.read() as db:
        groups = quarantine_rows.list_groups(db)
        assert groups == [
            ReasonGroup(
                error="BadScene",
                what="no CRS",
                entries=5,
                first_at=rows.START + HOUR,
                last_at=rows.START + 7 * HOUR,
                names=["7.tif", "6.tif", "5.tif"],
                newest_id="qu-7",
                next_step="Step 7.",
            ),
            one_of("BadLabel", "no CRS", 3),
            one_of("BadScene", "no bands", 4),
        ]
        listed = quarantine_rows.list_of_reason(db, "BadScene", "no CRS", limit=2, offset=1)
        assert [entry.quarantine_id for entry in listed] == ["qu-6", "qu-5"]
        assert quarantine_rows.count_quarantined(db) == sum(group.entries for group in groups)


def test_an_empty_quarantine_has_no_groups(catalog: Catalog):
    with catalog.read() as db:
        assert quarantine_rows.list_groups(db) == []
        assert quarantine_rows.list_releases(db) == []


def test_a_release_is_recorded_and_happens_once(catalog: Catalog):
    fill(catalog)
    with catalog.begin() as db:
        entry = quarantine_rows.get_quarantined(db, "qu-1")
        assert quarantine_rows.release(db, entry, actor="ada", reason="the CRS was added")
        assert not quarantine_rows.release(db, entry, actor="bob", reason="again")
        assert scene_rows.find_quarantined(db, "qu-1") is None
        (kept,) = quarantine_rows.list_releases(db)
        assert (kept.quarantine_id, kept.sequence, kept.actor, kept.reason) == ("qu-1", 1, "ada", "the CRS was added")
        assert (kept.name, kept.source_uri, kept.what) == (entry.name, entry.source_uri, entry.what)
    with catalog.begin() as db:
        assert scene_rows.add_quarantined(db, entry)  # the file is still bad
        assert quarantine_rows.release(db, entry, actor="ada", reason="")
        assert [kept.sequence for kept in quarantine_rows.list_releases(db, "qu-1")] == [2, 1]


def test_an_entry_that_was_released_says_by_whom(catalog: Catalog):
    fill(catalog)
    with catalog.begin() as db:
        quarantine_rows.release(db, quarantine_rows.get_quarantined(db, "qu-1"), actor="ada", reason="")
        with pytest.raises(NotInCatalog, match=r"qu-1: no such entry in quarantine \(found released by ada on"):
            quarantine_rows.get_quarantined(db, "qu-1")


def test_the_same_reason_is_error_and_what(catalog: Catalog):
    fill(catalog)
    with catalog.read() as db:

        def resolve(*ids: str, same_reason: bool = False) -> list[str]:
            found = quarantine_rows.resolve_release(db, ids, same_reason=same_reason)
            return sorted(entry.quarantine_id for entry in found)

        assert resolve("qu-1") == ["qu-1"]
        assert resolve("qu-1", same_reason=True) == ["qu-1", "qu-2"]
        assert resolve("qu-3", "qu-4", same_reason=True) == ["qu-3", "qu-4"]
        with pytest.raises(NotInCatalog, match="qu-9"):
            resolve("qu-1", "qu-9")
