"""Values of the pages, read from the catalog in one transaction per page."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, func, select

from cloudseg.catalog import label_rows, model_rows, scene_rows, training_rows
from cloudseg.catalog import tables as t
from cloudseg.catalog.lineage import lineage_of_mask
from cloudseg.errors import NotInCatalog
from cloudseg.records import Decision, Epoch, Evaluation, Mask, Promotion, Run, Verdict, Weights
from cloudseg.runtime import Runtime

Values = dict[str, Any]
_MODELS: Final = 20
_MASKS: Final = 24
_QUARANTINED: Final = 30
_CURVE: Final = (120, 32)
"""Width and height of a training's curve, in pixels."""


def overview(runtime: Runtime) -> Values:
    """Return counts, models with metrics and verdicts, running trainings, the latest masks and the quarantine."""
    with runtime.catalog.read() as db:
        champion = model_rows.find_champion(db)
        shown = model_rows.list_masks(db, limit=_MASKS)
        return {
            "counts": _counts(db, champion),
            "champion": champion,
            "models": _models(db, champion),
            "runs": [_run(db, run) for run in training_rows.list_runs(db, limit=_MODELS) if run.status == "running"],
            "masks": [_mask(db, mask, champion) for mask in shown],
            "quarantine": scene_rows.list_quarantined(db, limit=_QUARANTINED),
        }


def mask(runtime: Runtime, mask_id: str) -> Values:
    """Return a mask with its lineage.

    Raises:
        NotInCatalog: the mask is unknown.
    """
    with runtime.catalog.read() as db:
        found = model_rows.get_mask(db, mask_id)
        tags = scene_rows.get_scene(db, found.scene_id).tags
        line = lineage_of_mask(db, mask_id)
    splits: dict[str, int] = {}
    for label in line["labels"]:
        splits[label["split"]] = splits.get(label["split"], 0) + 1
    files = {"mask": found.key} | {name: stored["key"] for name, stored in found.companions.items()}
    notes = {name: tags[name] for name in ("synthetic", "georeference", "source", "warped") if tags.get(name)}
    return {
        "mask": found,
        "line": line,
        "splits": splits,
        "notes": notes,
        "files": {name: runtime.store.uri_of(key) for name, key in files.items()},
    }


def weights(runtime: Runtime, weights_id: str) -> Values:
    """Return weights with their metadata, metrics, verdicts and whether there is a report.

    Raises:
        NotInCatalog: the weights are unknown.
    """
    with runtime.catalog.read() as db:
        found = model_rows.get_weights(db, weights_id)
        champion = model_rows.find_champion(db)
        verdicts = model_rows.list_verdicts(db, challenger_id=weights_id)
        evaluation = _held_out(db, weights_id)
        decision = _decision(db, weights_id)
        epochs = training_rows.list_epochs(db, found.run_id) if found.run_id else []
    return {
        "weights": found,
        "is_champion": champion is not None and champion.weights_id == weights_id,
        "decision": decision,
        "facts": {
            name: value for name, value in sorted(found.metadata.items()) if isinstance(value, str | int | float | list)
        },
        "verdicts": [{"verdict": verdict, "reasons": _reasons(verdict)} for verdict in verdicts],
        "metrics": _metrics(evaluation),
        "has_report": evaluation is not None and "html" in evaluation.report,
        "curve": curve(epochs),
        "files": {"weights": runtime.store.uri_of(found.key)}
        | {name: runtime.store.uri_of(stored["key"]) for name, stored in found.companions.items()},
    }


def thumbnail(runtime: Runtime, mask_id: str) -> tuple[bytes, str]:
    """Return the thumbnail of a mask and its media type: WebP, or PNG for a mask of an earlier release.

    Raises:
        NotInCatalog: the mask is unknown.
        ObjectMissing: the store lacks the thumbnail.
        ObjectCorrupt: its bytes do not match their checksum.
    """
    with runtime.catalog.read() as db:
        stored = model_rows.get_mask(db, mask_id).companions["thumbnail"]
    media_type = "image/webp" if stored["key"].endswith(".webp") else "image/png"
    return runtime.store.get(stored["key"], stored["sha256"]), media_type


def report(runtime: Runtime, weights_id: str) -> bytes:
    """Return the HTML of the newest held-out evaluation of weights.

    Raises:
        NotInCatalog: the weights are unknown or have no report.
        ObjectMissing: the store lacks the report.
        ObjectCorrupt: its bytes do not match their checksum.
    """
    with runtime.catalog.read() as db:
        model_rows.get_weights(db, weights_id)
        evaluation = _held_out(db, weights_id)
    if evaluation is None or "html" not in evaluation.report:
        raise NotInCatalog("these weights have no report", subject=weights_id, next_step="Run `cloudseg evaluate`.")
    stored = evaluation.report["html"]
    return runtime.store.get(stored["key"], stored["sha256"])


def _counts(db: Connection, champion: Promotion | None) -> Values:
    return {
        "scenes": scene_rows.count_scenes(db),
        "labels": scene_rows.count_labeled_scenes(db),
        "proposed": label_rows.count_in_state(db, "proposed"),
        "masks": db.execute(select(func.count()).select_from(t.mask)).scalar_one(),
        "waiting": scene_rows.count_scenes_without_mask(db, champion.weights_id) if champion else 0,
        "quarantined": db.execute(select(func.count()).select_from(t.quarantine)).scalar_one(),
    }


def _models(db: Connection, champion: Promotion | None) -> list[Values]:
    return [
        _model(db, found, champion, model_rows.find_verdict(db, found.weights_id))
        for found in model_rows.list_weights(db, limit=_MODELS)
    ]


def _model(db: Connection, found: Weights, champion: Promotion | None, verdict: Verdict | None) -> Values:
    evaluation = _held_out(db, found.weights_id)
    return {
        "weights": found,
        "is_champion": champion is not None and champion.weights_id == found.weights_id,
        "recipe": found.metadata.get("recipe_name"),
        "metrics": _metrics(evaluation),
        "verdict": verdict,
        "decision": _decision(db, found.weights_id),
        "reasons": _reasons(verdict) if verdict else [],
        "has_report": evaluation is not None and "html" in evaluation.report,
    }


def _decision(db: Connection, weights_id: str) -> Decision | None:
    """Return the rejection of weights, else the open request for approval.

    None if the weights became champion or no approval was requested.
    """
    if any(promotion.weights_id == weights_id for promotion in model_rows.list_promotions(db)):
        return None
    found = model_rows.list_decisions(db, weights_id)
    return next((entry for kind in ("declined", "asked") for entry in found if entry.decision == kind), None)


def _held_out(db: Connection, weights_id: str) -> Evaluation | None:
    return next((found for found in model_rows.list_evaluations(db, weights_id) if found.split == "held_out"), None)


def _metrics(evaluation: Evaluation | None) -> dict[str, float | None]:
    """Return the metrics that the tables show, None for those that the evaluation lacks."""
    pooled = evaluation.metrics if evaluation else {}
    mean = pooled.get("scene_mean", {})
    names = ("iou", "f1", "precision", "recall", "balanced_accuracy")
    return {**{name: pooled.get(name) for name in names}, "scene_mean_iou": mean.get("iou")}


def _reasons(verdict: Verdict) -> list[str]:
    return [str(reason) for reason in verdict.body.get("reasons", [])]


def _run(db: Connection, run: Run) -> Values:
    epochs = training_rows.list_epochs(db, run.run_id)
    return {
        "run": run,
        "epochs": list(reversed(epochs[-5:])),
        "newest": epochs[-1] if epochs else None,
        "curve": curve(epochs),
    }


def _mask(db: Connection, found: Mask, champion: Promotion | None) -> Values:
    return {
        "mask": found,
        "scene": scene_rows.get_scene(db, found.scene_id),
        "is_champions": champion is not None and champion.weights_id == found.weights_id,
    }


def curve(epochs: Sequence[Epoch]) -> str | None:
    """Return the validation IoU over the epochs as points of an SVG polyline, None for fewer than two epochs.

    The bottom of the polyline's box is 0, the top is 1.
    """
    values = [
        epoch.metrics["validation_iou"]
        for epoch in epochs
        if isinstance(epoch.metrics.get("validation_iou"), int | float)
    ]
    if len(values) < 2:
        return None
    width, height = _CURVE
    return " ".join(
        f"{index * width / (len(values) - 1):.1f},{(1 - value) * height:.1f}" for index, value in enumerate(values)
    )


def percent(value: float | None) -> str:
    """Return a fraction in whole percent."""
    return "–" if value is None else f"{value:.0%}"


def figure(value: float | None) -> str:
    """Return a metric with three decimals."""
    return "–" if value is None else f"{value:.3f}"


def moment(value: datetime | None) -> str:
    """Return a time to the minute."""
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M} UTC"


def day(value: datetime | None) -> str:
    """Return a date."""
    return "no date" if value is None else f"{value:%Y-%m-%d}"


def size(value: int) -> str:
    """Return a size in bytes, as kilobytes or megabytes."""
    return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{math.ceil(value / 1e3)} kB"
