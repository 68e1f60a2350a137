"""Who may promote what: verdicts, manual approvals and rejections, and which of them overrules which.

A verdict PROMOTE lets weights replace the champion. A person may have to approve first (decision `asked`), may reject
(`declined`), or may promote against the verdict or an earlier rejection (`force`, with a reason). An unattended run
never promotes what waits for a person or was rejected.
"""

from cloudseg.catalog import Catalog, model_rows
from cloudseg.catalog.session import now
from cloudseg.errors import PromotionRefused
from cloudseg.records import Decision, Promotion, Verdict
from cloudseg.registry.champion import promote
from cloudseg.storage import Store


def record_request(catalog: Catalog, verdict: Verdict, *, actor: str, reason: str) -> None:
    """Record that a verdict PROMOTE waits for manual approval. Does nothing for any other verdict."""
    if verdict.outcome == "PROMOTE":
        _record(catalog, Decision(decision="asked", **_facts(verdict, actor, reason)))


def record_rejection(catalog: Catalog, verdict: Verdict, *, actor: str, reason: str) -> None:
    """Record a manual rejection of the challenger, whatever the verdict is."""
    _record(catalog, Decision(decision="declined", **_facts(verdict, actor, reason)))


def find_blocking_decision(catalog: Catalog, weights_id: str) -> Decision | None:
    """Return the rejection of these weights, else the open request for approval, else None.

    Decisions on any verdict count: weights stay rejected when the champion changes.
    """
    with catalog.read() as db:
        found = model_rows.list_decisions(db, weights_id)
    return next((entry for kind in ("declined", "asked") for entry in found if entry.decision == kind), None)


def describe_decision(decision: Decision) -> str:
    """Return a decision in words, with who, when and why."""
    what = "waits for manual approval, requested" if decision.decision == "asked" else "declined"
    why = f": {decision.reason}" if decision.reason else ""
    return f"{what} by {decision.actor} on {decision.created_at:%Y-%m-%d}{why}"


def apply_verdict(
    store: Store, catalog: Catalog, verdict: Verdict, *, actor: str, reason: str, force: bool = False
) -> Promotion | None:
    """Promote the challenger of a verdict on behalf of a person.

    Args:
        store: destination of the pointer to the champion.
        catalog: destination of the promotion.
        verdict: made against the current champion; the promotion is refused if the champion has changed since.
        actor: who decides, for the history.
        reason: why, for the history.
        force: promote against a verdict HOLD or REJECT, or against an earlier rejection.

    Returns:
        The promotion, or None if the verdict is not PROMOTE.

    Raises:
        PromotionRefused: a person rejected these weights and `force` is not set, or another champion is active.
    """
    if verdict.outcome != "PROMOTE" and not force:
        return None
    blocking = find_blocking_decision(catalog, verdict.challenger_id)
    declined = blocking if blocking is not None and blocking.decision == "declined" else None
    if declined is not None and not force:
        raise PromotionRefused(
            "this promotion was rejected",
            subject=verdict.challenger_id,
            found=describe_decision(declined),
            next_step="`cloudseg promote --force --reason` overrules it.",
        )
    return promote(
        store,
        catalog,
        verdict.challenger_id,
        expected_champion=verdict.champion_id,
        verdict_id=verdict.verdict_id,
        actor=actor,
        reason=_history_reason(verdict, declined, reason),
        force=force,
    )


def _history_reason(verdict: Verdict, declined: Decision | None, reason: str) -> str:
    overruled: list[str] = [verdict.outcome] if verdict.outcome != "PROMOTE" else []
    overruled += [f"'{describe_decision(declined)}'"] if declined else []
    return f"forced against {' and '.join(overruled)}: {reason}" if overruled else (reason or "the verdict")


def _facts(verdict: Verdict, actor: str, reason: str) -> dict[str, object]:
    return {"verdict_id": verdict.verdict_id, "actor": actor, "reason": reason, "created_at": now()}


def _record(catalog: Catalog, decision: Decision) -> None:
    with catalog.begin() as db:
        model_rows.add_decision(db, decision)
