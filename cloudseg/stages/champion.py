"""Read-only stages: the champion's card, and the history of the decisions on models."""

from cloudseg.catalog import model_rows, names, reader_rows, scene_rows
from cloudseg.catalog.history import KINDS, Event, list_events
from cloudseg.records import Json, utc_iso
from cloudseg.runtime import open_runtime

_OF_CHAMPION = ("promote", "approve", "rollback")


def history(*, limit: int | None = 20) -> list[Json]:
    """List decisions, newest first: promoted, approved, rolled back, declined, against a model by the gate, readers.

    Args:
        limit: maximum number of rows.
    """
    with open_runtime().catalog.read() as db:
        versions = model_rows.list_versions(db)
        return [_row(event, versions) for event in list_events(db, limit=limit)]


def champion() -> Json:
    """Return the champion: version, since when, by whom and why, held-out IoU with its bounds, masks, and its line.

    `iou_lower` and `iou_upper` are the 5 % and 95 % quantiles of the pooled IoU over bootstrap draws of places, None
    for a single place. `masks` have been made with it, `waiting` scenes have none yet. `line` lists the snapshot and
    the weights that it learned from.

    Raises:
        NotInCatalog: there is no champion yet.
    """
    with open_runtime().catalog.read() as db:
        weights = names.get_weights(db, names.CHAMPION)
        decided = next(event for event in list_events(db) if event.kind in _OF_CHAMPION)
        evaluations = model_rows.list_evaluations(db, weights.weights_id)
        metrics = next((entry.metrics for entry in evaluations if entry.split == "held_out"), {})
        lower, upper = metrics.get("iou_bounds") or (None, None)
        return {
            "version": weights.version,
            "weights_id": weights.weights_id,
            "since": utc_iso(decided.at),
            "how": KINDS[decided.kind],
            "by": decided.actor,
            "why": decided.reason,
            "verdict": decided.outcome,
            "verdict_id": decided.verdict_id,
            "held_out_iou": metrics.get("iou"),
            "iou_lower": lower,
            "iou_upper": upper,
            "masks": reader_rows.count_masks(db, weights.weights_id),
            "waiting": scene_rows.count_scenes_without_mask(db, weights.weights_id),
            "threshold": weights.metadata["threshold"],
            "recipe": weights.metadata.get("recipe_name"),
            "line": {
                "run_id": weights.run_id,
                "snapshot_id": weights.snapshot_id,
                "parent_id": weights.metadata.get("parent_weights_id"),
            },
        }


def _row(event: Event, versions: dict[str, int]) -> Json:
    return {
        "decided_at": utc_iso(event.at),
        "what": KINDS[event.kind],
        "version": versions.get(event.weights_id or ""),
        "weights_id": event.weights_id,
        "replaces_version": versions.get(event.replaces_id or ""),
        "replaces_id": event.replaces_id,
        "actor": event.actor,
        "reason": event.reason,
        "verdict": event.outcome,
        "verdict_id": event.verdict_id,
    }
