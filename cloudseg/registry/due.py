"""Whether a retraining is due: labels that changed since the newest evaluated run of a recipe, or drift."""

from sqlalchemy import Connection

from cloudseg.catalog import label_rows, model_rows, training_rows
from cloudseg.drift.report import list_drifted
from cloudseg.drift.weeks import monday_of, sentence_of
from cloudseg.errors import EmptySplit
from cloudseg.keys import make_id
from cloudseg.recipe import Recipe, current_name, is_same_training
from cloudseg.records import Run, Snapshot, Weights


def count_new_labels(db: Connection, recipe: Recipe) -> int:
    """Return how many accepted labels the snapshot of the recipe's newest compared run lacks; all without such a run.

    A label of that snapshot which has been withdrawn counts too: what it taught is to be unlearned.
    """
    last = newest_compared_run(db, recipe)
    return label_rows.count_changes(db, last.snapshot_id if last else None)


def reason_to_skip(db: Connection, recipe: Recipe, *, min_new_labels: int) -> str | None:
    """Return why no retraining of this recipe is due, or None where one is.

    Args:
        db: the catalog.
        recipe: time budgets aside; another budget is the same recipe.
        min_new_labels: how many labels must be new, accepted or withdrawn; at least 1.
    """
    last, needed = newest_compared_run(db, recipe), max(1, min_new_labels)
    new_labels = label_rows.count_changes(db, last.snapshot_id if last else None)
    if new_labels >= needed:
        return None
    waiting = label_rows.describe_waiting(db)
    more = f"; {waiting}" if waiting else ""
    if last is None and new_labels == 0:
        return f"no scene in the catalog has {'an accepted' if waiting else 'a'} label yet{more}"
    since = f"since run {last.run_id}" if last else "and no run has used any"
    return f"{new_labels} labels are new {since}, {needed} are needed (force trains anyway){more}"


def reason_of_drift(db: Connection, recipe: Recipe) -> str | None:
    """Return what has drifted so far that this recipe retrains, in words; None if nothing, or if it asks for nothing.

    A week counts once: if a run of the recipe that was compared began in that week or later, it has been answered.
    """
    if recipe.retrain.drift_psi is None:
        return None
    last = newest_compared_run(db, recipe)
    drifted = list_drifted(db, limit=recipe.retrain.drift_psi)
    unanswered = [week for week in drifted if last is None or last.created_at < monday_of(week.week)]
    return "; ".join(sentence_of(week) for week in unanswered) or None


def reason_to_skip_snapshot(db: Connection, recipe: Recipe, snapshot_id: str) -> str | None:
    """Return why an existing snapshot needs no training, or None.

    Raises:
        EmptySplit: the snapshot has nothing to train, validate or evaluate on; better before the training than after.
    """
    _check_splits(training_rows.get_snapshot(db, snapshot_id))
    last = newest_compared_run(db, recipe)
    if last is not None and last.snapshot_id == snapshot_id:
        return "the new labels add no new chip (their scenes lack bands or labeled pixels)"
    weights = model_rows.find_weights_of_run(db, run_id_of(db, snapshot_id, recipe))
    if weights is None or not _is_compared(db, weights.weights_id):
        return None
    return f"the labels are those of run {weights.run_id} again, whose weights were compared with the champion"


def _is_compared(db: Connection, weights_id: str) -> bool:
    """Return whether weights are the champion or lost to it; a verdict PROMOTE may still have to be applied."""
    newest = model_rows.find_champion(db)
    champion = newest.weights_id if newest else None
    verdicts = model_rows.list_verdicts(db, challenger_id=weights_id)
    return weights_id == champion or any(v.champion_id == champion and v.outcome != "PROMOTE" for v in verdicts)


def newest_compared_run(db: Connection, recipe: Recipe) -> Run | None:
    """Return the newest run of this recipe whose weights have a verdict, or None.

    A run counts from its verdict on: one that was killed before is resumed.
    """
    compared = training_rows.list_compared_run_ids(db)
    runs = (run for run in training_rows.list_runs(db) if run.run_id in compared)
    named = (run for run in runs if current_name(run.recipe_name) == recipe.name)
    return next((run for run in named if is_same_training(run.recipe, recipe, ignore_minutes=True)), None)


def run_id_of(db: Connection, snapshot_id: str, recipe: Recipe, *, attempt: int = 0) -> str:
    """Return the run id that follows from snapshot, recipe and parent weights: the same three yield the same run.

    `attempt` above 0 yields another run of the same three, for a forced retraining.
    """
    champion = model_rows.find_champion(db) if recipe.warm_start else None
    parts = [snapshot_id, recipe.recipe_hash, champion.weights_id if champion else ""]
    return make_id("run", *parts, *([str(attempt)] if attempt else []))


def next_run_id(db: Connection, snapshot_id: str, recipe: Recipe, *, force: bool) -> str:
    """Return the run id of the next training; a forced one uses the first attempt without a verdict, so it resumes."""
    attempt, run_id = 0, run_id_of(db, snapshot_id, recipe)
    while force and has_verdict(db, run_id):
        attempt += 1
        run_id = run_id_of(db, snapshot_id, recipe, attempt=attempt)
    return run_id


def find_unapplied_promotion(db: Connection, recipe: Recipe) -> Weights | None:
    """Return the weights of the recipe's newest compared run whose promotion was granted but never written, or None.

    Granted: a verdict PROMOTE against the current champion. Weights that wait for approval or were rejected are
    excluded.
    """
    run = newest_compared_run(db, recipe)
    weights = model_rows.find_weights_of_run(db, run.run_id) if run else None
    history = model_rows.list_promotions(db)
    if weights is None or weights.weights_id in {promotion.weights_id for promotion in history}:
        return None
    if model_rows.list_decisions(db, weights.weights_id):
        return None
    granted = ("PROMOTE", weights.weights_id, history[0].weights_id if history else None)
    verdicts = {
        (verdict.outcome, verdict.challenger_id, verdict.champion_id) for verdict in model_rows.list_verdicts(db)
    }
    return weights if granted in verdicts else None


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
            next_step="Ingest labeled scenes of more places: a hash of its name assigns each place to one split.",
        )


def has_verdict(db: Connection, run_id: str) -> bool:
    """Return whether the weights of a training have a verdict; False for one that has no weights, or does not exist."""
    weights = model_rows.find_weights_of_run(db, run_id)
    return weights is not None and model_rows.find_verdict(db, weights.weights_id) is not None
