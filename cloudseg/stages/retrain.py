"""Stages: a whole retraining in one call, and the question whether one is due."""

from typing import TypedDict

from sqlalchemy import Connection, select

from cloudseg.catalog import model_rows, scene_rows, training_rows
from cloudseg.catalog import tables as t
from cloudseg.errors import EmptySplit, RecipeError
from cloudseg.recipe import Recipe, load_recipe, recipe_from
from cloudseg.records import PromoteRecord, RetrainRecord, Run, Snapshot, SnapshotRecord
from cloudseg.runtime import open_runtime
from cloudseg.stages import log
from cloudseg.stages.evaluate import evaluate
from cloudseg.stages.promote import promote
from cloudseg.stages.snapshot import snapshot
from cloudseg.stages.train import default_run_id, train


class RetrainPlan(TypedDict):
    """Whether a retraining is due."""

    skip: str | None
    new_labels: int


def plan_retrain(
    recipe: str = "nightly", *, force: bool = False, min_new_labels: int = 1, snapshot_id: str | None = None
) -> RetrainPlan:
    """Return whether a retraining is due, or the reason to skip it.

    New labels are those that the snapshot of this recipe's newest judged run lacks. A run counts from its verdict
    on: one that was killed before is taken up again. Other time budgets are the same recipe. `force` never skips. With
        `snapshot_id` it answers the second question, once the snapshot is built: whether it has chips that run did not
        see. Raises EmptySplit where that snapshot has nothing to train, validate or judge on: before the training, not
        after it.
    """
    wanted = load_recipe(recipe)
    with open_runtime().catalog.read() as db:
        if snapshot_id is not None:
            _check_splits(training_rows.get_snapshot(db, snapshot_id))
        last = _newest_judged_run(db, wanted)
        new_labels = scene_rows.count_labels_outside(db, last.snapshot_id if last else None)
    reason = (
        _reason(last, new_labels, min_new_labels) if snapshot_id is None else _reason_of_snapshot(last, snapshot_id)
    )
    plan = RetrainPlan(skip=None if force else reason, new_labels=new_labels)
    log.ended("plan_retrain", {"recipe": wanted.name, "force": force, **plan})
    return plan


def retrain(
    recipe: str = "nightly",
    *,
    minutes: float | None = None,
    force: bool = False,
    auto_promote: bool = True,
    run_id: str | None = None,
) -> RetrainRecord:
    """Do the four steps: snapshot, train, evaluate, promote. Skips itself, with the reason, when no label is new.

    Killed anywhere and called again, it goes on where it stopped; even where it skips itself it makes good a promotion
    that the verdict granted and that was never written. `auto_promote=False` leaves the promotion to a person: that is
    written down, and no later automatic run applies it. `force` trains again on the same labels.
    """
    log.started("retrain", recipe=recipe, minutes=minutes, force=force, auto_promote=auto_promote, run_id=run_id)
    if reason := plan_retrain(recipe, force=force)["skip"]:
        record = _skipped(recipe, reason, None, auto_promote=auto_promote)
    else:
        frozen = snapshot(recipe)
        if reason := plan_retrain(recipe, force=force, snapshot_id=frozen.snapshot_id)["skip"]:
            record = _skipped(recipe, reason, frozen, auto_promote=auto_promote)
        else:
            run_id = run_id or next_run_id(frozen.snapshot_id, load_recipe(recipe).with_minutes(minutes), force=force)
            record = _train_and_judge(recipe, frozen, run_id, minutes, auto_promote=auto_promote)
    log.ended("retrain", record)
    return record


def _train_and_judge(
    recipe: str, frozen: SnapshotRecord, run_id: str, minutes: float | None, *, auto_promote: bool
) -> RetrainRecord:
    trained = train(frozen.snapshot_id, recipe=recipe, run_id=run_id, minutes=minutes)
    judged = evaluate(trained.weights_id, snapshot_id=frozen.snapshot_id)
    promoted = promote(
        trained.weights_id,
        snapshot_id=frozen.snapshot_id,
        ask=not auto_promote,
        automatic=True,
        actor="retrain",
        reason="" if auto_promote else "no automatic promotion was wanted",
    )
    return RetrainRecord(skipped=None, snapshot=frozen, train=trained, evaluate=judged, promote=promoted)


def _skipped(recipe: str, reason: str, frozen: SnapshotRecord | None, *, auto_promote: bool) -> RetrainRecord:
    return RetrainRecord(skipped=reason, snapshot=frozen, promote=_finish_promotion(recipe) if auto_promote else None)


def _finish_promotion(recipe: str) -> PromoteRecord | None:
    """Promote what the newest run was granted: its verdict says PROMOTE against today's champion, then it was killed.

    Not what waits for a person or was declined.
    """
    with open_runtime().catalog.read() as db:
        run = _newest_judged_run(db, load_recipe(recipe))
        weights = model_rows.find_weights_of_run(db, run.run_id) if run else None
        history = model_rows.list_promotions(db)
        verdicts = model_rows.list_verdicts(db)
        decisions = model_rows.list_decisions(db, weights.weights_id) if weights else []
    champion_id = history[0].weights_id if history else None
    if weights is None or decisions or weights.weights_id in {promotion.weights_id for promotion in history}:
        return None
    granted = ("PROMOTE", weights.weights_id, champion_id)
    if granted not in {(verdict.outcome, verdict.challenger_id, verdict.champion_id) for verdict in verdicts}:
        return None
    return promote(
        weights.weights_id,
        automatic=True,
        actor="retrain",
        reason="taken up again: the verdict was there, the promotion was not",
    )


def _check_splits(snapshot: Snapshot) -> None:
    chips = {
        split: snapshot.counts[split]["chips"]
        for split in ("train", "validation", "held_out")
        if split in snapshot.counts
    }
    empty = [split for split, count in chips.items() if not count]
    if empty:
        raise EmptySplit(
            f"no place is in the {' and the '.join(empty)} split",
            subject=snapshot.snapshot_id,
            found=", ".join(f"{split} {count} chips" for split, count in chips.items()),
            expected="chips in all three",
            next_step="Ingest labelled scenes of more places: each place falls into one split by its name.",
        )


def _reason_of_snapshot(last: Run | None, snapshot_id: str) -> str | None:
    if last is None or last.snapshot_id != snapshot_id:
        return None
    return "the new labels give no new chip (their scenes lack bands or labelled pixels)"


def _reason(last: Run | None, new_labels: int, min_new_labels: int) -> str | None:
    if new_labels >= max(1, min_new_labels):
        return None
    if last is None and new_labels == 0:
        return "no scene in the catalog has a label yet"
    since = f"since run {last.run_id}" if last else "and no run has seen any"
    return f"{new_labels} labels are new {since}, {max(1, min_new_labels)} are needed (force trains anyway)"


def _newest_judged_run(db: Connection, recipe: Recipe) -> Run | None:
    """Return the newest run of this recipe whose weights have a verdict, or None."""
    judged = set(
        db.execute(
            select(t.weights.c.run_id).join(t.verdict, t.verdict.c.challenger_id == t.weights.c.weights_id)
        ).scalars()
    )
    runs = (run for run in training_rows.list_runs(db) if run.run_id in judged and run.recipe_name == recipe.name)
    return next((run for run in runs if _is_same(run, recipe)), None)


def _is_same(run: Run, recipe: Recipe) -> bool:
    """Return whether a run was made by this recipe, time budgets aside.

    A row that today's code cannot read is another recipe.
    """
    try:
        return _without_minutes(recipe_from(run.recipe, subject=run.run_id)) == _without_minutes(recipe)
    except RecipeError:
        return False


def _without_minutes(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"budget": recipe.budget.model_copy(update={"minutes": None})})


def next_run_id(snapshot_id: str, recipe: Recipe, *, force: bool) -> str:
    """Return the run id.

    A forced retraining takes the first attempt that has no verdict yet, so a killed one resumes.
    """
    with open_runtime().catalog.read() as db:
        attempt = 0
        run_id = default_run_id(db, snapshot_id, recipe)
        while force and _has_verdict(db, run_id):
            attempt += 1
            run_id = default_run_id(db, snapshot_id, recipe, attempt=attempt)
    return run_id


def _has_verdict(db: Connection, run_id: str) -> bool:
    weights = model_rows.find_weights_of_run(db, run_id)
    return weights is not None and model_rows.find_verdict(db, weights.weights_id) is not None
