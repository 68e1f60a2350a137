"""Stages: a whole retraining in one call, and whether one is due."""

from typing import TypedDict

from cloudseg.recipe import Recipe, load_recipe
from cloudseg.records import PromoteRecord, RetrainRecord, SnapshotRecord
from cloudseg.registry import due
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import log
from cloudseg.stages.evaluate import run_evaluation
from cloudseg.stages.promote import run_request, run_unattended
from cloudseg.stages.snapshot import run_snapshot
from cloudseg.stages.train import run_training


class RetrainPlan(TypedDict):
    """Whether a retraining is due."""

    skip: str | None
    new_labels: int
    drift: str | None
    """What has drifted, in words, if that is why it is due (`retrain.drift_psi` of the recipe)."""


def plan_retrain(
    recipe: str = "nightly", *, force: bool = False, min_new_labels: int = 1, snapshot_id: str | None = None
) -> RetrainPlan:
    """Return whether a retraining is due, or the reason to skip it.

    Args:
        recipe: name or path; another time budget is the same recipe.
        force: never skip.
        min_new_labels: how many labels the newest evaluated run of this recipe must not have seen.
        snapshot_id: once the snapshot is built: whether it has chips that run did not see.

    Raises:
        EmptySplit: the snapshot has nothing to train, validate or evaluate on.
    """
    return _plan(
        open_runtime(), load_recipe(recipe), force=force, min_new_labels=min_new_labels, snapshot_id=snapshot_id
    )


def retrain(
    recipe: str = "nightly",
    *,
    minutes: float | None = None,
    force: bool = False,
    auto_promote: bool = True,
    run_id: str | None = None,
) -> RetrainRecord:
    """Run the four steps snapshot, train, evaluate, promote; skip them, with the reason, when no label is new.

    A recipe may ask for a retraining without new labels when drift is past a limit (`retrain.drift_psi`). After a kill,
    the same call resumes. Even if it skips, it completes a promotion that a verdict granted and that was never written.

    Args:
        recipe: name or path, read once.
        minutes: time budget instead of the recipe's.
        force: train again on the same labels.
        auto_promote: False leaves a verdict PROMOTE to a person: no later unattended run promotes it.
        run_id: run to begin or resume; follows from snapshot, recipe and champion when not given.
    """
    log.started("retrain", recipe=recipe, minutes=minutes, force=force, auto_promote=auto_promote, run_id=run_id)
    runtime, wanted = open_runtime(), load_recipe(recipe).with_minutes(minutes)
    plan = _plan(runtime, wanted, force=force)
    frozen = None
    if plan["skip"] is None:
        frozen = run_snapshot(runtime, wanted)
        plan = _plan(runtime, wanted, force=force, snapshot_id=frozen.snapshot_id)
    if frozen is None or plan["skip"] is not None:
        promoted = _complete_promotion(runtime, wanted) if auto_promote else None
        record = RetrainRecord(skipped=plan["skip"], snapshot=frozen, promote=promoted)
    else:
        with runtime.catalog.read() as db:
            again = force or plan["drift"] is not None  # on the same labels
            run_id = run_id or due.next_run_id(db, frozen.snapshot_id, wanted, force=again)
        record = _train_and_promote(runtime, wanted, frozen, run_id, auto_promote=auto_promote)
    log.ended("retrain", record)
    return record


def _plan(
    runtime: Runtime, recipe: Recipe, *, force: bool, min_new_labels: int = 1, snapshot_id: str | None = None
) -> RetrainPlan:
    with runtime.catalog.read() as db:
        new_labels = due.count_new_labels(db, recipe)
        if snapshot_id is not None:
            reason = due.reason_to_skip_snapshot(db, recipe, snapshot_id)
        else:
            reason = due.reason_to_skip(db, recipe, min_new_labels=min_new_labels)
        drift = due.reason_of_drift(db, recipe) if reason is not None else None
    plan = RetrainPlan(skip=None if force or drift else reason, new_labels=new_labels, drift=drift)
    log.ended("plan_retrain", {"recipe": recipe.name, "force": force, **plan})
    return plan


def _train_and_promote(
    runtime: Runtime, recipe: Recipe, frozen: SnapshotRecord, run_id: str, *, auto_promote: bool
) -> RetrainRecord:
    trained = run_training(runtime, recipe, snapshot_id=frozen.snapshot_id, run_id=run_id)
    evaluated = run_evaluation(runtime, trained.weights_id, snapshot_id=frozen.snapshot_id)
    if auto_promote:
        promoted = run_unattended(runtime, trained.weights_id, frozen.snapshot_id, actor="retrain", reason="")
    else:
        reason = "called without automatic promotion"
        promoted = run_request(runtime, trained.weights_id, frozen.snapshot_id, actor="retrain", reason=reason)
    return RetrainRecord(skipped=None, snapshot=frozen, train=trained, evaluate=evaluated, promote=promoted)


def _complete_promotion(runtime: Runtime, recipe: Recipe) -> PromoteRecord | None:
    """Complete the promotion that a verdict granted to the newest run before a kill, if there is one."""
    with runtime.catalog.read() as db:
        weights = due.find_unapplied_promotion(db, recipe)
    if weights is None:
        return None
    reason = "completed: the verdict was stored, the promotion was not"
    return run_unattended(runtime, weights.weights_id, None, actor="retrain", reason=reason)
