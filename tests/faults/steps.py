"""The pipeline's steps, called as a task would call them: ids in, ids out.

Each brings the service from one state to the next.
"""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from cloudseg import keys, stages
from cloudseg.catalog import model_rows, training_rows
from cloudseg.records import Checkpoint, Evaluation, StoredObject, Weights
from cloudseg.runtime import Runtime, open_runtime

RECIPE = str(Path(__file__).parent / "tiny.toml")
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
FAR_FUTURE = "2100-01-01T00:00:00Z"
Ids = dict[str, str]


def first_ingest(ids: Ids) -> Ids:
    stages.ingest(ids["inbox"])
    return {}


def add_files(ids: Ids) -> Ids:
    """Copy the second delivery of files into the inbox."""
    shutil.copytree(ids["later"], ids["inbox"], dirs_exist_ok=True)
    return {}


def ingest(ids: Ids) -> Ids:
    """Ingest the second delivery.

    It has two new scenes, one with a label, a corrected label, a bad file, and a file that was truncated the first time
    and is now complete.
    """
    stages.ingest(ids["inbox"])
    return {}


def accept(ids: Ids) -> Ids:
    """Accept the corrected label of the second delivery, which waits."""
    labels = stages.labels(limit=None)
    (waiting,) = [label["label_id"] for label in labels if label["version"] == 2]
    stages.accept_labels([waiting], actor="test", reason="looks right")
    return {"accepted": waiting}


def snapshot(ids: Ids) -> Ids:
    return {"snapshot": stages.snapshot(RECIPE).snapshot_id}


def train_champion(ids: Ids) -> Ids:
    """Train, evaluate and promote the first champion."""
    weights_id = stages.train(ids["snapshot"], recipe=RECIPE, run_id="run-first").weights_id
    stages.evaluate(weights_id)
    stages.promote(weights_id, force=True, reason="first champion", actor="test")
    scene_ids = sorted(scene["scene_id"] for scene in stages.scenes(limit=None))
    return {"champion": weights_id, "scene_a": scene_ids[0], "scene_b": scene_ids[1]}


def train(ids: Ids) -> Ids:
    return {"challenger": stages.train(ids["snapshot"], recipe=RECIPE, run_id="run-second").weights_id}


def evaluate(ids: Ids) -> Ids:
    return {"evaluation": stages.evaluate(ids["challenger"]).evaluation_id}


def promote(ids: Ids) -> Ids:
    """Compare the challenger with the champion (which stores a verdict), then promote it."""
    record = stages.promote(ids["challenger"], force=True, reason="second champion", actor="test")
    return {"verdict": record.verdict_id or "", "promoted": record.champion_id or ""}


def predict(ids: Ids) -> Ids:
    record = stages.predict([ids["scene_a"], ids["scene_b"]], weights_id=ids["challenger"])
    return {"masks": ",".join(record.masks)}


def wait_for_masks(ids: Ids) -> Ids:
    """Let readers see the first champion's masks, of which there are none, until the challenger's are complete."""
    stages.switch_readers(ids["champion"], incomplete=True, actor="test", reason="until the new masks are complete")
    return {}


def backfill(ids: Ids) -> Ids:
    """Plan a night of two scenes, mask them, and switch readers, who lose no scene."""
    # The size of a scene, so that the budget is two of them. `stages.backfill` is the function, not the module.
    vars(import_module("cloudseg.stages.backfill"))["_MEGAPIXEL"] = 64 * 64
    record = stages.backfill(night="2026-11-29", megapixels=2, weights_id=ids["challenger"])
    assert record.failed == {}, record.failed
    return {"backfill": record.backfill_id or "", "readers_see": record.readers_see or ""}


def readers_back(ids: Ids) -> Ids:
    record = stages.switch_readers_back(2, actor="test", reason="worse on snow")
    return {"readers_see": record.weights_id or ""}


def rollback(ids: Ids) -> Ids:
    record = stages.rollback(ids["challenger"], actor="test", reason="worse than expected")
    return {"restored": record.weights_id}


def maintain(ids: Ids) -> Ids:
    stages.maintain(dry_run=False, orphan_hours=0, checkpoint_days=7, evaluation_days=90, as_of=ids["as_of"])
    return {}


def remove(ids: Ids) -> Ids:
    """Remove a scene that both champions were trained on, with its mask."""
    stages.remove_scene(ids["scene_a"], reason="license", actor="test")
    return {}


def drain(ids: Ids) -> Ids:
    """Mask what the challenger has not masked yet; the task that is tried again has the same name."""
    record = stages.drain(weights_id=ids["challenger"], worker="cloudseg_predict/manual__1/0")
    assert record.failed == {}, record.failed
    return {}


def leave_garbage(ids: Ids) -> Ids:
    """Create what maintenance removes or repairs.

    Orphans, a checkpoint of a finished run, an old report of rejected weights, a wrong champion pointer.
    """
    runtime = open_runtime()
    orphans = [keys.scene, keys.label, keys.snapshot_shard, lambda sha256: keys.mask("w-1", "sc-1", "mask.tif", sha256)]
    for number, key_of in enumerate(orphans):
        _put(runtime, f"orphan {number}", key_of)
    stored = _put(runtime, "an old state", lambda sha256: keys.checkpoint("run-first", 2, sha256))
    report = _put(runtime, "an old report", lambda sha256: keys.evaluation("ev-rejected", "report.html", sha256))
    parameters = _put(runtime, "rejected weights", keys.weights)
    with runtime.catalog.begin() as db:
        training_rows.add_checkpoint(
            db, Checkpoint(run_id="run-first", step=2, **stored.model_dump(), created_at=LONG_AGO)
        )
        loser = model_rows.add_weights(db, _loser(parameters))
        evaluation = Evaluation(
            evaluation_id="ev-rejected",
            weights_id=loser.weights_id,
            snapshot_id=ids["snapshot"],
            split="held_out",
            threshold=0.5,
            metrics={},
            report={"html": report.model_dump()},
            created_at=LONG_AGO,
        )
        model_rows.add_evaluation(db, evaluation)
    runtime.store.replace(keys.CHAMPION_POINTER, b"[]")
    # Maintenance computes ages relative to this time, so that the rejected weights' report and the run count as old.
    return {"as_of": FAR_FUTURE}


def _put(runtime: Runtime, text: str, key_of: Callable[[str], str]) -> StoredObject:
    data = text.encode()
    return runtime.store.put(key_of(keys.sha256_of(data)), data)


def _loser(parameters: StoredObject) -> Weights:
    return Weights(
        weights_id="w-rejected",
        version=0,
        run_id=None,
        snapshot_id=None,
        architecture="SimpleUNet",
        companions={},
        metadata={"threshold": 0.5, "bands": ["red"]},
        created_at=LONG_AGO,
        **parameters.model_dump(),
    )


STEPS = (
    first_ingest,
    add_files,
    ingest,
    accept,
    snapshot,
    train_champion,
    train,
    evaluate,
    promote,
    predict,
    wait_for_masks,
    backfill,
    readers_back,
    rollback,
    drain,
    leave_garbage,
    maintain,
    remove,
)
"""All steps in order, starting from an empty service."""
KILLED = (
    "ingest",
    "accept",
    "snapshot",
    "train",
    "evaluate",
    "promote",
    "predict",
    "backfill",
    "readers_back",
    "rollback",
    "drain",
    "maintain",
    "remove",
)
"""Steps that are killed at every commit point; the others only prepare the state in which these start."""
