"""What is known about a model besides its metrics: size, threshold, int8, speed. Read from rows and its card."""

import re
from collections.abc import Sequence
from typing import Final

from cloudseg.catalog import Catalog, model_rows, training_rows
from cloudseg.metrics import INT8_MAX_LABEL_CHANGE, INT8_MIN_MASK_IOU
from cloudseg.records import Epoch, Evaluation, Json, Run, Weights
from cloudseg.storage import Store

INT8: Final = "int8"
"""Name of the asset (`cloudseg.model.int8_net.INT8_ASSET`, which would import onnxruntime)."""
_ROW: Final = r"^\| {name} \| (-?[0-9.]+(?:e-?[0-9]+)?) \|$"


def model_facts(store: Store, catalog: Catalog, weights: Weights, evaluation: Evaluation) -> Json:
    """Return names, size, threshold, int8, and how the training went.

    Raises:
        ObjectMissing: the store lacks the model card.
        ObjectCorrupt: its bytes do not match their checksum.
    """
    with catalog.read() as db:
        champion = model_rows.find_champion(db)
        run = training_rows.find_run(db, weights.run_id) if weights.run_id else None
        epochs = training_rows.list_epochs(db, run.run_id) if run else []
    meta = weights.metadata
    onnx = weights.companions.get("onnx")
    return {
        "weights_id": weights.weights_id,
        "version": weights.version,
        "is_champion": champion is not None and champion.weights_id == weights.weights_id,
        "created_at": weights.as_json()["created_at"],
        "evaluation_id": evaluation.evaluation_id,
        "evaluated_on": evaluation.snapshot_id,
        "trained_on": weights.snapshot_id,
        "recipe": meta.get("recipe_name"),
        "architecture": weights.architecture,
        "widths": meta.get("widths"),
        "bands": meta.get("bands"),
        "working_resolution_m": meta.get("working_resolution_m"),
        "threshold": evaluation.threshold,
        "parameters": meta.get("total_parameters"),
        "bytes": weights.size,
        "onnx_bytes": onnx["size"] if onnx else None,
        "int8": int8_facts(store, weights),
        "training": _training(run, epochs),
    }


def int8_facts(store: Store, weights: Weights) -> Json:
    """Return whether an int8 file was published with weights, its size, and why or why not in a sentence.

    The agreement of int8 with fp32 is measured after the weights are packed, so only the model card holds it.
    """
    stored, card = weights.companions.get(INT8), weights.companions.get("card")
    text = store.get(card["key"], card["sha256"]).decode("utf-8", "replace") if card else ""
    mask, change = (_figure(text, name) for name in ("int8_mask_iou_against_fp32", "int8_validation_iou_change"))
    size = stored["size"] if stored else None
    if mask is None or change is None:
        why = "no int8 file was published" if stored is None else "published"
        return {"published": stored is not None, "bytes": size, "why": f"{why}; the agreement was not recorded"}
    limits = f"at least {INT8_MIN_MASK_IOU:.2f} and a change of at most {INT8_MAX_LABEL_CHANGE:.3f} are needed"
    found = f"mask IoU against fp32 {mask:.4f}, change of the validation IoU {change:+.4f}"
    verdict = "accepted" if stored is not None else f"not accepted, {limits}"
    return {"published": stored is not None, "bytes": size, "why": f"{verdict}: {found}"}


def _figure(card: str, name: str) -> float | None:
    found = re.search(_ROW.format(name=re.escape(name)), card, re.MULTILINE)
    return float(found[1]) if found else None


def _training(run: Run | None, epochs: Sequence[Epoch]) -> Json | None:
    """Return device, duration and speed of a training, None for imported weights."""
    if run is None:
        return None
    speeds = [float(epoch.metrics["images_per_s"]) for epoch in epochs if "images_per_s" in epoch.metrics]
    return {
        "run_id": run.run_id,
        "device": run.device,
        "minutes": (run.finished_at - run.created_at).total_seconds() / 60 if run.finished_at else None,
        "steps": epochs[-1].step if epochs else None,
        "images_per_s": sum(speeds) / len(speeds) if speeds else None,
    }
