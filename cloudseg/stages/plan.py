"""Dry runs of the command line: what a stage would do, as a small JSON-able dict."""

from collections.abc import Sequence

from cloudseg.catalog import model_rows, training_rows
from cloudseg.catalog.session import sql_folder
from cloudseg.errors import PromotionRefused
from cloudseg.recipe import load_recipe
from cloudseg.records import Json, Split
from cloudseg.registry import find_earlier_champion
from cloudseg.registry.due import run_id_of
from cloudseg.runtime import open_runtime
from cloudseg.stages.evaluate import resolve_evaluation_target
from cloudseg.stages.predict import asked_cleaning, resolve_scenes, text_of


def plan_train(
    snapshot_id: str, *, recipe: str = "nightly", run_id: str | None = None, minutes: float | None = None
) -> Json:
    """Return which run would be started or resumed, or that it is finished."""
    wanted = load_recipe(recipe).with_minutes(minutes)
    with open_runtime().catalog.read() as db:
        frozen = training_rows.get_snapshot(db, snapshot_id)
        run_id = run_id or run_id_of(db, snapshot_id, wanted)
        known = training_rows.find_run(db, run_id)
        checkpoints = training_rows.list_checkpoints(db, run_id)
    would = "begin" if known is None else ("nothing: it is finished" if known.status == "finished" else "resume")
    return {
        "run_id": run_id,
        "would": would,
        "from_step": checkpoints[0].step if checkpoints else 0,
        "recipe": wanted.name,
        "recipe_hash": wanted.recipe_hash,
        "snapshot_id": snapshot_id,
        "counts": frozen.counts,
    }


def plan_evaluate(weights_id: str, *, snapshot_id: str | None = None, split: Split = "held_out") -> Json:
    """Return which chips would be evaluated, or that they were evaluated."""
    runtime = open_runtime()
    weights, wanted = resolve_evaluation_target(runtime, weights_id, snapshot_id)
    with runtime.catalog.read() as db:
        known = model_rows.find_evaluation(db, weights.weights_id, wanted, split)
        counts = training_rows.get_snapshot(db, wanted).counts
    would = "evaluate" if known is None else f"nothing: it is {known.evaluation_id}"
    return {
        "would": would,
        "weights_id": weights.weights_id,
        "snapshot_id": wanted,
        "split": split,
        "counts": counts.get(split),
    }


def plan_promote(weights_id: str, *, snapshot_id: str | None = None) -> Json:
    """Return the champion that the weights would be compared with."""
    runtime = open_runtime()
    weights, wanted = resolve_evaluation_target(runtime, weights_id, snapshot_id)
    with runtime.catalog.read() as db:
        champion = model_rows.find_champion(db)
        decisions = {entry.decision for entry in model_rows.list_decisions(db, weights.weights_id)}
    champion_id = champion.weights_id if champion else None
    would = (
        "nothing: they are the champion"
        if champion_id == weights.weights_id
        else "compare, and promote if the verdict is PROMOTE"
    )
    if champion_id != weights.weights_id and "declined" in decisions:
        would = "compare, and refuse: these weights were rejected (--force overrules that)"
    return {"would": would, "challenger_id": weights.weights_id, "champion_id": champion_id, "snapshot_id": wanted}


def plan_rollback(champion_id: str | None = None) -> Json:
    """Return which champion would be replaced by which.

    Args:
        champion_id: as in `stages.rollback`.

    Raises:
        PromotionRefused: there is no champion or none before it, or another champion is active.
    """
    runtime = open_runtime()
    with runtime.catalog.read() as db:
        champion = model_rows.find_champion(db)
    if champion is None:
        raise PromotionRefused(
            "there is no champion to roll back", subject="champion", next_step="`cloudseg retrain` makes the first one."
        )
    earlier = find_earlier_champion(
        runtime.store, runtime.catalog, expected_champion=champion_id or champion.weights_id
    )
    return {
        "would": "nothing: this rollback was made" if earlier == champion.weights_id else "roll back",
        "champion_id": champion.weights_id,
        "earlier_id": earlier,
    }


def plan_upgrade() -> Json:
    """Return the revisions between which the catalog would be migrated."""
    catalog = open_runtime(check=False).catalog
    return {"catalog": catalog.uri, "before": catalog.revision(), "after": catalog.head_revision()}


def plan_roles() -> Json:
    """Return the SQL that would be executed, for an administrator to review."""
    files = sorted((sql_folder() / "roles").glob("*.sql"))
    return {
        "catalog": open_runtime(check=False).catalog.uri,
        "sql": "\n".join(file.read_text("utf-8") for file in files),
    }


def plan_masks(
    scene_ids: Sequence[str] = (),
    *,
    new: bool = False,
    weights_id: str | None = None,
    threshold: float | None = None,
    min_area_m2: float | None = None,
    min_hole_m2: float | None = None,
    buffer_m: float | None = None,
) -> Json:
    """Return which scenes would get a mask; the arguments are those of `predict`.

    Raises:
        InputError: both or neither of `scene_ids` and `new` are given, or a value of the cleaning is out of range.
        NotInCatalog: the weights are unknown, or there is no champion yet.
    """
    runtime = open_runtime()
    cleaning, exact = asked_cleaning(runtime, threshold, min_area_m2, min_hole_m2, buffer_m)
    such = cleaning if exact else None
    with runtime.catalog.read() as db:
        weights, wanted = resolve_scenes(db, scene_ids, new=new, weights_id=weights_id, cleaning=such)
        have = model_rows.find_masked(db, weights.weights_id, wanted, cleaning=text_of(such, weights))
    missing = [scene_id for scene_id in wanted if scene_id not in have]
    return {
        "would": "mask" if missing else "nothing: every scene has its mask",
        "weights_id": weights.weights_id,
        "scene_ids": missing,
    }
