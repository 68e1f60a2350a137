"""Dry runs of the command line: what a stage would do, as a small JSON-able dict."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from cloudseg.catalog import model_rows, names, training_rows
from cloudseg.catalog.session import sql_folder
from cloudseg.recipe import load_recipe
from cloudseg.records import Decision, Json, Split, Verdict
from cloudseg.registry import find_earlier_champion
from cloudseg.registry.decisions import describe_decision, find_blocking_decision
from cloudseg.registry.due import run_id_of
from cloudseg.registry.verdicts import find_verdict, policy_of
from cloudseg.runtime import open_runtime
from cloudseg.stages.evaluate import resolve_evaluation_target
from cloudseg.stages.predict import asked_cleaning, resolve_scenes, text_of
from cloudseg.stages.promote import check_reason, expected_champion, refuse_champion
from cloudseg.stages.thresholds import named_threshold

if TYPE_CHECKING:
    from cloudseg.raster.thresholds import Threshold


def plan_train(
    snapshot_id: str, *, recipe: str = "nightly", run_id: str | None = None, minutes: float | None = None
) -> Json:
    """Return which run would be started or resumed, or that it is finished."""
    wanted = load_recipe(recipe).with_minutes(minutes)
    with open_runtime().catalog.read() as db:
        frozen = training_rows.get_snapshot(db, names.get_id(db, "snapshot", snapshot_id))
        snapshot_id = frozen.snapshot_id
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


PromotionKind = Literal["promote", "force", "ask", "decline", "automatic", "compare"]
"""Which stage of `cloudseg.stages.promote` a dry run is of; `force` is `promote` with force."""


def plan_promote(
    weights_id: str, *, snapshot_id: str | None = None, kind: PromotionKind = "promote", reason: str = ""
) -> Json:
    """Return the champion that the weights would be compared with, the verdict if it is known, and what would follow.

    Args:
        weights_id: the challenger.
        snapshot_id: as in `stages.promote`.
        kind: what would be called.
        reason: why; a forced promotion and a rejection need one.

    Raises:
        PromotionRefused: the call itself would be refused.
    """
    runtime = open_runtime()
    weights, wanted = resolve_evaluation_target(runtime, weights_id, snapshot_id)
    if kind in ("force", "decline"):
        check_reason("a forced promotion" if kind == "force" else "a rejection", weights_id, reason)
    with runtime.catalog.read() as db:
        champion = model_rows.find_champion(db)
        champion_id = champion.weights_id if champion else None
        run = training_rows.find_run(db, weights.run_id) if weights.run_id else None
        verdict = find_verdict(
            db,
            challenger_id=weights.weights_id,
            champion_id=champion_id,
            snapshot_id=wanted,
            policy=policy_of(run),
        )
    if champion_id == weights.weights_id:
        if kind == "decline":
            refuse_champion(weights)
        would = "nothing: they are the champion"
    else:
        would = _would_promote(kind, verdict, find_blocking_decision(runtime.catalog, weights.weights_id))
    return {
        "would": would,
        "challenger_id": weights.weights_id,
        "champion_id": champion_id,
        "snapshot_id": wanted,
        "verdict": verdict.outcome if verdict else None,
        "verdict_id": verdict.verdict_id if verdict else None,
    }


def _would_promote(kind: PromotionKind, verdict: Verdict | None, blocking: Decision | None) -> str:
    """Return in words what a comparison that has no verdict yet, or the known one, leads to."""
    declined = blocking is not None and blocking.decision == "declined"
    if kind == "compare":
        return "compare, and promote nothing" if verdict is None else f"nothing: it is {verdict.verdict_id}"
    if kind == "force":
        return "promote, whatever the verdict is"
    if kind == "decline":
        known = declined and verdict is not None and blocking is not None and blocking.verdict_id == verdict.verdict_id
        return "nothing: they were rejected" if known else "reject: no unattended run promotes them"
    if verdict is not None and verdict.outcome != "PROMOTE":
        return f"nothing: the verdict is {verdict.outcome}" + (" (--force overrules it)" if kind == "promote" else "")
    compare = "" if verdict else "compare, and if the verdict is PROMOTE "
    if kind == "ask":
        return f"{compare}record that the verdict waits for manual approval"
    if kind == "automatic" and blocking is not None:
        return f"{compare}promote nothing: {describe_decision(blocking)}"
    if declined:
        return f"{compare}refuse: these weights were rejected (--force overrules that)"
    return f"{compare}promote"


def plan_rollback(champion_id: str | None = None) -> Json:
    """Return which champion would be replaced by which.

    Args:
        champion_id: as in `stages.rollback`.

    Raises:
        PromotionRefused: there is no champion or none before it, or another champion is active.
    """
    runtime = open_runtime()
    expected = expected_champion(runtime, champion_id)
    earlier_id = find_earlier_champion(runtime.store, runtime.catalog, expected_champion=expected)
    with runtime.catalog.read() as db:
        champion, earlier = names.get_weights(db, names.CHAMPION), model_rows.get_weights(db, earlier_id)
    return {
        "would": "nothing: this rollback was made" if earlier == champion else "roll back",
        "champion_id": champion.weights_id,
        "champion_version": champion.version,
        "earlier_id": earlier.weights_id,
        "earlier_version": earlier.version,
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
    threshold: "Threshold | None" = None,
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
    threshold = named_threshold(runtime, threshold, weights_id)
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
