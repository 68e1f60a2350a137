"""One training from ids to a record: rows, checks, resume, the loop, registration."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cloudseg.catalog import Catalog, model_rows, scene_rows, training_rows
from cloudseg.catalog.session import now
from cloudseg.dataset.chips import open_chips
from cloudseg.errors import CheckpointMismatch, CloudsegError, SettingsError
from cloudseg.model.device import Device, set_up
from cloudseg.model.weights import load_weights
from cloudseg.recipe import Recipe, is_same_training
from cloudseg.records import Epoch, Run, RunStatus, Snapshot, TrainRecord, Weights
from cloudseg.registry import find_champion
from cloudseg.signals import listen_for_stop
from cloudseg.storage import Store
from cloudseg.train.budget import LONGEST, plan_training
from cloudseg.train.checkpoint import Checkpoints, Tensors, TrainingProgress, TrainingState
from cloudseg.train.compiler_cache import private_compiler_cache
from cloudseg.train.data import TrainingData, select_data
from cloudseg.train.distributed import DistributedContext, open_process_group
from cloudseg.train.finish import pack_result, register_result
from cloudseg.train.loop import Loop, OnProgress
from cloudseg.train.trainer import Trainer
from cloudseg.train.validate import Validator

log = logging.getLogger(__name__)


def train_run(
    store: Store,
    catalog: Catalog,
    *,
    snapshot_id: str,
    recipe: Recipe,
    run_id: str,
    device: Device,
    parent_weights_id: str | None = None,
    on_progress: OnProgress | None = None,
) -> TrainRecord:
    """Train a recipe on a snapshot and register the weights.

    After a kill at any step, a call with the same ids resumes from the newest checkpoint and ends with the
    weights of an uninterrupted run (same kind of device, same number of processes). A finished run is not trained
    again. Under `torchrun` all processes call it together; only the main process writes.

    Args:
        store: holds the shards; checkpoints and weights are written to it.
        catalog: destination of the run, its epochs, its checkpoints and the weights.
        snapshot_id: what to train on.
        recipe: how.
        run_id: name of the run; the same name resumes.
        device: from `choose_device`.
        parent_weights_id: warm start from these weights. None uses the champion at the time the run begins, if
            the recipe requests a warm start; a run that began before keeps the parent that it began with.
        on_progress: called with steps done, the total and a phrase; None logs a line every ten seconds.

    Returns:
        The record of the run, also of one that was finished before.

    Raises:
        EmptySplit: no training or validation chips, or only one class in them.
        CheckpointMismatch: the run id belongs to another snapshot or recipe.
        TrainingDiverged: the loss is not finite.
        Interrupted: SIGTERM or SIGINT arrived; a checkpoint was written.
        SnapshotChanged: stored chips are not what the manifest names.

    The run's row has status `failed`, with the error, after any error that a retry cannot fix.
    """
    began = time.monotonic()
    with private_compiler_cache(), open_process_group(device) as dist:
        set_up(dist.device)
        with catalog.read() as db:
            snapshot = training_rows.get_snapshot(db, snapshot_id)
        run = _begin(catalog, snapshot, recipe, run_id, dist, parent_weights_id)
        if (finished := _find_weights(catalog, run)) is not None:
            if dist.is_main:
                _close(store, catalog, run)  # an earlier process may have been killed before this
            dist.barrier()
            return _record(catalog, run, finished, resumed_from=None, seconds=0.0)
        log.info(
            "run %s starts: snapshot %s, recipe %s %s, parent %s, %s, %d process(es)",
            run_id,
            snapshot_id,
            recipe.name,
            recipe.recipe_hash[:12],
            run.parent_weights_id,
            dist.device.reason,
            dist.world_size,
        )
        with (
            _failure_recorded(catalog, run.run_id, dist),
            _memory_explained(recipe),
            open_chips(store, snapshot, verify=dist.is_main) as chip_set,
        ):
            data = select_data(chip_set, recipe, snapshot_id=snapshot_id)
            weights, resumed_from = _train(store, catalog, run, recipe, data, dist, on_progress, began)
        record = _record(catalog, run, weights, resumed_from=resumed_from, seconds=time.monotonic() - began)
        log.info("run %s ends: weights %s after %d steps", run.run_id, record.weights_id, record.steps)
        return record


def _train(
    store: Store,
    catalog: Catalog,
    run: Run,
    recipe: Recipe,
    data: TrainingData,
    dist: DistributedContext,
    on_progress: OnProgress | None,
    began: float,
) -> tuple[Weights, int | None]:
    """Train from the newest checkpoint or the beginning, and register the result.

    Returns:
        The weights, and the step of the checkpoint from which the run was resumed (None: it began here).
    """
    checkpoints = Checkpoints(store, catalog, run)
    state = checkpoints.load_newest()
    dist.barrier()  # no process may delete a checkpoint before every process has read it
    parent = _load_parent(store, catalog, run, recipe)
    validator = Validator(data, recipe.budget.batch_size, dist)
    if state is None:
        progress = TrainingProgress(step=0, total_steps=LONGEST, epoch_steps=1)
        trainer = Trainer(recipe, data, dist, progress, parent)
        plan_training(recipe.budget, trainer, validator, dist, spent_s=time.monotonic() - began)
        progress.spent_s = time.monotonic() - began
    else:
        trainer = Trainer(recipe, data, dist, state.progress, parent)
        trainer.load_state(state)
        _log_resume(run, state, dist)
    resumed_from = state.progress.step if state is not None else None
    loop = Loop(
        trainer,
        validator,
        budget=recipe.budget,
        dist=dist,
        run_id=run.run_id,
        catalog=catalog,
        checkpoints=checkpoints,
        on_progress=on_progress,
    )
    if state is None:
        loop.save_checkpoint()  # records the first plan
    with listen_for_stop() as request:
        loop.run(request)
    packed, meta = pack_result(trainer, validator, data, run, recipe, _label_sources(catalog, run.snapshot_id))
    if dist.is_main:
        register_result(store, catalog, run, data, packed, meta)
        _close(store, catalog, run)
    dist.barrier()
    weights = _find_weights(catalog, run)
    if weights is None:
        raise CheckpointMismatch(
            "the run has no weights after its end", subject=run.run_id, next_step="Start it again."
        )
    return weights, resumed_from


def _log_resume(run: Run, state: TrainingState, dist: DistributedContext) -> None:
    log.info("run %s resumes at step %d of %d", run.run_id, state.progress.step, state.progress.total_steps)
    if state.world_size != dist.world_size:
        log.warning(
            "run %s resumes with %d processes instead of %d: its weights will differ from an uninterrupted run",
            run.run_id,
            dist.world_size,
            state.world_size,
        )


def _load_parent(store: Store, catalog: Catalog, run: Run, recipe: Recipe) -> Tensors | None:
    """Return the parent's parameters, None for a cold start or a parent that does not fit the recipe's net."""
    if run.parent_weights_id is None:
        return None
    with catalog.read() as db:
        parent = model_rows.get_weights(db, run.parent_weights_id)
    loaded = load_weights(store.get(parent.key, parent.sha256))
    own = (recipe.model.architecture, recipe.model.bands, recipe.model.widths)
    others = (loaded.meta.architecture, loaded.meta.bands, loaded.meta.widths)
    if own != others:
        log.warning(
            "run %s starts cold: its parent %s is %s, the recipe has %s", run.run_id, parent.weights_id, others, own
        )
        return None
    return loaded.net.state_dict()


# --- rows -------------------------------------------------------------------------------------------------------------


def _begin(
    catalog: Catalog,
    snapshot: Snapshot,
    recipe: Recipe,
    run_id: str,
    dist: DistributedContext,
    parent_weights_id: str | None,
) -> Run:
    """Add the run's row, or find the one of an earlier start.

    Raises:
        CheckpointMismatch: the run began with another snapshot, recipe or parent.
    """
    if dist.is_main:
        parent = (parent_weights_id or _champion_id(catalog)) if recipe.warm_start else None
        row = Run(
            run_id=run_id,
            snapshot_id=snapshot.snapshot_id,
            recipe_name=recipe.name,
            recipe_hash=recipe.recipe_hash,
            recipe=recipe.model_dump(mode="json"),
            parent_weights_id=parent,
            seed=recipe.seed,
            status="running",
            device=dist.device.kind,
            device_reason=dist.device.reason,
            error=None,
            created_at=now(),
            finished_at=None,
        )
        with catalog.begin() as db:
            training_rows.add_run(db, row)
    dist.barrier()
    with catalog.read() as db:
        run = training_rows.get_run(db, run_id)
    _check_same_training(run, snapshot, recipe, parent_weights_id or run.parent_weights_id)
    if dist.is_main and run.status == "failed":
        _set_status(catalog, run_id, "running")
    return run


def _check_same_training(run: Run, snapshot: Snapshot, recipe: Recipe, parent_weights_id: str | None) -> None:
    """Raise CheckpointMismatch unless the run began with this snapshot, recipe and parent.

    Recipes are compared by value, not by hash: a run that began under an earlier release may name values differently.
    """
    for name, found, expected, is_same in (
        ("snapshot", snapshot.snapshot_id, run.snapshot_id, snapshot.snapshot_id == run.snapshot_id),
        ("recipe", recipe.recipe_hash, run.recipe_hash, is_same_training(run.recipe, recipe)),
        ("parent", parent_weights_id, run.parent_weights_id, parent_weights_id == run.parent_weights_id),
    ):
        if not is_same:
            raise CheckpointMismatch(
                f"the run began with another {name}",
                subject=run.run_id,
                found=found,
                expected=expected,
                next_step=f"Use the {name} that the run began with, or another run id.",
            )


def _champion_id(catalog: Catalog) -> str | None:
    champion = find_champion(catalog)
    return champion.weights_id if champion else None


def _find_weights(catalog: Catalog, run: Run) -> Weights | None:
    """Return the weights of a finished run, or None."""
    with catalog.read() as db:
        return model_rows.find_weights_of_run(db, run.run_id)


def _close(store: Store, catalog: Catalog, run: Run) -> None:
    """Mark the run as finished and delete its checkpoints; what is done already is unchanged."""
    with catalog.read() as db:
        finished = training_rows.get_run(db, run.run_id).status == "finished"
    if not finished:
        _set_status(catalog, run.run_id, "finished")
    Checkpoints(store, catalog, run).clear()


def _set_status(catalog: Catalog, run_id: str, status: RunStatus, error: str | None = None) -> None:
    with catalog.begin() as db:
        training_rows.set_run_status(db, run_id, status, error=error)


@contextmanager
def _failure_recorded(catalog: Catalog, run_id: str, dist: DistributedContext) -> Iterator[None]:
    """Record what ended the run in its row: status `failed` and the error.

    If the same call can resume later the run stays `running`, as after SIGKILL: a signal stopped it (Interrupted,
    KeyboardInterrupt, SystemExit), or store or catalog could not be reached. A failed run resumes from its newest
    checkpoint too when it is called again.
    """
    try:
        yield
    except Exception as error:
        if dist.is_main and not (isinstance(error, CloudsegError) and error.retry_helps):
            reason = str(error) if isinstance(error, CloudsegError) else f"unexpected {type(error).__name__}: {error}"
            try:
                _set_status(catalog, run_id, "failed", reason)
            except Exception:  # the error that ended the run must not be hidden by a later one
                log.exception("run %s failed, and its row could not be updated", run_id)
        raise


@contextmanager
def _memory_explained(recipe: Recipe) -> Iterator[None]:
    """Turn torch's error about memory of the machine, which has no class of its own, into what a person can change.

    Other processes may use the memory of a GPU too, so a retry can help there: its error is left as it is.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        raise SettingsError(
            "the training needs more memory than this machine has",
            subject=f"recipe {recipe.name}",
            found=" ".join(str(error).split())[:200] or type(error).__name__,
            next_step="Lower budget.batch_size, data.crop_size or model.widths in the recipe.",
        ) from error


def _label_sources(catalog: Catalog, snapshot_id: str) -> tuple[str, ...]:
    with catalog.read() as db:
        label_ids = training_rows.list_snapshot_labels(db, snapshot_id)
        return tuple(sorted({scene_rows.get_label(db, label_id).source for label_id in label_ids}))


def _record(catalog: Catalog, run: Run, weights: Weights, *, resumed_from: int | None, seconds: float) -> TrainRecord:
    with catalog.read() as db:
        epochs = training_rows.list_epochs(db, run.run_id)
    return TrainRecord(
        run_id=run.run_id,
        snapshot_id=run.snapshot_id,
        weights_id=weights.weights_id,
        steps=epochs[-1].step if epochs else 0,
        epochs=len(epochs),
        resumed_from_step=resumed_from,
        seconds=round(seconds, 1),
        images_per_s=_mean_speed(epochs),
        metrics={**weights.metadata["metrics"], "threshold": weights.metadata["threshold"]},
    )


def _mean_speed(epochs: list[Epoch]) -> float | None:
    speeds = [float(epoch.metrics["images_per_s"]) for epoch in epochs if "images_per_s" in epoch.metrics]
    return round(sum(speeds) / len(speeds), 2) if speeds else None
