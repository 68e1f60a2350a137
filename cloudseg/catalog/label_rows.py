"""The life of labels: an append-only list of events for each label, of which the last one is its state.

A label is proposed or accepted when it arrives; `add_event` is the only way to change that. Only accepted labels enter
snapshots. The label of a scene is the overlay of its accepted labels in the order of their versions: a pixel has the
class of the newest one that is not 255 there (`cloudseg.raster.read.read_overlay`).
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, ScalarSelect, Select, and_, func, select

from cloudseg.catalog import tables as t
from cloudseg.catalog.removal_rows import count_removed_labels, find_oldest_removal
from cloudseg.catalog.session import advisory_lock, fetch, insert, now
from cloudseg.errors import NotInCatalog, StateError
from cloudseg.records import Label, LabelEvent, LabelState

ALLOWED: Final[dict[LabelState, tuple[LabelState, ...]]] = {
    "proposed": ("accepted", "rejected"),
    "accepted": ("withdrawn",),
    "rejected": ("accepted",),
    "withdrawn": ("accepted",),
}
"""From a state to the states that may follow it: what was rejected or withdrawn may be reinstated."""


class StatedLabel(NamedTuple):
    """A label with the event that gave it its state."""

    label: Label
    event: LabelEvent


class SnapshotDifference(NamedTuple):
    """A label that only one of two snapshots has."""

    label: Label
    added: bool
    """Whether the second snapshot has it."""
    split: str
    scene_name: str
    place: str


_PAGE: Final = 1000
"""Values in one statement; SQLite allows 32 766 (sqlite.org/limits.html)."""


def lock_labels(db: Connection, scene_id: str) -> None:
    """Keep other transactions from adding or deciding on labels of this scene until this one ends."""
    advisory_lock(db, f"labels of {scene_id}")


def state_of(label_id: ColumnElement[str]) -> ScalarSelect[str]:
    """Return the query for the state of the label of this id."""
    e = t.label_event.alias()
    return select(e.c.state).where(e.c.label_id == label_id).order_by(e.c.sequence.desc()).limit(1).scalar_subquery()


def is_accepted(label_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that the label of this id is accepted."""
    return state_of(label_id) == "accepted"


def add_event(
    db: Connection, label: Label, state: LabelState, *, actor: str, reason: str, expected: LabelState | None = None
) -> bool:
    """Change the state of a label; return False, and change nothing, if it is in this state already.

    Args:
        db: a transaction that writes.
        label: the label.
        state: its next state.
        actor: who decides.
        reason: why.
        expected: the state that the caller has seen; None: any from which the step is allowed.

    Raises:
        StateError: the label is in another state than expected, or in one from which the step is not allowed.
        NotInCatalog: the label is unknown.
    """
    lock_labels(db, label.scene_id)
    last = list_events(db, label.label_id)[-1]
    if last.state == state:
        return False
    check_step(label, last, state, expected)
    event = LabelEvent(
        label_id=label.label_id,
        sequence=last.sequence + 1,
        state=state,
        actor=actor,
        reason=reason,
        created_at=now(),
    )
    if not insert(db, t.label_event, event):  # not behind the lock; the primary key decides nevertheless
        raise _refused(label, list_events(db, label.label_id)[-1], state, expected)
    return True


def check_step(label: Label, last: LabelEvent, state: LabelState, expected: LabelState | None = None) -> None:
    """Check that a step may be taken after the last event of a label; one to the same state changes nothing.

    Raises:
        StateError: it may not, or the label is in another state than expected.
    """
    if last.state != state and (state not in ALLOWED[last.state] or expected not in (None, last.state)):
        raise _refused(label, last, state, expected)


def _refused(label: Label, last: LabelEvent, state: LabelState, expected: LabelState | None) -> StateError:
    from_states = [found for found, following in ALLOWED.items() if state in following]
    return StateError(
        f"the label cannot become {state}",
        subject=label.label_id,
        found=describe_event(last),
        expected=expected if expected in from_states else " or ".join(from_states),
        next_step=_NEXT_STEP[last.state].format(label_id=label.label_id),
    )


_NEXT_STEP: Final[dict[LabelState, str]] = {
    "proposed": "Decide first: `cloudseg labels accept {label_id}` or `cloudseg labels reject {label_id} --reason …`.",
    "accepted": "To take it out of use: `cloudseg labels withdraw {label_id} --reason …`.",
    "rejected": "It is not in use; `cloudseg labels accept {label_id}` reinstates it.",
    "withdrawn": "It is not in use; `cloudseg labels accept {label_id}` reinstates it.",
}


def describe_event(event: LabelEvent) -> str:
    """Return a state in words, with who, when and why."""
    why = f": {event.reason}" if event.reason else ""
    return f"{event.state} by {event.actor} on {event.created_at:%Y-%m-%d}{why}"


def list_events(db: Connection, label_id: str) -> list[LabelEvent]:
    """List the life of a label, oldest first; it is never empty.

    Raises:
        NotInCatalog: there is no such label.
    """
    e = t.label_event.c
    found = fetch(db, LabelEvent, select(t.label_event).where(e.label_id == label_id).order_by(e.sequence))
    if not found:
        raise NotInCatalog("no such label", subject=label_id, next_step="`cloudseg labels list` lists the labels.")
    return found


def list_stated(
    db: Connection,
    *,
    label_id: str | None = None,
    scene_ids: Sequence[str] | None = None,
    source: str | None = None,
    state: LabelState | None = None,
    limit: int | None = None,
) -> list[StatedLabel]:
    """List labels with their state, the newest decision first.

    Args:
        db: the catalog.
        label_id: only the label of this id.
        scene_ids: only labels of these scenes.
        source: only labels of this source.
        state: only labels in this state.
        limit: maximum number of labels.
    """
    statement = _stated()
    wanted: list[ColumnElement[bool]] = []
    wanted += [t.label.c.label_id == label_id] if label_id is not None else []
    wanted += [t.label.c.scene_id.in_(scene_ids)] if scene_ids is not None else []
    wanted += [t.label.c.source == source] if source is not None else []
    wanted += [t.label_event.c.state == state] if state is not None else []
    newest_first = (t.label_event.c.created_at.desc(), t.label.c.version.desc(), t.label.c.label_id)
    return _fetch_stated(db, statement.where(*wanted).order_by(*newest_first).limit(limit))


def list_of_scene(db: Connection, scene_id: str) -> list[StatedLabel]:
    """List the labels of a scene with their state, oldest version first."""
    return _fetch_stated(db, _stated().where(t.label.c.scene_id == scene_id).order_by(t.label.c.version))


def list_accepted_of(db: Connection, scene_id: str) -> list[Label]:
    """List the accepted labels of a scene, oldest version first."""
    return [stated.label for stated in list_of_scene(db, scene_id) if stated.event.state == "accepted"]


def list_accepted(db: Connection) -> dict[str, tuple[Label, ...]]:
    """Return the accepted labels of every scene that has one, oldest version first, by scene id."""
    statement = select(t.label).where(is_accepted(t.label.c.label_id)).order_by(t.label.c.scene_id, t.label.c.version)
    return {
        scene_id: tuple(labels)
        for scene_id, labels in groupby(fetch(db, Label, statement), key=lambda label: label.scene_id)
    }


def list_of_snapshot(db: Connection, snapshot_id: str) -> dict[str, tuple[Label, ...]]:
    """Return the labels that a snapshot overlaid, whatever their state is today: oldest first, by scene id."""
    in_snapshot = t.label.join(t.snapshot_label, t.snapshot_label.c.label_id == t.label.c.label_id)
    statement = select(t.label).select_from(in_snapshot).where(t.snapshot_label.c.snapshot_id == snapshot_id)
    found = fetch(db, Label, statement.order_by(t.label.c.scene_id, t.label.c.version))
    return {scene_id: tuple(labels) for scene_id, labels in groupby(found, key=lambda label: label.scene_id)}


def list_difference(db: Connection, before: str | None, after: str | None) -> list[SnapshotDifference]:
    """List the labels that only one of two snapshots has, the newest first.

    Args:
        db: the catalog.
        before: a snapshot; None: one without labels.
        after: another one.
    """
    s = t.snapshot_label.c
    held = {
        snapshot_id: {
            row.label_id: row.split
            for row in db.execute(select(s.label_id, s.split).where(s.snapshot_id == snapshot_id))
        }
        for snapshot_id in (before, after)
        if snapshot_id is not None
    }
    old, new = held.get(before or "", {}), held.get(after or "", {})
    joined = t.label.join(t.scene, t.scene.c.scene_id == t.label.c.scene_id)
    found: list[SnapshotDifference] = []
    for added, splits in ((True, new), (False, old)):
        ids = sorted(splits.keys() - (old if added else new).keys())
        for at in range(0, len(ids), _PAGE):
            columns = (t.label, t.scene.c.name.label("scene_name"), t.scene.c.place.label("scene_place"))
            statement = select(*columns).select_from(joined).where(t.label.c.label_id.in_(ids[at : at + _PAGE]))
            for row in db.execute(statement):
                values = dict(row._mapping)
                name, place = values.pop("scene_name"), values.pop("scene_place")
                label = Label.model_validate(values)
                found.append(SnapshotDifference(label, added, splits[label.label_id], name, place))
    return sorted(found, key=lambda entry: (entry.label.created_at, entry.label.label_id), reverse=True)


def count_in_state(db: Connection, state: LabelState) -> int:
    """Count the labels in a state."""
    return db.execute(
        select(func.count()).select_from(_stated().where(t.label_event.c.state == state).subquery())
    ).scalar_one()


def describe_waiting(db: Connection) -> str | None:
    """Return how many labels wait for a decision and how to list them, or None if none does."""
    waiting = count_in_state(db, "proposed")
    words = "label waits" if waiting == 1 else "labels wait"
    return f"{waiting} {words}: cloudseg labels list --state proposed" if waiting else None


def count_changes(db: Connection, snapshot_id: str | None) -> int:
    """Count what changed since a snapshot (None: since nothing).

    That is every accepted label that it lacks, and every label of it that is not accepted any more or was removed with
    its scene.
    """
    counts = [select(func.count()).select_from(t.label).where(change) for change in _changes(snapshot_id)]
    return sum(db.execute(count).scalar_one() for count in counts) + count_removed_labels(db, snapshot_id)


def find_oldest_change(db: Connection, snapshot_id: str | None) -> datetime | None:
    """Return when the oldest of the changes since a snapshot (None: since nothing) was decided, None without any."""
    decided = select(func.max(t.label_event.c.created_at)).where(t.label_event.c.label_id == t.label.c.label_id)
    moments = [
        db.execute(select(func.min(decided.scalar_subquery())).select_from(t.label).where(change)).scalar()
        for change in _changes(snapshot_id)
    ]
    moments.append(find_oldest_removal(db, snapshot_id))
    return min((moment for moment in moments if moment is not None), default=None)


def _changes(snapshot_id: str | None) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions that a label was accepted and that it was withdrawn since a snapshot."""
    frozen = select(t.snapshot_label.c.label_id).where(t.snapshot_label.c.snapshot_id == snapshot_id)
    accepted = is_accepted(t.label.c.label_id)
    return and_(t.label.c.label_id.not_in(frozen), accepted), and_(t.label.c.label_id.in_(frozen), ~accepted)


def _stated() -> Select[Any]:
    """Return the query for labels with the event that gave them their state."""
    e, last = t.label_event, t.label_event.alias("last")
    newest = select(func.max(last.c.sequence)).where(last.c.label_id == t.label.c.label_id).scalar_subquery()
    columns = [column.label(f"event__{column.name}") for column in e.c]
    joined = t.label.join(e, and_(e.c.label_id == t.label.c.label_id, e.c.sequence == newest))
    return select(t.label, *columns).select_from(joined)


def _fetch_stated(db: Connection, statement: Select[Any]) -> list[StatedLabel]:
    found = []
    for row in db.execute(statement):
        values = dict(row._mapping)
        event = {name.removeprefix("event__"): values.pop(name) for name in list(values) if name.startswith("event__")}
        found.append(StatedLabel(Label.model_validate(values), LabelEvent.model_validate(event)))
    return found
