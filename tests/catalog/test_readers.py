"""Whose masks readers see: the switch, its history, and reads of the past, on every database."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import rows
from sqlalchemy import text

from cloudseg.catalog import Catalog, model_rows, reader_rows
from cloudseg.catalog.session import now, sql_folder
from cloudseg.errors import InputError, NotInCatalog, StateError
from cloudseg.records import ReaderMode, ReaderSwitch
from cloudseg.registry.readers import switch_readers, switch_readers_back, switch_when_complete

WHO = {"actor": "test", "reason": "because"}
HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "new_model_old_masks.md"


def decide(catalog: Catalog, mode: ReaderMode, weights_id: str | None, **more: object) -> ReaderSwitch:
    return switch_readers(catalog, mode=mode, weights_id=weights_id, **{**WHO, **more})  # type: ignore[arg-type]


def column(catalog: Catalog, statement: str, **values: object) -> list[object]:
    with catalog.read() as db:
        return list(db.execute(text(statement), values).scalars())


def seen(catalog: Catalog) -> list[object]:
    """Return the masks of the view, after checking that Python sees the same."""
    found = column(catalog, "SELECT mask_id FROM current_mask ORDER BY mask_id")
    with catalog.read() as db:
        assert sorted(mask.mask_id for mask in reader_rows.list_shown_masks(db)) == found
        assert column(catalog, "SELECT weights_id FROM reader_model") == [reader_rows.find_shown(db)]
    return found


def recipe() -> str:
    """Return the statement for SQLite from the how-to."""
    return HOW_TO.read_text("utf-8").split("```sql\n-- as of\n")[1].split("```")[0]


def seen_at(catalog: Catalog, moment: datetime) -> list[object]:
    """Return what was seen then, after checking that Python, the recipe and the SQL function agree."""
    with catalog.read() as db:
        found: list[object] = sorted(mask.mask_id for mask in reader_rows.list_shown_masks(db, moment))
        sqlite = db.dialect.name == "sqlite"
    bound = moment.strftime("%Y-%m-%d %H:%M:%S.%f") if sqlite else moment
    assert sorted(map(str, column(catalog, recipe(), moment=bound))) == found
    if not sqlite:
        function = "SELECT mask_id FROM mask_as_of(:moment) ORDER BY mask_id"
        assert column(catalog, function, moment=moment) == found
    return found


def test_without_a_decision_readers_see_the_newest_champion(full_catalog: Catalog):
    assert seen(full_catalog) == ["mk-1"]
    assert column(full_catalog, "SELECT sequence FROM reader_history") == []
    with full_catalog.begin() as db:
        model_rows.add_promotion(db, rows.promotion(3, of=2, previous=1))
    assert seen(full_catalog) == ["mk-2"]


def test_before_any_champion_readers_see_nothing(catalog: Catalog):
    assert seen(catalog) == []


def test_a_switch_and_back(full_catalog: Catalog):
    assert decide(full_catalog, "hold", "w-2").sequence == 1
    assert seen(full_catalog) == ["mk-2"]
    assert decide(full_catalog, "newest", None).sequence == 2
    assert seen(full_catalog) == ["mk-1"]
    back = switch_readers_back(full_catalog, sequence=2, **WHO)
    assert (back.sequence, back.mode, back.weights_id) == (3, "hold", "w-2")
    assert seen(full_catalog) == ["mk-2"]
    assert switch_readers_back(full_catalog, sequence=2, **WHO) == back, "a repeated call changes nothing"
    last = switch_readers_back(full_catalog, sequence=1, **WHO)
    assert (last.sequence, last.mode) == (4, "newest")
    assert switch_readers_back(full_catalog, sequence=1, **WHO) == last, "also where nothing is left to take back"
    assert seen(full_catalog) == ["mk-1"]
    with pytest.raises(StateError, match="nothing to go back to"):
        switch_readers_back(full_catalog, sequence=None, **WHO)


def test_the_same_decision_again_is_one_row(full_catalog: Catalog):
    assert decide(full_catalog, "hold", "w-2") == decide(full_catalog, "hold", "w-2")
    later = now() + timedelta(days=1)
    assert decide(full_catalog, "complete", "w-1", effective_at=later).sequence == 2
    assert decide(full_catalog, "complete", "w-1", effective_at=later).sequence == 2
    assert decide(full_catalog, "complete", "w-1").sequence == 3, "the one before takes effect later only"


def test_a_decision_takes_effect_on_its_date(full_catalog: Catalog):
    moment = now()
    decide(full_catalog, "hold", "w-2", effective_at=moment + timedelta(days=30))
    assert seen(full_catalog) == ["mk-1"]
    assert seen_at(full_catalog, moment + timedelta(days=29)) == ["mk-1"]
    assert seen_at(full_catalog, moment + timedelta(days=30)) == ["mk-2"]
    decide(full_catalog, "hold", "w-1")
    assert seen_at(full_catalog, moment + timedelta(days=31)) == ["mk-1"], "a later decision takes its place"


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_date_that_has_come_counts_by_the_clock_of_the_database(full_catalog: Catalog):
    with full_catalog.begin() as db:
        values = {**WHO, "sequence": 1, "action": "switch", "mode": "hold", "weights_id": "w-2"}
        past = {"created_at": now() - timedelta(days=2), "effective_at": now() - timedelta(days=1)}
        reader_rows.add_switch(db, ReaderSwitch.model_validate({**values, **past}))
    assert seen(full_catalog) == ["mk-2"]


def test_the_past_is_what_was_seen_then(full_catalog: Catalog):
    first, second = (rows.START + timedelta(days=day) for day in (1, 2))  # of the two promotions
    decide(full_catalog, "hold", "w-2")
    hour = timedelta(hours=1)
    assert seen_at(full_catalog, first - hour) == []
    assert seen_at(full_catalog, first) == seen_at(full_catalog, second - hour) == ["mk-2"]
    assert seen_at(full_catalog, second) == seen_at(full_catalog, now() - hour) == ["mk-1"]
    assert seen_at(full_catalog, now() + hour) == ["mk-2"]
    with full_catalog.begin() as db:
        late = rows.mask(3, of=2, by=1).model_copy(update={"created_at": second + hour})
        model_rows.add_mask(db, late)
    assert seen_at(full_catalog, second) == ["mk-1"], "it was made an hour later"
    assert seen_at(full_catalog, second + hour) == ["mk-1", "mk-3"]


def test_readers_never_lose_scenes_unasked(full_catalog: Catalog):
    with full_catalog.begin() as db:
        model_rows.add_mask(db, rows.mask(3, of=2, by=1))
    with pytest.raises(StateError, match="1 of 2 scenes that they see have no mask of it"):
        decide(full_catalog, "hold", "w-2")
    assert seen(full_catalog) == ["mk-1", "mk-3"]
    decide(full_catalog, "hold", "w-2", incomplete=True)
    assert seen(full_catalog) == ["mk-2"]


def test_refused_decisions(full_catalog: Catalog):
    with pytest.raises(NotInCatalog):
        decide(full_catalog, "hold", "w-unknown")
    with pytest.raises(InputError, match="in the past"):
        decide(full_catalog, "hold", "w-2", effective_at=datetime(2024, 1, 1, tzinfo=UTC))
    decide(full_catalog, "hold", "w-2")
    with pytest.raises(StateError, match="another decision is the newest"):
        switch_readers_back(full_catalog, sequence=7, **WHO)


def test_a_complete_champion_is_shown_by_itself_only_where_readers_wait_for_it(full_catalog: Catalog):
    with full_catalog.begin() as db:
        model_rows.add_mask(db, rows.mask(3, of=2, by=2))
    assert switch_when_complete(full_catalog, "w-1", actor="backfill") is None, "they see the newest champion"
    decide(full_catalog, "hold", "w-2")
    with full_catalog.begin() as db:
        model_rows.add_mask(db, rows.mask(4, of=2, by=1))
    assert switch_when_complete(full_catalog, "w-1", actor="backfill") is None, "they hold"
    decide(full_catalog, "complete", "w-2")
    with full_catalog.begin() as db:
        db.execute(text("DELETE FROM mask WHERE mask_id = 'mk-4'"))
    assert switch_when_complete(full_catalog, "w-1", actor="backfill") is None, "scene 2 would be lost"
    with full_catalog.begin() as db:
        model_rows.add_mask(db, rows.mask(4, of=2, by=1))
    assert switch_when_complete(full_catalog, "w-2", actor="backfill") is None, "not the champion"
    switch = switch_when_complete(full_catalog, "w-1", actor="backfill")
    assert switch is not None
    assert (switch.sequence, switch.mode, switch.actor) == (3, "complete", "backfill")
    assert seen(full_catalog) == ["mk-1", "mk-4"]
    assert switch_when_complete(full_catalog, "w-1", actor="backfill") is None
    switch_readers_back(full_catalog, sequence=3, **WHO)
    assert switch_when_complete(full_catalog, "w-1", actor="backfill") is None, "a return is not undone"
    assert seen(full_catalog) == ["mk-2", "mk-3"]


def test_old_masks_say_who_follows(full_catalog: Catalog):
    with full_catalog.begin() as db:
        model_rows.add_weights(db, rows.weights(3))  # never promoted
        model_rows.add_mask(db, rows.mask(3, of=1, by=3))
        found = reader_rows.find_versions(db, ["mk-1", "mk-2", "mk-3"])
    assert found["mk-1"][1:] == (None, "mk-2", "mk-1", True)
    assert found["mk-2"][1:] == ("mk-1", None, "mk-1", False), "the challenger's mask follows none"
    assert found["mk-3"][1:] == ("mk-2", None, "mk-1", False)
    decide(full_catalog, "hold", "w-3")
    with full_catalog.read() as db:
        found = reader_rows.find_versions(db, ["mk-1", "mk-2", "mk-3"])
    assert found["mk-1"][1:] == (None, "mk-2", "mk-3", False), "the next one follows, not the newest"
    assert found["mk-2"][1:] == ("mk-1", "mk-3", "mk-3", False)
    assert found["mk-3"][1:] == ("mk-2", None, "mk-3", True)


def test_the_history_has_start_and_end(full_catalog: Catalog):
    first, second = decide(full_catalog, "hold", "w-2"), decide(full_catalog, "newest", None)
    with full_catalog.read() as db:
        statement = "SELECT model_version, until_at IS NULL FROM reader_history ORDER BY sequence"
        assert [tuple(row) for row in db.execute(text(statement))] == [(2, False), (None, True)]
    assert first.effective_at <= second.effective_at


def test_every_function_file_is_dropped_by_an_upgrade(full_catalog: Catalog):
    files = sorted((sql_folder() / "functions").glob("*.sql"))
    assert [file.stem[5:] for file in files] == ["mask_as_of"]
    full_catalog.upgrade()
    full_catalog.downgrade("0006_label_life")
    full_catalog.upgrade()
    assert seen_at(full_catalog, now()) == ["mk-1"]


@pytest.mark.parametrize("backend", ["postgis"])
def test_gis_masks_follow_the_switch(full_catalog: Catalog):
    statement = (
        "SELECT mask_id || ' ' || is_current || ' ' || COALESCE(successor_mask_id, '-') FROM gis.masks ORDER BY 1"
    )
    assert column(full_catalog, statement) == ["mk-1 true mk-2", "mk-2 false -"]
    decide(full_catalog, "hold", "w-2")
    assert column(full_catalog, statement) == ["mk-1 false mk-2", "mk-2 true -"]
