"""Stages: show whose masks readers see, switch them to another model from a moment on, and back."""

from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from cloudseg.catalog import model_rows, names, reader_rows
from cloudseg.catalog.session import now
from cloudseg.catalog.times import parse_moment
from cloudseg.errors import InputError
from cloudseg.records import Json, ReaderMode, ReadersRecord, ReaderSwitch, utc_iso
from cloudseg.runtime import open_runtime
from cloudseg.stages import log
from cloudseg.stages.stac import publish_stac

NEWEST: Final = "newest"
"""Target of a switch: the newest champion, always."""


def readers(*, as_of: str | None = None) -> ReadersRecord:
    """Return whose masks readers see, now or at a moment.

    Args:
        as_of: the moment (ISO 8601 with zone); None is now.

    Raises:
        InputError: the moment cannot be read.
    """
    moment = parse_moment(as_of, "as_of") if as_of is not None else None
    with open_runtime().catalog.read() as db:
        return _read(db, moment)


def switch_readers(
    target: str,
    *,
    at: str | None = None,
    hold: bool = False,
    incomplete: bool = False,
    actor: str = "cli",
    reason: str,
    dry_run: bool = False,
) -> ReadersRecord:
    """Let readers see the masks of a model from a moment on. The same call again changes nothing.

    The static STAC catalog follows at once; a switch that takes effect later is in it with the next stage that
    publishes everything, at the latest `cloudseg maintain --apply`.

    Args:
        target: weights (`w-…`, `v31`, `champion`), or `newest`: the newest champion, always.
        at: from when (ISO 8601 with zone); None: at once.
        hold: keep these weights until somebody switches; otherwise the backfill switches once a newer champion has a
            mask of every scene that readers see.
        incomplete: switch although readers lose scenes.
        actor: who decides.
        reason: why.
        dry_run: write nothing; `pending` of the record is the decision.

    Raises:
        InputError: the reason is empty, the moment is in the past, or `hold` is given with `newest`.
        NotInCatalog: the weights are unknown.
        StateError: readers would lose scenes, or another switch was committed first.
    """
    from cloudseg.registry.readers import switch_readers as switch_in_registry

    if hold and target == NEWEST:
        raise InputError("the newest champion changes by itself", found="--hold", next_step="Name weights to hold.")
    _check_reason(reason)
    moment = parse_moment(at, "at") if at is not None else None
    log.started("switch_readers", target=target, at=at, hold=hold, incomplete=incomplete, actor=actor, reason=reason)
    runtime = open_runtime()
    with runtime.catalog.read() as db:
        weights_id = None if target == NEWEST else names.get_weights(db, target).weights_id
    mode: ReaderMode = "newest" if weights_id is None else "hold" if hold else "complete"
    switch = switch_in_registry(
        runtime.catalog,
        mode=mode,
        weights_id=weights_id,
        effective_at=moment,
        incomplete=incomplete,
        actor=actor,
        reason=reason,
        dry_run=dry_run,
    )
    if not dry_run:
        publish_stac(runtime, everything=True)
    return _ended("switch_readers", switch if dry_run else None)


def switch_readers_back(
    sequence: int | None = None, *, actor: str = "cli", reason: str, dry_run: bool = False
) -> ReadersRecord:
    """Return readers at once to what they saw before the newest decision, and hold it there.

    Args:
        sequence: the decision to take back; with it the call is safe to repeat. None: the newest.
        actor: who decides.
        reason: why.
        dry_run: write nothing; `pending` of the record is the decision.

    Raises:
        InputError: the reason is empty.
        StateError: no decision was made yet, or another one is the newest.
    """
    from cloudseg.registry.readers import switch_readers_back as back_in_registry

    _check_reason(reason)
    log.started("switch_readers_back", sequence=sequence, actor=actor, reason=reason)
    runtime = open_runtime()
    switch = back_in_registry(runtime.catalog, sequence=sequence, actor=actor, reason=reason, dry_run=dry_run)
    if not dry_run:
        publish_stac(runtime, everything=True)
    return _ended("switch_readers_back", switch if dry_run else None)


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise InputError("a switch of readers needs a reason", subject="reason", next_step="Pass one with --reason.")


def _ended(stage: str, planned: ReaderSwitch | None) -> ReadersRecord:
    record = readers()
    if planned is not None:
        record = record.model_copy(update={"pending": [planned.as_json()]})
    log.ended(stage, record)
    return record


def _read(db: Connection, moment: datetime | None) -> ReadersRecord:
    switch, shown = reader_rows.find_switch(db, moment), reader_rows.find_shown(db, moment)
    champion, history = model_rows.find_champion(db), reader_rows.list_switches(db)
    champion_id = champion.weights_id if champion else None
    return ReadersRecord(
        mode=switch.mode if switch else "newest",
        weights_id=shown,
        model_version=model_rows.get_weights(db, shown).version if shown else None,
        masks=reader_rows.count_shown(db, moment),
        since=utc_iso(switch.effective_at) if switch else None,
        sequence=switch.sequence if switch else None,
        actor=switch.actor if switch else None,
        reason=switch.reason if switch else None,
        champion_id=champion_id,
        lost=reader_rows.count_lost(db, shown, champion_id) if shown and champion_id else 0,
        pending=_pending(history),
        history=[entry.as_json() for entry in history],
    )


def _pending(newest_first: list[ReaderSwitch]) -> list[Json]:
    """Return the newest decision if it takes effect later; it replaces all older ones that do."""
    later = [
        entry for entry in newest_first[:1] if entry.effective_at > entry.created_at and entry.effective_at > now()
    ]
    return [entry.as_json() for entry in later]
