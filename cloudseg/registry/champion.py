"""The champion: one append-only history of promotions, and the pointer for readers without a database.

The newest generation is the champion. Its primary key is what makes two champions impossible: of two concurrent
promotions, only one can insert the next generation. History is a stack: a promotion puts weights on top,
a rollback removes the top, and both are new rows.
"""

import logging
import time
from contextlib import suppress
from typing import Final

from sqlalchemy import Connection

from cloudseg import keys
from cloudseg.backoff import pauses
from cloudseg.catalog import Catalog, model_rows
from cloudseg.catalog.session import advisory_lock, now
from cloudseg.errors import InputError, ObjectExists, ObjectMissing, PromotionRefused, StoreRefused
from cloudseg.records import Promotion, Weights, utc_iso
from cloudseg.storage import Store

log = logging.getLogger(__name__)
_POINTER_ATTEMPTS: Final = 20
"""Each failed one means that another process wrote the pointer, or that nothing can."""
_POINTER_PAUSE_S: Final = 0.1


def find_champion(catalog: Catalog) -> Weights | None:
    """Return the weights in use, or None before the first promotion."""
    with catalog.read() as db:
        newest = model_rows.find_champion(db)
        return None if newest is None else model_rows.get_weights(db, newest.weights_id)


def promote(
    store: Store,
    catalog: Catalog,
    weights_id: str,
    *,
    expected_champion: str | None,
    verdict_id: str | None,
    actor: str,
    reason: str,
    force: bool = False,
) -> Promotion:
    """Promote weights to champion in one transaction, then write the pointer. The same promotion again changes nothing.

    Args:
        store: must hold the weights' bytes, undamaged; gets the pointer.
        catalog: destination of the next generation.
        weights_id: the challenger.
        expected_champion: the active champion that the caller saw (None: there was none); compared inside the
            transaction.
        verdict_id: the verdict that justifies it. None is a manual decision and needs a reason.
        actor: who decides: 'cli', 'airflow', a user's name.
        reason: why, for the history.
        force: promote against a verdict HOLD or REJECT.

    Raises:
        PromotionRefused: another champion is active, the verdict compares other weights or is not PROMOTE, or another
            promotion was committed first.
        NotInCatalog: the weights or the verdict are unknown.
        ObjectMissing: the weights' bytes are gone.
        ObjectCorrupt: the weights' bytes are damaged.
    """
    with catalog.read() as db:
        _check_bytes(store, model_rows.get_weights(db, weights_id))
    with catalog.begin() as db:
        # The primary key alone allows one champion; with the lock, a retry of this promotion finds the row of the
        # first try.
        advisory_lock(db, "the champion")
        current = model_rows.find_champion(db)
        if current is not None and _is_same(current, weights_id, expected_champion, verdict_id):
            promotion = current
        else:
            _check_expected(current, expected_champion, weights_id)
            _check_verdict(db, weights_id, expected_champion, verdict_id, reason=reason, force=force)
            promotion = _next(current, weights_id, "promote", verdict_id, actor, reason)
            _add(db, promotion)
    log.info("champion: %s, generation %d", weights_id, promotion.generation)
    repair_pointer(store, catalog)
    return promotion


def rollback(store: Store, catalog: Catalog, *, expected_champion: str | None, actor: str, reason: str) -> Promotion:
    """Replace the champion by the one before it, in one transaction; the history keeps both changes.

    A rollback that has replaced `expected_champion` already is returned as it is; one that expects the earlier champion
    rolls back one champion further.

    Args:
        store: must hold the earlier champion's bytes; gets the pointer.
        catalog: destination of the next generation.
        expected_champion: the champion to replace.
        actor: who decides.
        reason: why, for the history.

    Raises:
        PromotionRefused: another champion is active, or there was none before it.
        ObjectMissing: the earlier champion's bytes are gone.
        ObjectCorrupt: the earlier champion's bytes are damaged.
    """
    with catalog.begin() as db:
        advisory_lock(db, "the champion")
        current = model_rows.find_champion(db)
        if current is not None and (current.action, current.previous_weights_id) == ("rollback", expected_champion):
            promotion = current
        else:
            _check_expected(current, expected_champion, None)
            promotion = _next(current, _earlier(store, db, expected_champion), "rollback", None, actor, reason)
            _add(db, promotion)
    log.info("champion: %s again, generation %d", promotion.weights_id, promotion.generation)
    repair_pointer(store, catalog)
    return promotion


def find_earlier_champion(store: Store, catalog: Catalog, *, expected_champion: str | None) -> str:
    """Return the id of the weights that `rollback` with the same arguments would make champion; write nothing.

    Raises:
        PromotionRefused: another champion is active, or there was none before it.
        ObjectMissing: the earlier champion's bytes are gone.
        ObjectCorrupt: the earlier champion's bytes are damaged.
    """
    with catalog.read() as db:
        current = model_rows.find_champion(db)
        if current is not None and (current.action, current.previous_weights_id) == ("rollback", expected_champion):
            return current.weights_id
        _check_expected(current, expected_champion, None)
        return _earlier(store, db, expected_champion)


def _earlier(store: Store, db: Connection, champion: str | None) -> str:
    """Return the champion before this one, once its bytes are verified."""
    earlier = _champions(model_rows.list_promotions(db))[:-1]
    if not earlier:
        raise PromotionRefused(
            "there is no earlier champion",
            subject=champion or "champion",
            next_step="Promote other weights instead.",
        )
    _check_bytes(store, model_rows.get_weights(db, earlier[-1]))
    return earlier[-1]


def repair_pointer(store: Store, catalog: Catalog) -> bool:
    """Update `models/champion.json` to the newest generation; return whether it had to change.

    Each write succeeds only if the pointer is still what was read (compare and swap), and the row is read again after
    it: a late writer never undoes what a newer promotion wrote.

    Raises:
        StoreRefused: something that is no object is in the pointer's place, or other processes write it all the time.
    """
    changed = False
    for pause in pauses(attempts=_POINTER_ATTEMPTS, longest_s=_POINTER_PAUSE_S):
        if (wanted := _pointer(catalog)) == (found := _read_pointer(store)):
            return changed
        changed = True
        with suppress(ObjectExists):  # another process has written it in the meantime: read again
            _write_pointer(store, wanted, found)
            continue
        if pause is not None:
            time.sleep(pause)
    raise StoreRefused(
        "the champion's pointer cannot be written",
        subject=keys.CHAMPION_POINTER,
        found=f"something that cannot be read as an object or replaced, {_POINTER_ATTEMPTS} times",
        expected="an object, or nothing",
        next_step="Remove what is there (a folder or a link), then run `cloudseg maintain --apply`; "
        "the catalog has the right champion.",
    )


def _write_pointer(store: Store, wanted: bytes | None, found: bytes | None) -> None:
    if wanted is None:
        store.delete(keys.CHAMPION_POINTER)
    elif found is None:
        store.put(keys.CHAMPION_POINTER, wanted)
    else:
        store.replace(keys.CHAMPION_POINTER, wanted, expected=found)


def is_pointer_right(store: Store, catalog: Catalog) -> bool:
    """Return whether `models/champion.json` matches the newest generation; changes nothing."""
    return _pointer(catalog) == _read_pointer(store)


def _pointer(catalog: Catalog) -> bytes | None:
    with catalog.read() as db:
        newest = model_rows.find_champion(db)
        if newest is None:
            return None
        weights = model_rows.get_weights(db, newest.weights_id)
    return keys.canonical_json(
        {
            "weights_id": weights.weights_id,
            "version": weights.version,
            "key": weights.key,
            "sha256": weights.sha256,
            "size": weights.size,
            "threshold": weights.metadata["threshold"],
            "generation": newest.generation,
            "promoted_at": utc_iso(newest.created_at),
        }
    )


def _read_pointer(store: Store) -> bytes | None:
    try:
        return store.get(keys.CHAMPION_POINTER)
    except ObjectMissing:
        return None


def _check_bytes(store: Store, weights: Weights) -> None:
    store.get(weights.key, weights.sha256)


def _is_same(current: Promotion, weights_id: str, expected: str | None, verdict_id: str | None) -> bool:
    """Return whether the newest promotion is the requested one: a repeated call after a kill."""
    wanted = ("promote", weights_id, expected, verdict_id)
    return (current.action, current.weights_id, current.previous_weights_id, current.verdict_id) == wanted


def _check_expected(current: Promotion | None, expected: str | None, weights_id: str | None) -> None:
    found = current.weights_id if current else None
    if found != expected:
        raise PromotionRefused(
            "another champion is active",
            subject=weights_id or "champion",
            found=found or "none",
            expected=expected or "none",
            next_step="Compare again with the current champion.",
        )
    if weights_id is not None and found == weights_id:
        raise PromotionRefused("these weights are already the champion", subject=weights_id)


def _check_verdict(
    db: Connection, weights_id: str, expected: str | None, verdict_id: str | None, *, reason: str, force: bool
) -> None:
    """Refuse a verdict on other weights or against another champion, and one that is not PROMOTE unless forced."""
    if verdict_id is None:
        if not reason.strip():
            raise InputError(
                "a promotion without a verdict needs a reason",
                subject=weights_id,
                next_step="Pass a reason, or compare it with the champion first.",
            )
        return
    verdict = model_rows.get_verdict(db, verdict_id)
    if (verdict.challenger_id, verdict.champion_id) != (weights_id, expected):
        raise PromotionRefused(
            "the verdict compares other weights",
            subject=verdict_id,
            next_step="Compare again.",
            found=f"{verdict.challenger_id} against {verdict.champion_id or 'none'}",
            expected=f"{weights_id} against {expected or 'none'}",
        )
    if verdict.outcome != "PROMOTE" and not force:
        raise PromotionRefused(
            "the verdict is not PROMOTE",
            subject=verdict_id,
            found=verdict.outcome,
            expected="PROMOTE",
            next_step="Read its reasons; --force promotes against it.",
        )


def _next(
    current: Promotion | None, weights_id: str, action: str, verdict_id: str | None, actor: str, reason: str
) -> Promotion:
    return Promotion.model_validate(
        {
            "generation": current.generation + 1 if current else 1,
            "weights_id": weights_id,
            "previous_weights_id": current.weights_id if current else None,
            "action": action,
            "verdict_id": verdict_id,
            "actor": actor,
            "reason": reason,
            "created_at": now(),
        }
    )


def _add(db: Connection, promotion: Promotion) -> None:
    if not model_rows.add_promotion(db, promotion):
        raise PromotionRefused(
            "another promotion was committed first",
            subject=promotion.weights_id,
            expected=f"generation {promotion.generation} to be free",
            next_step="Compare again with the current champion.",
        )


def _champions(newest_first: list[Promotion]) -> list[str]:
    """Return the stack of champions, the current one last."""
    stack: list[str] = []
    for promotion in reversed(newest_first):
        if promotion.action == "promote":
            stack.append(promotion.weights_id)
        else:
            stack.pop()
    return stack
