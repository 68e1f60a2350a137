"""Stage: evaluate weights on places that they were not trained on."""

from cloudseg.catalog import names, removal_rows, training_rows
from cloudseg.errors import NotInCatalog
from cloudseg.records import EvaluateRecord, Evaluation, Split, Weights
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import log
from cloudseg.stages.compute import open_device, open_opinion


def evaluate(weights_id: str, *, snapshot_id: str | None = None, split: Split = "held_out") -> EvaluateRecord:
    """Evaluate weights on a split of a snapshot and store the report.

    The same weights on the same split are evaluated once; running it twice returns the same record.

    Args:
        weights_id: the weights: an id, a version (`v31`) or `champion`.
        snapshot_id: by default that of their training, for imported weights the newest one.
        split: `held_out` is the test split: no training and no threshold uses its places.

    Raises:
        NotInCatalog: an id is unknown, or there is no snapshot.
        DataError: the snapshot lacks a band that the weights need.
        EmptySplit: the snapshot has no chips of this split.
        SettingsError: torch is not installed, the device of the settings is missing, or a second opinion is set and
            its extra is not installed.
    """
    return run_evaluation(open_runtime(), weights_id, snapshot_id=snapshot_id, split=split)


def run_evaluation(
    runtime: Runtime, weights_id: str, *, snapshot_id: str | None = None, split: Split = "held_out"
) -> EvaluateRecord:
    """Evaluate as `evaluate` does, with an open runtime."""
    weights, snapshot_id = resolve_evaluation_target(runtime, weights_id, snapshot_id)
    log.started("evaluate", weights_id=weights.weights_id, snapshot_id=snapshot_id, split=split)
    opinion = open_opinion(runtime)
    device = open_device(runtime)
    from cloudseg.evaluate.evaluation import evaluate_weights

    evaluation = evaluate_weights(
        runtime.store,
        runtime.catalog,
        weights_id=weights.weights_id,
        snapshot_id=snapshot_id,
        split=split,
        device=device,
        teacher=opinion,
        on_progress=log.progress("evaluate"),
    )
    record = _record(runtime, evaluation)
    log.ended("evaluate", record)
    return record


def resolve_evaluation_target(runtime: Runtime, weights_id: str, snapshot_id: str | None) -> tuple[Weights, str]:
    """Return the weights and the snapshot to evaluate them on: the given one, else their own, else the newest one.

    The newest one also for weights whose own is retired: a place keeps its split, so none of its held-out places was
    ever among their training places.

    Raises:
        NotInCatalog: an id is unknown, or there is no snapshot.
        StateError: the given snapshot is retired.
    """
    with runtime.catalog.read() as db:
        weights = names.get_weights(db, weights_id)
        own = weights.snapshot_id
        wanted = snapshot_id or (own if own and removal_rows.find_retired(db, own) is None else None)
        if wanted is not None:
            return weights, training_rows.get_snapshot(db, names.get_id(db, "snapshot", wanted)).snapshot_id
        newest = training_rows.list_snapshots(db, limit=1)
    if not newest:
        raise NotInCatalog(
            "there is no snapshot to evaluate on", subject=weights_id, next_step="Run `cloudseg snapshot` first."
        )
    return weights, newest[0].snapshot_id


def _record(runtime: Runtime, evaluation: Evaluation) -> EvaluateRecord:
    report = str(evaluation.report["html"]["key"])
    return EvaluateRecord(
        evaluation_id=evaluation.evaluation_id,
        weights_id=evaluation.weights_id,
        snapshot_id=evaluation.snapshot_id,
        threshold=evaluation.threshold,
        metrics=evaluation.metrics,
        report_key=report,
        report_uri=runtime.store.uri_of(report),
    )
