"""Stages: let a challenger replace the champion, and take that back."""

from cloudseg.catalog import model as models
from cloudseg.catalog import training
from cloudseg.errors import PromotionRefused
from cloudseg.recipe import Promotion as Policy
from cloudseg.recipe import recipe_from
from cloudseg.records import PromoteRecord, Promotion, Verdict, Weights
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import log
from cloudseg.stages.compute import open_device
from cloudseg.stages.evaluate import find_question


def promote(
    weights_id: str, *, snapshot_id: str | None = None, apply: bool = True, force: bool = False, actor: str = "cli", reason: str = ""
) -> PromoteRecord:
    """Judge a challenger against the champion and, where the verdict is PROMOTE, make it the champion.

    `apply=False` judges only. `force=True` is a person's decision against the verdict: it needs a reason and is
    written into the history. The exchange happens only while the champion is still the one that the verdict was made
    against, else PromotionRefused is raised. Weights that are the champion already: nothing changes.
    """
    runtime = open_runtime()
    weights, snapshot_id = find_question(runtime, weights_id, snapshot_id)
    log.started("promote", weights_id=weights_id, snapshot_id=snapshot_id, apply=apply, force=force, actor=actor)
    if force and not reason.strip():
        raise PromotionRefused(
            "a forced promotion needs a reason", subject=weights_id, next_step="Give --reason: it is kept in the history."
        )
    record = _already(runtime, weights) or _exchange(runtime, weights, snapshot_id, apply=apply, force=force, actor=actor, reason=reason)
    log.ended("promote", record)
    return record


def rollback(*, actor: str = "cli", reason: str = "") -> Promotion:
    """Make the weights champion again that were it before the newest promotion; history is kept.

    Raises PromotionRefused where there is nothing before it. Running twice goes two steps back: it is a command, not
    a state.
    """
    from cloudseg.registry import rollback as take_back

    runtime = open_runtime()
    with runtime.catalog.read() as db:
        champion = models.find_champion(db)
    expected = champion.weights_id if champion else None
    log.started("rollback", champion=expected, actor=actor, reason=reason)
    record = take_back(runtime.store, runtime.catalog, expected_champion=expected, actor=actor, reason=reason)
    log.ended("rollback", record)
    return record


def _exchange(
    runtime: Runtime, weights: Weights, snapshot_id: str, *, apply: bool, force: bool, actor: str, reason: str
) -> PromoteRecord:  # fmt: skip
    verdict = _judge(runtime, weights, snapshot_id)
    if not apply or (verdict.outcome != "PROMOTE" and not force):
        return _record(verdict, promoted=False, champion_id=verdict.champion_id)
    from cloudseg.registry import promote as exchange

    why = f"forced against {verdict.outcome}: {reason}" if verdict.outcome != "PROMOTE" else (reason or "the verdict")
    promotion = exchange(
        runtime.store, runtime.catalog, weights.weights_id, expected_champion=verdict.champion_id, verdict_id=verdict.verdict_id,
        actor=actor, reason=why, force=force,
    )  # fmt: skip
    return _record(verdict, promoted=True, champion_id=promotion.weights_id)


def _judge(runtime: Runtime, weights: Weights, snapshot_id: str) -> Verdict:
    from cloudseg.evaluate.gate import judge

    with runtime.catalog.read() as db:
        champion = models.find_champion(db)
        run = training.find_run(db, weights.run_id) if weights.run_id else None
    policy = recipe_from(run.recipe, subject=run.run_id).promotion if run else Policy()
    return judge(
        runtime.store, runtime.catalog, challenger_id=weights.weights_id, champion_id=champion.weights_id if champion else None,
        snapshot_id=snapshot_id, promotion=policy, device=open_device(runtime),
    )  # fmt: skip


def _already(runtime: Runtime, weights: Weights) -> PromoteRecord | None:
    """Give the record of weights that are the champion already, with the verdict that made them so."""
    from cloudseg.registry import repair_pointer

    with runtime.catalog.read() as db:
        champion = models.find_champion(db)
        if champion is None or champion.weights_id != weights.weights_id:
            return None
        made = next(p for p in models.list_promotions(db) if p.weights_id == weights.weights_id and p.verdict_id)
        verdict = models.get_verdict(db, str(made.verdict_id))
    repair_pointer(runtime.store, runtime.catalog)
    return _record(verdict, promoted=True, champion_id=weights.weights_id)


def _record(verdict: Verdict, *, promoted: bool, champion_id: str | None) -> PromoteRecord:
    return PromoteRecord(
        verdict_id=verdict.verdict_id,
        outcome=verdict.outcome,
        promoted=promoted,
        champion_id=champion_id,
        challenger_id=verdict.challenger_id,
        reasons=[str(text) for text in verdict.body.get("reasons", [])],
    )
