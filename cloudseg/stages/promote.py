"""Stages: compare a challenger with the champion, approve or reject it, promote it, and roll a promotion back.

Each of the first five runs the gate (the same comparison is made once and then read from the catalog) and returns the
verdict and whether it was applied; they differ in who decides.
"""

from collections.abc import Sequence
from typing import NoReturn

from cloudseg.catalog import model_rows, names, training_rows
from cloudseg.errors import PromotionRefused
from cloudseg.records import PromoteRecord, Promotion, Verdict, Weights
from cloudseg.registry.decisions import (
    apply_verdict,
    describe_decision,
    find_blocking_decision,
    record_rejection,
    record_request,
)
from cloudseg.registry.verdicts import policy_of
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import log
from cloudseg.stages.compute import open_device
from cloudseg.stages.evaluate import resolve_evaluation_target
from cloudseg.stages.stac import publish_stac


def compare(weights_id: str, *, snapshot_id: str | None = None) -> PromoteRecord:
    """Compare weights with the champion and store the verdict; promote nothing.

    Args:
        weights_id: the challenger: an id or a version (`v31`).
        snapshot_id: whose held-out chips both are evaluated on; by default that of the challenger's training.
    """
    runtime = open_runtime()
    log.started("compare", weights_id=weights_id, snapshot_id=snapshot_id)
    weights, snapshot_id = resolve_evaluation_target(runtime, weights_id, snapshot_id)
    record = _find_champion_record(runtime, weights) or _not_promoted(runtime, _compare(runtime, weights, snapshot_id))
    log.ended("compare", record)
    return record


def request_approval(
    weights_id: str, *, snapshot_id: str | None = None, actor: str = "cli", reason: str = ""
) -> PromoteRecord:
    """Compare weights with the champion, and record that a verdict PROMOTE waits for manual approval.

    No unattended run promotes them from then on; `promote` approves the request and `decline` rejects it.

    Args:
        weights_id: the challenger.
        snapshot_id: as in `compare`.
        actor: who requests it, for the history.
        reason: why, for the history.
    """
    runtime = open_runtime()
    log.started("request_approval", weights_id=weights_id, snapshot_id=snapshot_id, actor=actor, reason=reason)
    record = run_request(runtime, weights_id, snapshot_id, actor=actor, reason=reason)
    log.ended("request_approval", record)
    return record


def decline(weights_id: str, *, snapshot_id: str | None = None, actor: str = "cli", reason: str) -> PromoteRecord:
    """Compare weights with the champion, and record that a person rejects them: no unattended run promotes them.

    Args:
        weights_id: the challenger.
        snapshot_id: as in `compare`.
        actor: who rejects, for the history.
        reason: why, for the history; not empty.

    Raises:
        PromotionRefused: no reason is given, or the weights are already the champion.
    """
    runtime = open_runtime()
    log.started("decline", weights_id=weights_id, snapshot_id=snapshot_id, actor=actor, reason=reason)
    weights, snapshot_id = resolve_evaluation_target(runtime, weights_id, snapshot_id)
    check_reason("a rejection", weights_id, reason)
    if _find_champion_record(runtime, weights) is not None:
        refuse_champion(weights)
    verdict = _compare(runtime, weights, snapshot_id)
    record_rejection(runtime.catalog, verdict, actor=actor, reason=reason.strip())
    record = _not_promoted(runtime, verdict)
    log.ended("decline", record)
    return record


def promote(
    weights_id: str,
    *,
    snapshot_id: str | None = None,
    force: bool = False,
    actor: str = "cli",
    reason: str = "",
    since: int | None = None,
) -> PromoteRecord:
    """Compare weights with the champion on behalf of a person, and promote them if the verdict is PROMOTE.

    The call approves an open request. Weights that are already the champion: nothing changes. HOLD and
    REJECT are verdicts, not errors: the record has `promoted=False` and the reasons.

    Args:
        weights_id: the challenger.
        snapshot_id: as in `compare`.
        force: promote against the verdict, or against an earlier rejection; needs a reason.
        actor: who decides, for the history.
        reason: why, for the history.
        since: generation of the champion when this was decided, 0 without one. With it, a repeated call does not undo
            a rollback of the promotion that the first call made.

    Raises:
        PromotionRefused: an earlier rejection stands and `force` is not set, `force` has no reason, another champion
            became active since the comparison, or the promotion was made and undone since the decision.
    """
    runtime = open_runtime()
    log.started("promote", weights_id=weights_id, snapshot_id=snapshot_id, force=force, actor=actor, reason=reason)
    weights, snapshot_id = resolve_evaluation_target(runtime, weights_id, snapshot_id)
    if force:
        check_reason("a forced promotion", weights_id, reason)
    record = _find_champion_record(runtime, weights)
    if record is None:
        _check_not_undone(runtime, weights, since)
        verdict = _compare(runtime, weights, snapshot_id)
        record = _apply(runtime, verdict, actor=actor, reason=reason.strip(), force=force)
    log.ended("promote", record)
    return record


def promote_unattended(
    weights_id: str, *, snapshot_id: str | None = None, actor: str = "cli", reason: str = ""
) -> PromoteRecord:
    """Compare weights with the champion; promote them on a verdict PROMOTE that no manual decision blocks.

    Args:
        weights_id: the challenger.
        snapshot_id: as in `compare`.
        actor: who calls, for the history.
        reason: why, for the history.

    Raises:
        PromotionRefused: another champion became active since the comparison.
    """
    runtime = open_runtime()
    log.started("promote_unattended", weights_id=weights_id, snapshot_id=snapshot_id, actor=actor, reason=reason)
    record = run_unattended(runtime, weights_id, snapshot_id, actor=actor, reason=reason)
    log.ended("promote_unattended", record)
    return record


def rollback(champion_id: str | None = None, *, actor: str = "cli", reason: str = "") -> Promotion:
    """Make the previous champion the champion again; the history keeps both changes.

    Args:
        champion_id: the champion to replace, an id or a version (`v31`): with it, running twice changes nothing.
            Without it the current champion is replaced, and running it twice rolls back two promotions.
        actor: who decides, for the history.
        reason: why, for the history.

    Raises:
        PromotionRefused: there is no champion or none before it, or another champion is active.
        NotInCatalog: there are no such weights.
    """
    from cloudseg.registry import rollback as roll_back

    runtime = open_runtime()
    expected = expected_champion(runtime, champion_id)
    log.started("rollback", champion=expected, actor=actor, reason=reason)
    record = roll_back(runtime.store, runtime.catalog, expected_champion=expected, actor=actor, reason=reason)
    publish_stac(runtime, everything=True)
    log.ended("rollback", record)
    return record


def expected_champion(runtime: Runtime, champion_id: str | None) -> str:
    """Return the id of the champion that a rollback replaces: the named one, else the current one.

    Raises:
        PromotionRefused: there is no champion.
        NotInCatalog: there are no such weights.
    """
    with runtime.catalog.read() as db:
        if model_rows.find_champion(db) is None:
            raise PromotionRefused(
                "there is no champion to roll back",
                subject=names.CHAMPION,
                next_step="`cloudseg retrain` makes the first one.",
            )
        return names.get_id(db, "weights", champion_id or names.CHAMPION)


def run_request(
    runtime: Runtime, weights_id: str, snapshot_id: str | None, *, actor: str, reason: str
) -> PromoteRecord:
    """Do what `request_approval` does, with a runtime that is open."""
    weights, snapshot_id = resolve_evaluation_target(runtime, weights_id, snapshot_id)
    if record := _find_champion_record(runtime, weights):
        return record
    verdict = _compare(runtime, weights, snapshot_id)
    record_request(runtime.catalog, verdict, actor=actor, reason=reason.strip())
    return _not_promoted(runtime, verdict)


def run_unattended(
    runtime: Runtime, weights_id: str, snapshot_id: str | None, *, actor: str, reason: str
) -> PromoteRecord:
    """Do what `promote_unattended` does, with a runtime that is open."""
    weights, snapshot_id = resolve_evaluation_target(runtime, weights_id, snapshot_id)
    if record := _find_champion_record(runtime, weights):
        return record
    verdict = _compare(runtime, weights, snapshot_id)
    if find_blocking_decision(runtime.catalog, weights.weights_id) is not None:
        return _not_promoted(runtime, verdict)
    return _apply(runtime, verdict, actor=actor, reason=reason.strip(), force=False)


def check_reason(what: str, weights_id: str, reason: str) -> None:
    """Raise PromotionRefused if a decision that needs a reason has none."""
    if not reason.strip():
        raise PromotionRefused(
            f"{what} needs a reason", subject=weights_id, next_step="Pass --reason: it is kept in the history."
        )


def refuse_champion(weights: Weights) -> NoReturn:
    """Raise PromotionRefused: the champion is not rejected but rolled back."""
    raise PromotionRefused(
        "these weights are already the champion", subject=weights.weights_id, next_step="Use `cloudseg rollback`."
    )


def _check_not_undone(runtime: Runtime, weights: Weights, since: int | None) -> None:
    """Raise PromotionRefused if weights that are not the champion were promoted after a generation of the history."""
    if since is None:
        return
    with runtime.catalog.read() as db:
        history = model_rows.list_promotions(db)
    made = [p for p in history if p.generation > since and (p.action, p.weights_id) == ("promote", weights.weights_id)]
    if made:
        raise PromotionRefused(
            "these weights were promoted by this decision, and replaced since",
            subject=weights.weights_id,
            found=f"promoted as generation {made[0].generation}; generation {history[0].generation} is "
            f"{history[0].weights_id}, by {history[0].actor}",
            next_step="Decide anew if they should be the champion again.",
        )


def _compare(runtime: Runtime, weights: Weights, snapshot_id: str) -> Verdict:
    """Run the gate against the current champion, by the promotion policy of the recipe that made the weights."""
    from cloudseg.evaluate.gate import decide

    with runtime.catalog.read() as db:
        champion = model_rows.find_champion(db)
        run = training_rows.find_run(db, weights.run_id) if weights.run_id else None
    return decide(
        runtime.store,
        runtime.catalog,
        challenger_id=weights.weights_id,
        champion_id=champion.weights_id if champion else None,
        snapshot_id=snapshot_id,
        promotion=policy_of(run),
        device=open_device(runtime),
    )


def _apply(runtime: Runtime, verdict: Verdict, *, actor: str, reason: str, force: bool) -> PromoteRecord:
    promotion = apply_verdict(runtime.store, runtime.catalog, verdict, actor=actor, reason=reason, force=force)
    if promotion is None:
        return _not_promoted(runtime, verdict)
    publish_stac(runtime, everything=True)
    return _record(runtime, verdict, promoted=True, champion_id=promotion.weights_id)


def _not_promoted(runtime: Runtime, verdict: Verdict) -> PromoteRecord:
    blocking = find_blocking_decision(runtime.catalog, verdict.challenger_id)
    more = [describe_decision(blocking)] if blocking else []
    return _record(runtime, verdict, promoted=False, champion_id=verdict.champion_id, more=more)


def _find_champion_record(runtime: Runtime, weights: Weights) -> PromoteRecord | None:
    """Return the record of weights that are already the champion, with the newest verdict on them, or None.

    Repairs the pointer, which a killed promotion may have left behind.
    """
    from cloudseg.registry import repair_pointer

    with runtime.catalog.read() as db:
        history = model_rows.list_promotions(db)
        if not history or history[0].weights_id != weights.weights_id:
            return None
        verdict_id = next((p.verdict_id for p in history if p.weights_id == weights.weights_id and p.verdict_id), None)
        verdict = model_rows.get_verdict(db, verdict_id) if verdict_id else None
    repair_pointer(runtime.store, runtime.catalog)
    if verdict is not None:
        return _record(runtime, verdict, promoted=True, champion_id=weights.weights_id)
    newest = history[0]
    return PromoteRecord(
        verdict_id=None,
        outcome=None,
        promoted=True,
        champion_id=weights.weights_id,
        challenger_id=weights.weights_id,
        challenger=f"v{weights.version}",
        champion=f"v{weights.version}",
        reasons=[f"champion without a verdict, by {newest.actor}: {newest.reason}"],
    )


def _record(
    runtime: Runtime, verdict: Verdict, *, promoted: bool, champion_id: str | None, more: Sequence[str] = ()
) -> PromoteRecord:
    with runtime.catalog.read() as db:
        challenger = model_rows.get_weights(db, verdict.challenger_id)
        champion = model_rows.get_weights(db, champion_id) if champion_id else None
    return PromoteRecord(
        verdict_id=verdict.verdict_id,
        outcome=verdict.outcome,
        promoted=promoted,
        champion_id=champion_id,
        challenger_id=verdict.challenger_id,
        challenger=f"v{challenger.version}",
        champion=f"v{champion.version}" if champion else None,
        reasons=[*more, *map(str, verdict.body.get("reasons", []))],
    )
