"""The life of labels: which steps are allowed, that two callers cannot take two, and what follows from the states."""

import itertools
from datetime import timedelta

import pytest
import rows
from pydantic import ValidationError
from sqlalchemy import URL, select, text
from sqlalchemy.exc import IntegrityError

from cloudseg.catalog import Catalog, label_rows, model_rows, scene_rows, tables, training_rows
from cloudseg.errors import NotInCatalog, StateError
from cloudseg.ingest.label_life import find_first_state
from cloudseg.records import Label, LabelEvent, LabelState
from tests.catalog.test_races import together

STATES: tuple[LabelState, ...] = ("proposed", "accepted", "rejected", "withdrawn")
ALLOWED = {
    ("proposed", "accepted"),
    ("proposed", "rejected"),
    ("accepted", "withdrawn"),
    ("rejected", "accepted"),
    ("withdrawn", "accepted"),
}
PATHS: dict[str, tuple[LabelState, ...]] = {
    "proposed": ("proposed",),
    "accepted": ("accepted",),
    "rejected": ("proposed", "rejected"),
    "withdrawn": ("accepted", "withdrawn"),
}
"""How a label gets into a state."""


def add(catalog: Catalog, number: int, of: int, state: LabelState = "accepted", **other: object) -> Label:
    """Add a label and bring it into a state."""
    first, *more = PATHS[state]
    with catalog.begin() as db:
        label = scene_rows.add_label(db, rows.label(number, of=of, **other), state=first, actor="test", reason="first")
    assert label is not None
    for following in more:
        decide(catalog, label, following)
    return label


def decide(
    catalog: Catalog, label: Label, state: LabelState, *, actor: str = "ada", expected: LabelState | None = None
) -> bool:
    with catalog.begin() as db:
        return label_rows.add_event(db, label, state, actor=actor, reason="because", expected=expected)


def life(catalog: Catalog, label: Label) -> list[tuple[int, str, str, str]]:
    with catalog.read() as db:
        events = label_rows.list_events(db, label.label_id)
    return [(event.sequence, event.state, event.actor, event.reason) for event in events]


@pytest.fixture
def scenes(catalog: Catalog) -> Catalog:
    with catalog.begin() as db:
        for number in (1, 2):
            scene_rows.add_scene(db, rows.scene(number))
    return catalog


@pytest.mark.parametrize(("before", "after"), sorted(itertools.permutations(STATES, 2)))
def test_only_the_allowed_steps_are_taken(scenes: Catalog, before: LabelState, after: LabelState):
    label = add(scenes, 1, of=1, state=before)
    lived = life(scenes, label)
    if (before, after) in ALLOWED:
        assert decide(scenes, label, after)
        assert life(scenes, label) == [*lived, (len(lived) + 1, after, "ada", "because")]
    else:
        with pytest.raises(StateError, match=rf"cannot become {after} \(found {before} by ") as caught:
            decide(scenes, label, after)
        assert label.label_id in str(caught.value)
        assert life(scenes, label) == lived


def test_the_same_step_again_changes_nothing(scenes: Catalog):
    label = add(scenes, 1, of=1, state="proposed")
    assert decide(scenes, label, "accepted")
    assert not decide(scenes, label, "accepted", actor="grace", expected="proposed")
    assert [actor for *_, actor, _ in life(scenes, label)] == ["test", "ada"]


def test_a_step_from_another_state_than_seen_is_refused(scenes: Catalog):
    label = add(scenes, 1, of=1, state="proposed")
    decide(scenes, label, "rejected")
    with pytest.raises(StateError, match=r"found rejected by ada on .*because.*expected proposed"):
        decide(scenes, label, "accepted", actor="grace", expected="proposed")


def test_an_unknown_label_is_named(scenes: Catalog):
    with pytest.raises(NotInCatalog, match="cloudseg labels list"), scenes.begin() as db:
        label_rows.add_event(db, rows.label(5, of=1), "accepted", actor="ada", reason="")


def _decide(url: URL, number: int) -> object:
    """Accept or reject the label, as two people would who have both seen it as proposed."""
    catalog = Catalog(url)
    with catalog.read() as db:
        ((label, _),) = label_rows.list_stated(db)
    state: LabelState = "accepted" if number % 2 else "rejected"
    return decide(catalog, label, state, actor=f"person {number}", expected="proposed")


def test_of_eight_concurrent_decisions_one_is_taken(scenes: Catalog, catalog_url: URL):
    label = add(scenes, 1, of=1, state="proposed")
    outcome = together(_decide, catalog_url, processes=8)
    assert outcome.count(True) == 1, outcome
    refused = [found for found in outcome if "cannot become" in str(found)]
    assert (outcome.count(False), len(refused)) == (3, 4), "who wanted the same finds it done, the others are refused"
    assert [sequence for sequence, *_ in life(scenes, label)] == [1, 2]


def _arrive(url: URL, number: int) -> object:
    """Add another label of the same scene, as an ingest does."""
    catalog, label = Catalog(url), rows.label(100 + number, of=1)
    with catalog.begin() as db:
        label_rows.lock_labels(db, label.scene_id)
        first = find_first_state(db, label.scene_id, None, trusted=True)
        scene_rows.add_label(db, label, state=first.state, actor="test", reason=first.reason)
    return first.state


def test_of_eight_first_labels_of_a_scene_one_is_the_first(scenes: Catalog, catalog_url: URL):
    outcome = together(_arrive, catalog_url, processes=8)
    assert sorted(map(str, outcome)) == ["accepted"] + 7 * ["proposed"]
    with scenes.read() as db:
        stated = label_rows.list_of_scene(db, rows.scene(1).scene_id)
    assert [(s.label.version, s.event.state) for s in stated] == [
        (number, "proposed" if number > 1 else "accepted") for number in range(1, 9)
    ]


def test_a_sequence_is_taken_once(scenes: Catalog):
    label = add(scenes, 1, of=1, state="proposed")
    event = LabelEvent(
        label_id=label.label_id, sequence=1, state="accepted", actor="x", reason="", created_at=rows.START
    )
    statement = tables.label_event.insert().values(**event.model_dump())
    with pytest.raises(IntegrityError, match=r"(?i)unique"), scenes.begin() as db:
        db.execute(statement)


def test_a_label_and_its_first_event_are_one_transaction(scenes: Catalog):
    with pytest.raises(ValidationError), scenes.begin() as db:
        scene_rows.add_label(db, rows.label(1, of=1), state="unknown")  # type: ignore[arg-type]
    with scenes.read() as db:
        assert db.execute(select(tables.label)).all() == db.execute(select(tables.label_event)).all() == []


def test_only_accepted_labels_are_in_use(scenes: Catalog):
    first, second, third = (add(scenes, number, of=1) for number in (1, 2, 3))
    proposed = add(scenes, 4, of=1, state="proposed")
    add(scenes, 5, of=2, state="rejected")
    decide(scenes, second, "withdrawn")
    with scenes.read() as db:
        assert label_rows.list_accepted(db) == {first.scene_id: (first, third)}
        assert scene_rows.list_newest_labels(db) == [third]
        assert scene_rows.count_labeled_scenes(db) == 1
        assert [label_rows.count_in_state(db, state) for state in STATES] == [1, 2, 1, 1]
        stated = label_rows.list_of_scene(db, first.scene_id)
        assert [(label.version, event.state) for label, event in stated] == [
            (1, "accepted"),
            (2, "withdrawn"),
            (3, "accepted"),
            (4, "proposed"),
        ]
        (waiting,) = label_rows.list_stated(db, state="proposed")
        assert waiting.label == proposed
        assert {found.label.label_id for found in label_rows.list_stated(db, scene_ids=[first.scene_id])} == {
            label.label_id for label in (first, second, third, proposed)
        }
        assert label_rows.list_stated(db, source="nobody") == []
        assert label_rows.describe_waiting(db) == "1 label waits: cloudseg labels list --state proposed"


def test_changes_since_a_snapshot_are_new_labels_and_withdrawn_ones(full_catalog: Catalog):
    def changes(snapshot_id: str | None) -> int:
        with full_catalog.read() as db:
            return label_rows.count_changes(db, snapshot_id)

    # The snapshot of `rows.fill` holds the second of two accepted labels.
    assert (changes(None), changes("sn-1")) == (2, 1)
    newest = add(full_catalog, 9, of=2, state="proposed")
    assert changes("sn-1") == 1, "a proposal is no change"
    decide(full_catalog, newest, "accepted")
    assert changes("sn-1") == 2
    with full_catalog.read() as db:
        frozen = next(s.label for s in label_rows.list_stated(db) if s.label.label_id == rows.label(2, of=1).label_id)
        assert training_rows.list_snapshot_labels(db, "sn-1") == {frozen.label_id: "train"}
    decide(full_catalog, frozen, "withdrawn")
    assert changes("sn-1") == 3, "a withdrawal is a change"
    assert changes(None) == 2


# --- masks ------------------------------------------------------------------------------------------------------------


def disputed(catalog: Catalog) -> dict[str, bool]:
    with catalog.read() as db:
        found = db.execute(text("SELECT mask_id, disputed FROM published_mask ORDER BY mask_id"))
        by_view = {row.mask_id: bool(row.disputed) for row in found}
        assert model_rows.find_disputed(db, list(by_view)) == {name for name, state in by_view.items() if state}
    return by_view


@pytest.fixture
def masked(scenes: Catalog) -> Catalog:
    """Return a catalog with two scenes, each with a label and then a mask."""
    with scenes.begin() as db:
        for number in (1, 2):
            model_rows.add_weights(db, rows.weights(number))
            scene_rows.add_label(db, rows.label(number, of=number))
            mask = rows.mask(number, of=number, by=1)
            model_rows.add_mask(db, mask.model_copy(update={"created_at": rows.START + timedelta(days=1)}))
    return scenes


@pytest.mark.parametrize("state", STATES)
def test_a_mask_is_disputed_while_a_correction_waits_or_holds(masked: Catalog, state: LabelState):
    assert disputed(masked) == {"mk-1": False, "mk-2": False}
    add(masked, 9, of=1, state=state, created_at=rows.START + timedelta(days=2), corrects_mask_id="mk-1")
    assert disputed(masked) == {"mk-1": state in ("proposed", "accepted"), "mk-2": False}


def test_a_newer_mask_ends_the_dispute(masked: Catalog):
    add(masked, 9, of=1, created_at=rows.START + timedelta(days=2))
    assert disputed(masked)["mk-1"]
    with masked.begin() as db:
        mask = rows.mask(3, of=1, by=2).model_copy(update={"created_at": rows.START + timedelta(days=3)})
        model_rows.add_mask(db, mask)
    assert disputed(masked) == {"mk-1": False, "mk-2": False, "mk-3": False}
    add(masked, 10, of=1, created_at=rows.START + timedelta(days=4))
    assert disputed(masked) == {"mk-1": False, "mk-2": False, "mk-3": True}


def test_the_last_word_counts(masked: Catalog):
    correction = add(masked, 9, of=1, state="proposed", created_at=rows.START + timedelta(days=2))
    decide(masked, correction, "rejected")
    assert not disputed(masked)["mk-1"]
    decide(masked, correction, "accepted")
    assert disputed(masked)["mk-1"]
    decide(masked, correction, "withdrawn")
    assert not disputed(masked)["mk-1"]


def test_views_show_the_state_and_the_newest_accepted_label(masked: Catalog):
    add(masked, 9, of=1, state="accepted", created_at=rows.START + timedelta(days=2))
    add(masked, 10, of=1, state="proposed", created_at=rows.START + timedelta(days=3), corrects_mask_id="mk-1")
    with masked.read() as db:
        newest = "SELECT scene_name, label_version, labels FROM scene_label ORDER BY scene_name"
        assert [tuple(row) for row in db.execute(text(newest))] == [("synthetic_1", 2, 2), ("synthetic_2", 1, 1)]
        states = "SELECT scene_name, label_version, state, actor, corrects_mask_id FROM label_state ORDER BY 1, 2"
        assert [tuple(row) for row in db.execute(text(states))] == [
            ("synthetic_1", 1, "accepted", "ingest", None),
            ("synthetic_1", 2, "accepted", "test", None),
            ("synthetic_1", 3, "proposed", "test", "mk-1"),
            ("synthetic_2", 1, "accepted", "ingest", None),
        ]


def test_labels_of_an_earlier_catalog_stay_in_use_as_they_were(full_catalog: Catalog):
    """Two versions of one label: the newest replaced the older one whole, and does so after the migration."""
    full_catalog.downgrade("0005_look_up_keys")
    full_catalog.upgrade()
    with full_catalog.read() as db:
        first, second = label_rows.list_of_scene(db, rows.scene(1).scene_id)
        assert label_rows.list_accepted(db) == {first.label.scene_id: (second.label,)}
        assert label_rows.count_changes(db, "sn-1") == 0, "the snapshot is as new as it was"
    assert life(full_catalog, second.label) == [
        (1, "accepted", "migration", "it was in use when labels got a life"),
    ]
    assert second.event.created_at == rows.START
    assert life(full_catalog, first.label) == [
        (1, "accepted", "migration", "it was in use when labels got a life"),
        (2, "withdrawn", "migration", f"replaced by version 2, {second.label.label_id}"),
    ]
