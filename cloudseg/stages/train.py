"""Stage: train a recipe on a snapshot."""

from cloudseg.catalog import names
from cloudseg.recipe import Recipe, load_recipe
from cloudseg.records import TrainRecord
from cloudseg.registry.due import run_id_of
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import log
from cloudseg.stages.compute import open_device, open_opinion
from cloudseg.stages.stac import publish_stac


def train(
    snapshot_id: str, *, recipe: str = "nightly", run_id: str | None = None, minutes: float | None = None
) -> TrainRecord:
    """Train and register weights.

    A run that was killed resumes from its newest checkpoint; a run that is finished is not trained again: its record is
    returned.

    Args:
        snapshot_id: an id, or how one begins: whose training and validation chips to use.
        recipe: name or path.
        run_id: run to begin or resume; follows from snapshot, recipe and parent weights when not given.
        minutes: time budget instead of the recipe's.

    Raises:
        NotInCatalog: the snapshot is unknown.
        SettingsError: torch is not installed, the device of the settings is missing, or a second opinion is set for
            evaluations and its extra is not installed.
    """
    runtime, wanted = open_runtime(), load_recipe(recipe).with_minutes(minutes)
    with runtime.catalog.read() as db:
        snapshot_id = names.get_id(db, "snapshot", snapshot_id)
        run_id = run_id or run_id_of(db, snapshot_id, wanted)
    return run_training(runtime, wanted, snapshot_id=snapshot_id, run_id=run_id)


def run_training(runtime: Runtime, recipe: Recipe, *, snapshot_id: str, run_id: str) -> TrainRecord:
    """Do what `train` does, with a runtime that is open and a recipe that is read."""
    log.started(
        "train",
        run_id=run_id,
        snapshot_id=snapshot_id,
        recipe=recipe.name,
        recipe_hash=recipe.recipe_hash,
        minutes=recipe.budget.minutes,
    )
    open_opinion(runtime)  # the evaluation that follows needs it: a missing extra must not cost the hours of a training
    device = open_device(runtime, precision=recipe.precision)
    from cloudseg.train import train_run

    record = train_run(
        runtime.store,
        runtime.catalog,
        snapshot_id=snapshot_id,
        recipe=recipe,
        run_id=run_id,
        device=device,
        on_progress=log.progress("train"),
    )
    publish_stac(runtime)
    log.ended("train", record)
    return record
