"""Switch readers between models: one append-only history, whose newest decision in effect rules.

Like the champion's, the history is a stack: a switch puts a decision on top, `back` removes the top, both are new rows.
A decision may take effect later; one that is made after it takes its place, whether it has taken effect or not. No
decision takes effect before it is made, so what readers saw at a moment in the past never changes.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection

from cloudseg.catalog import Catalog, model_rows, reader_rows
from cloudseg.catalog.session import advisory_lock, now
from cloudseg.errors import InputError, StateError
from cloudseg.records import ReaderMode, ReaderSwitch

log = logging.getLogger(__name__)
_LOCK = "the readers"


def switch_readers(
    catalog: Catalog,
    *,
    mode: ReaderMode,
    weights_id: str | None,
    effective_at: datetime | None = None,
    incomplete: bool = False,
    actor: str,
    reason: str,
    dry_run: bool = False,
) -> ReaderSwitch:
    """Decide whose masks readers see from a moment on. The same decision again changes nothing.

    Args:
        catalog: destination of the row.
        mode: `newest`, `complete` or `hold` (`cloudseg.records.ReaderSwitch`).
        weights_id: the weights of the last two modes, None for `newest`.
        effective_at: from when; None: at once.
        incomplete: switch although readers lose scenes.
        actor: who decides.
        reason: why.
        dry_run: return the row that would be written; write nothing.

    Raises:
        InputError: the moment is in the past.
        NotInCatalog: the weights are unknown.
        StateError: readers would lose scenes, or another switch was committed first.
    """
    with _transaction(catalog, dry_run=dry_run) as db:
        history = reader_rows.list_switches(db)
        if history and _is_same(history[0], mode, weights_id, effective_at):
            return history[0]
        if weights_id is not None:
            model_rows.get_weights(db, weights_id)
        if not incomplete:
            _check_complete(db, weights_id)
        created_at = now()
        if effective_at is not None and effective_at < created_at:
            raise InputError(
                "readers cannot be switched in the past: what they saw then would change",
                subject="at",
                found=effective_at.isoformat(),
                expected="a moment to come",
                next_step="Leave it out to switch at once.",
            )
        switch = _next(history, "switch", mode, weights_id, effective_at or created_at, created_at, actor, reason)
        if dry_run:
            return switch
        _add(db, switch)
    log.info("readers: %s from %s on", describe(switch), switch.effective_at.isoformat())
    return switch


def switch_readers_back(
    catalog: Catalog, *, sequence: int | None, actor: str, reason: str, dry_run: bool = False
) -> ReaderSwitch:
    """Return readers to the decision before the newest one, at once, and hold it there.

    A return that has removed decision `sequence` already is returned as it is.

    Args:
        catalog: destination of the row.
        sequence: the decision to take back; None: the newest.
        actor: who decides.
        reason: why.
        dry_run: return the row that would be written; write nothing.

    Raises:
        StateError: no decision was made yet, or another one is the newest.
    """
    with _transaction(catalog, dry_run=dry_run) as db:
        history = reader_rows.list_switches(db)
        stack = _stack(history)
        if history and history[0].action == "back" and sequence in _removed_by(history):
            return history[0]
        if not stack:
            raise StateError(
                "there is nothing to go back to: readers see the newest champion's masks already",
                subject="readers",
                next_step="`cloudseg readers switch` names other weights.",
            )
        if sequence not in (None, stack[-1].sequence):
            raise StateError(
                "another decision is the newest",
                subject="readers",
                found=str(stack[-1].sequence),
                expected=str(sequence),
                next_step="`cloudseg readers show` lists them.",
            )
        earlier = stack[-2] if len(stack) > 1 else None
        weights_id = earlier.weights_id if earlier else None
        # Held: in mode `complete` the next backfill would undo this at once.
        mode: ReaderMode = "newest" if weights_id is None else "hold"
        created_at = now()
        switch = _next(history, "back", mode, weights_id, created_at, created_at, actor, reason)
        if dry_run:
            return switch
        _add(db, switch)
    log.info("readers: back to %s", describe(switch))
    return switch


def switch_when_complete(catalog: Catalog, weights_id: str, *, actor: str) -> ReaderSwitch | None:
    """Switch readers to these weights if they wait for that and lose no scene; return the new row, or None.

    Args:
        catalog: destination of the row.
        weights_id: the weights whose masks may be complete; only the champion's are shown.
        actor: who decides.
    """
    with _transaction(catalog) as db:
        history = reader_rows.list_switches(db)
        current, champion = reader_rows.find_switch(db), model_rows.find_champion(db)
        waits = current is not None and current.mode == "complete" and current == history[0]
        if not waits or current is None or champion is None or champion.weights_id != weights_id:
            return None
        if current.weights_id == weights_id or reader_rows.count_lost(db, current.weights_id or "", weights_id):
            return None
        created_at = now()
        reason = "every scene that readers saw has a mask of the champion"
        switch = _next(history, "switch", "complete", weights_id, created_at, created_at, actor, reason)
        _add(db, switch)
    log.info("readers: %s, because its masks are complete", weights_id)
    return switch


def describe(switch: ReaderSwitch | None) -> str:
    """Return in words whose masks readers see."""
    if switch is None or switch.weights_id is None:
        return "the newest champion, always"
    until = "until a newer champion's masks are complete" if switch.mode == "complete" else "until somebody switches"
    return f"{switch.weights_id}, {until}"


@contextmanager
def _transaction(catalog: Catalog, *, dry_run: bool = False) -> Iterator[Connection]:
    """Open the transaction of a decision, one at a time; of a dry run, one that only reads."""
    if dry_run:
        with catalog.read() as db:
            yield db
        return
    with catalog.begin() as db:
        advisory_lock(db, _LOCK)
        yield db


def _check_complete(db: Connection, weights_id: str | None) -> None:
    """Refuse to take scenes from readers.

    Raises:
        StateError: a scene that readers see now has no mask of these weights.
    """
    before = reader_rows.find_shown(db)
    champion = model_rows.find_champion(db)
    after = weights_id or (champion.weights_id if champion else None)
    if before is None or after is None or before == after:
        return
    lost = reader_rows.count_lost(db, before, after)
    if lost:
        raise StateError(
            "readers would lose scenes",
            subject=after,
            found=f"{lost} of {reader_rows.count_masks(db, before)} scenes that they see have no mask of it",
            expected="a mask of every scene that they see",
            next_step="`cloudseg backfill` makes them within a budget; --incomplete switches nevertheless.",
        )


def _is_same(newest: ReaderSwitch, mode: ReaderMode, weights_id: str | None, effective_at: datetime | None) -> bool:
    """Return whether the newest decision is the requested one: a repeated call after a kill."""
    if (newest.mode, newest.weights_id) != (mode, weights_id):
        return False
    return newest.effective_at == effective_at if effective_at else newest.effective_at <= now()


def _next(
    history: list[ReaderSwitch],
    action: str,
    mode: ReaderMode,
    weights_id: str | None,
    effective_at: datetime,
    created_at: datetime,
    actor: str,
    reason: str,
) -> ReaderSwitch:
    return ReaderSwitch.model_validate(
        {
            "sequence": history[0].sequence + 1 if history else 1,
            "action": action,
            "mode": mode,
            "weights_id": weights_id,
            "effective_at": effective_at,
            "actor": actor,
            "reason": reason,
            "created_at": created_at,
        }
    )


def _add(db: Connection, switch: ReaderSwitch) -> None:
    if not reader_rows.add_switch(db, switch):
        raise StateError(
            "another switch was committed first",
            subject="readers",
            expected=f"sequence {switch.sequence} to be free",
            next_step="Look at `cloudseg readers show`, then decide again.",
        )


def _stack(newest_first: list[ReaderSwitch]) -> list[ReaderSwitch]:
    """Return the decisions that were not taken back, the newest last."""
    stack: list[ReaderSwitch] = []
    for switch in reversed(newest_first):
        if switch.action == "switch":
            stack.append(switch)
        else:
            stack.pop()
    return stack


def _removed_by(newest_first: list[ReaderSwitch]) -> set[int]:
    """Return the sequence of the decision that the newest row, a return, took back."""
    before = _stack(newest_first[1:])
    return {before[-1].sequence} if before else set()
