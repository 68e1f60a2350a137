"""Stages: let a challenger replace the champion, and take that back."""

from collections.abc import Sequence
from dataclasses import dataclass

from cloudseg.catalog import model_rows, training_rows
from cloudseg.catalog.session import now
from cloudseg.errors import PromotionRefused
from cloudseg.recipe import Promotion as Policy
from cloudseg.recipe import recipe_from
from cloudseg.records import Decision, PromoteRecord, Promotion, Verdict, Weights
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import log
from cloudseg.stages.compute import open_device
from cloudseg.stages.evaluate import resolve_evaluation_target


def promote(
    weights_id: str,
    *,
    snapshot_id: str | None = None,
    apply: bool = True,
    force: bool = False,
    ask: bool = False,
    decline: bool = False,
    automatic: bool = False,
    actor: str = "cli",
    reason: str = "",
) -> PromoteRecord:
    """Evaluator a challenger against the champion and, where the verdict is PROMOTE, make it the champion.

    Args:
        weights_id: the challenger.
        snapshot_id: whose held-out chips to judge on; by default those of its training.
        apply: False judges only.
        force: a person's decision against the verdict, or against an earlier no; needs a reason, kept in the history.
        ask: judge only, and write down that a verdict PROMOTE waits for a person.
        decline: a person's no: judge only, and write it down with its reason.
        automatic: nobody looks. Weights that wait for a person or were declined are left alone. Otherwise a person
            stands
            behind the call: it answers an open question with yes, and is refused where the answer was no (but for
            `force`).
        actor: who decides, for the history.
        reason: why, for the history.

    The exchange happens only while the champion is still the one that the verdict was made against. Weights that are
    the champion already: nothing changes. Raises PromotionRefused.
    """
    runtime = open_runtime()
    weights, snapshot_id = resolve_evaluation_target(runtime, weights_id, snapshot_id)
    wish = _Wish(apply and not (ask or decline), force, ask, decline, automatic, actor, reason.strip())
    log.started("promote", weights_id=weights_id, snapshot_id=snapshot_id, **vars(wish))
    _check(weights_id, wish)
    record = _already(runtime, weights, wish) or _exchange(runtime, weights, snapshot_id, wish)
    log.ended("promote", record)
    return record


def rollback(champion_id: str | None = None, *, actor: str = "cli", reason: str = "") -> Promotion:
    """Make the weights champion again that were it before the newest promotion; history is kept.

    `champion_id` says whom to take out of office: with it, running twice changes nothing. Without it whoever is
    champion now goes, and running twice goes two steps back. Raises PromotionRefused where there is nothing before it,
    or another champion is in office.
    """
    from cloudseg.registry import rollback as take_back

    runtime = open_runtime()
    with runtime.catalog.read() as db:
        champion = model_rows.find_champion(db)
    expected = champion_id or (champion.weights_id if champion else None)
    log.started("rollback", champion=expected, actor=actor, reason=reason)
    record = take_back(runtime.store, runtime.catalog, expected_champion=expected, actor=actor, reason=reason)
    log.ended("rollback", record)
    return record


@dataclass(frozen=True)
class _Wish:
    """What the caller wants; the words of `promote`."""

    apply: bool
    force: bool
    ask: bool
    decline: bool
    automatic: bool
    actor: str
    reason: str


def _check(weights_id: str, wish: _Wish) -> None:
    if (wish.force or wish.decline) and not wish.reason:
        raise PromotionRefused(
            f"a {'forced promotion' if wish.force else 'no'} needs a reason",
            subject=weights_id,
            next_step="Give --reason: it is kept in the history.",
        )
    if wish.force and (wish.automatic or wish.ask or wish.decline):
        raise PromotionRefused(
            "force is a person's yes", subject=weights_id, found="another answer beside it", expected="force alone"
        )


def _exchange(runtime: Runtime, weights: Weights, snapshot_id: str, wish: _Wish) -> PromoteRecord:
    verdict = _judge(runtime, weights, snapshot_id)
    if wish.decline or (wish.ask and verdict.outcome == "PROMOTE"):
        _write_decision(runtime, verdict, wish)
    before = _what_stands_against(runtime, weights)
    if not wish.apply or (verdict.outcome != "PROMOTE" and not wish.force) or (before is not None and wish.automatic):
        return _record(
            verdict, promoted=False, champion_id=verdict.champion_id, more=[_words(before)] if before else []
        )
    declined = before if before is not None and before.decision == "declined" else None
    if declined is not None and not wish.force:
        raise PromotionRefused(
            "a person declined this promotion",
            subject=weights.weights_id,
            found=_words(declined),
            next_step="`cloudseg promote --force --reason` overrules it.",
        )
    from cloudseg.registry import promote as exchange

    promotion = exchange(
        runtime.store,
        runtime.catalog,
        weights.weights_id,
        expected_champion=verdict.champion_id,
        verdict_id=verdict.verdict_id,
        actor=wish.actor,
        reason=_why(verdict, wish, declined),
        force=wish.force,
    )
    return _record(verdict, promoted=True, champion_id=promotion.weights_id)


def _why(verdict: Verdict, wish: _Wish, declined: Decision | None) -> str:
    overruled = [verdict.outcome] * (verdict.outcome != "PROMOTE") + ([f"'{_words(declined)}'"] if declined else [])
    return f"forced against {' and '.join(overruled)}: {wish.reason}" if overruled else (wish.reason or "the verdict")


def _write_decision(runtime: Runtime, verdict: Verdict, wish: _Wish) -> None:
    row = Decision(
        verdict_id=verdict.verdict_id,
        decision="declined" if wish.decline else "asked",
        actor=wish.actor,
        reason=wish.reason,
        created_at=now(),
    )
    with runtime.catalog.begin() as db:
        model_rows.add_decision(db, row)


def _what_stands_against(runtime: Runtime, weights: Weights) -> Decision | None:
    """Return a person's no, else an open question. On any verdict: weights stay declined when the champion changes."""
    with runtime.catalog.read() as db:
        found = model_rows.list_decisions(db, weights.weights_id)
    return next((entry for kind in ("declined", "asked") for entry in found if entry.decision == kind), None)


def _words(decision: Decision) -> str:
    why = f": {decision.reason}" if decision.reason else ""
    said = "left to a person" if decision.decision == "asked" else "declined"
    return f"{said} by {decision.actor} on {decision.created_at:%Y-%m-%d}{why}"


def _judge(runtime: Runtime, weights: Weights, snapshot_id: str) -> Verdict:
    from cloudseg.evaluate.gate import judge

    with runtime.catalog.read() as db:
        champion = model_rows.find_champion(db)
        run = training_rows.find_run(db, weights.run_id) if weights.run_id else None
    policy = recipe_from(run.recipe, subject=run.run_id).promotion if run else Policy()
    return judge(
        runtime.store,
        runtime.catalog,
        challenger_id=weights.weights_id,
        champion_id=champion.weights_id if champion else None,
        snapshot_id=snapshot_id,
        promotion=policy,
        device=open_device(runtime),
    )


def _already(runtime: Runtime, weights: Weights, wish: _Wish) -> PromoteRecord | None:
    """Return the record of weights that are the champion already, with the newest verdict that speaks of them, if any does."""
    from cloudseg.registry import repair_pointer

    with runtime.catalog.read() as db:
        history = model_rows.list_promotions(db)
        if not history or history[0].weights_id != weights.weights_id:
            return None
        verdict_id = next((p.verdict_id for p in history if p.weights_id == weights.weights_id and p.verdict_id), None)
        verdict = model_rows.get_verdict(db, verdict_id) if verdict_id else None
    if wish.decline:
        raise PromotionRefused(
            "these weights are the champion already", subject=weights.weights_id, next_step="Use `cloudseg rollback`."
        )
    repair_pointer(runtime.store, runtime.catalog)
    if verdict is not None:
        return _record(verdict, promoted=True, champion_id=weights.weights_id)
    newest = history[0]
    return PromoteRecord(
        verdict_id=None,
        outcome=None,
        promoted=True,
        champion_id=weights.weights_id,
        challenger_id=weights.weights_id,
        reasons=[f"champion without a verdict, by {newest.actor}: {newest.reason}"],
    )


def _record(verdict: Verdict, *, promoted: bool, champion_id: str | None, more: Sequence[str] = ()) -> PromoteRecord:
    return PromoteRecord(
        verdict_id=verdict.verdict_id,
        outcome=verdict.outcome,
        promoted=promoted,
        champion_id=champion_id,
        challenger_id=verdict.challenger_id,
        reasons=[*more, *map(str, verdict.body.get("reasons", []))],
    )
