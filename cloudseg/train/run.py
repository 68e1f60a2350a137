"""One training from ids to a record: rows, checks, resume, the loop, registration."""

import logging
import time

from cloudseg.catalog import Catalog, model_rows, scene_rows, training_rows
from cloudseg.catalog.session import now
from cloudseg.dataset.chips import ChipSet, open_chips
from cloudseg.errors import CheckpointMismatch, EmptySplit, TrainingDiverged
from cloudseg.model.device import Device, set_up
from cloudseg.model.weights import load_weights
from cloudseg.recipe import Recipe
from cloudseg.records import Chip, Epoch, Run, RunStatus, Snapshot, Split, TrainRecord, Weights
from cloudseg.registry import find_champion
from cloudseg.storage import Store
from cloudseg.train import budget
from cloudseg.train.batch import choose_chips
from cloudseg.train.checkpoint import Checkpoints, State, Tensors
from cloudseg.train.finish import pack_result, register_result
from cloudseg.train.group import Group, join_group
from cloudseg.train.loop import Loop, OnProgress
from cloudseg.train.stop import listen_for_stop
from cloudseg.train.trainer import Setting, Trainer

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

    Killed at any step and called again with the same ids, it goes on from the newest checkpoint and ends with the
    weights of an undisturbed run (same kind of device, same number of processes). A finished run is not trained again:
    its record is given back. Under `torchrun` all processes call it together; only the first writes.

    Args:
        store: holds the shards, takes checkpoints and weights.
        catalog: takes the run, its epochs, its checkpoints and the weights.
        snapshot_id: what to train on.
        recipe: how.
        run_id: name of the run; the same name resumes.
        device: from `choose_device`.
        parent_weights_id: warm start from these. None takes the champion of the moment when the run begins, if the
            recipe
            wants a warm start; a run that began before keeps the parent that it began with.
        on_progress: gets steps done, steps in all and a phrase; None logs a line every ten seconds.

    Raises:
        EmptySplit: no training or validation chips, or only one class in them.
        CheckpointMismatch: the run id belongs to another snapshot or recipe.
        TrainingDiverged: the loss is not finite; the run is marked as failed.
        Interrupted: SIGTERM or SIGINT came; a checkpoint was written.
        SnapshotChanged: stored chips are not what the manifest names.
    """
    begun = time.monotonic()
    with join_group(device) as group:
        set_up(group.device)
        with catalog.read() as db:
            snapshot = training_rows.get_snapshot(db, snapshot_id)
        run = _begin(catalog, snapshot, recipe, run_id, group, parent_weights_id)
        if (done := _find_result(catalog, run)) is not None:
            if group.leads:
                _close(
                    catalog, run.run_id, Checkpoints(store, catalog, run)
                )  # a kill between its last rows is made good here
            group.wait()
            return _record(catalog, run, done, resumed_from=None, seconds=0.0)
        log.info(
            "run %s starts: snapshot %s, recipe %s %s, parent %s, %s, %d process(es)",
            run_id,
            snapshot_id,
            recipe.name,
            recipe.recipe_hash[:12],
            run.parent_weights_id,
            group.device.reason,
            group.world,
        )
        with open_chips(store, snapshot, verify=group.leads) as chip_set:
            setting = _prepare(store, catalog, chip_set, run, recipe, group)
            return _train(store, catalog, setting, on_progress, begun)


def _train(
    store: Store, catalog: Catalog, setting: Setting, on_progress: OnProgress | None, begun: float
) -> TrainRecord:
    run, group = setting.run, setting.group
    checkpoints = Checkpoints(store, catalog, run)
    state = checkpoints.newest()
    group.wait()  # nobody may delete a checkpoint before everybody has read it
    trainer, resumed_from = _resume(setting, state, begun)
    loop = Loop(trainer, catalog, checkpoints, on_progress)
    if state is None:
        loop.checkpoint()  # puts the number of steps down before the first one
    try:
        with listen_for_stop() as request:
            loop.run(request)
        data, meta = pack_result(trainer, _label_sources(catalog, run.snapshot_id))
    except TrainingDiverged as error:
        if group.leads:
            _set_status(catalog, run.run_id, "failed", str(error))
        raise
    if group.leads:
        register_result(store, catalog, setting, data, meta)
        _close(catalog, run.run_id, checkpoints)
    group.wait()
    with catalog.read() as db:
        weights = model_rows.find_weights_of_run(db, run.run_id)
    if weights is None:
        raise CheckpointMismatch(
            "the run has no weights after its end", subject=run.run_id, next_step="Start it again."
        )
    record = _record(catalog, run, weights, resumed_from=resumed_from, seconds=time.monotonic() - begun)
    log.info("run %s ends: %s", run.run_id, record.as_json())
    return record


def _resume(setting: Setting, state: State | None, begun: float) -> tuple[Trainer, int | None]:
    if state is None:
        spent = time.monotonic() - begun
        progress = budget.plan(setting, already_spent_s=spent)
        progress.spent_s = time.monotonic() - begun
        return Trainer(setting, progress), None
    trainer = Trainer(setting, state.progress)
    trainer.load(state)
    if state.world != setting.group.world:
        log.warning(
            "run %s goes on with %d processes instead of %d", setting.run.run_id, setting.group.world, state.world
        )
    log.info("run %s resumes at step %d of %d", setting.run.run_id, state.progress.step, state.progress.total_steps)
    return trainer, state.progress.step


# --- rows -----------------------------------------------------------------------------------------------------------


def _begin(
    catalog: Catalog, snapshot: Snapshot, recipe: Recipe, run_id: str, group: Group, parent_weights_id: str | None
) -> Run:
    """Add the run's row, or find the one of an earlier start. Raises CheckpointMismatch for another question."""
    if group.leads:
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
            device=group.device.kind,
            device_reason=group.device.reason,
            error=None,
            created_at=now(),
            finished_at=None,
        )
        with catalog.begin() as db:
            run = training_rows.add_run(db, row)
            if run.status == "failed":
                training_rows.set_run_status(db, run_id, "running")
    group.wait()
    with catalog.read() as db:
        run = training_rows.get_run(db, run_id)
    for name, found, expected in (
        ("snapshot", snapshot.snapshot_id, run.snapshot_id),
        ("recipe", recipe.recipe_hash, run.recipe_hash),
        ("parent", parent_weights_id or run.parent_weights_id, run.parent_weights_id),
    ):
        if found != expected:
            raise CheckpointMismatch(
                f"the run began with another {name}",
                subject=run_id,
                found=found,
                expected=expected,
                next_step=f"Give the {name} that the run began with, or another run id.",
            )
    return run


def _champion_id(catalog: Catalog) -> str | None:
    champion = find_champion(catalog)
    return champion.weights_id if champion else None


def _find_result(catalog: Catalog, run: Run) -> Weights | None:
    """Return the weights of a run that is through, or None."""
    with catalog.read() as db:
        return model_rows.find_weights_of_run(db, run.run_id)


def _close(catalog: Catalog, run_id: str, checkpoints: Checkpoints) -> None:
    """Say that the run is finished and forget its checkpoints; what is done already stays as it is."""
    with catalog.read() as db:
        finished = training_rows.get_run(db, run_id).status == "finished"
    if not finished:
        _set_status(catalog, run_id, "finished")
    checkpoints.clear()


def _set_status(catalog: Catalog, run_id: str, status: RunStatus, error: str | None = None) -> None:
    with catalog.begin() as db:
        training_rows.set_run_status(db, run_id, status, error=error)


def _label_sources(catalog: Catalog, snapshot_id: str) -> tuple[str, ...]:
    with catalog.read() as db:
        return tuple(
            sorted(
                {
                    scene_rows.get_label(db, label_id).source
                    for label_id in training_rows.list_snapshot_labels(db, snapshot_id)
                }
            )
        )


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


# --- data -----------------------------------------------------------------------------------------------------------


def _prepare(store: Store, catalog: Catalog, chip_set: ChipSet, run: Run, recipe: Recipe, group: Group) -> Setting:
    if tuple(chip_set.bands) != recipe.model.bands or chip_set.chip_size != recipe.data.chip_size:
        raise CheckpointMismatch(
            "the snapshot was cut for another recipe",
            subject=run.snapshot_id,
            found=f"{chip_set.chip_size} pixels of {' '.join(chip_set.bands)}",
            expected=f"{recipe.data.chip_size} pixels of {' '.join(recipe.model.bands)}",
            next_step=f"Run `cloudseg snapshot --recipe {recipe.name}` and train on what it gives.",
        )
    train_chips = choose_chips(chip_set.of("train"), recipe)
    validation_chips = sorted(chip_set.of("validation"), key=lambda chip: chip.chip_id)
    _check_split(chip_set, "train", train_chips)
    _check_split(chip_set, "validation", validation_chips)
    return Setting(
        run=run,
        recipe=recipe,
        chip_set=chip_set,
        group=group,
        train_chips=train_chips,
        validation_chips=validation_chips,
        warm=_warm(store, catalog, run, recipe),
    )


def _check_split(chip_set: ChipSet, split: Split, chips: list[Chip]) -> None:
    cloudy = sum(chip.cloud_fraction > 0 for chip in chips)
    clear = sum(chip.cloud_fraction < 1 for chip in chips)
    if cloudy and clear:
        return
    counts = ", ".join(f"{name} {len(chip_set.of(name))}" for name in ("train", "validation", "held_out"))
    raise EmptySplit(
        f"the {split} split has no chips"
        if not chips
        else f"the {split} split has only {'cloud' if cloudy else 'clear ground'}",
        subject=f"{split} split",
        found=f"chips: {counts}; of those used in {split} {cloudy} with cloud, {clear} with clear ground",
        expected="both classes in train and in validation",
        next_step="Ingest labelled scenes of more places: each place falls into one split by its name.",
    )


def _warm(store: Store, catalog: Catalog, run: Run, recipe: Recipe) -> Tensors | None:
    """Return the parent's parameters where they fit the recipe's net."""
    if run.parent_weights_id is None:
        return None
    with catalog.read() as db:
        parent = model_rows.get_weights(db, run.parent_weights_id)
    loaded = load_weights(store.get(parent.key, parent.sha256))
    mine = (recipe.model.architecture, recipe.model.bands, recipe.model.widths)
    theirs = (loaded.meta.architecture, loaded.meta.bands, loaded.meta.widths)
    if mine != theirs:
        log.warning(
            "run %s starts cold: its parent %s is %s, the recipe wants %s", run.run_id, parent.weights_id, theirs, mine
        )
        return None
    return loaded.net.state_dict()
