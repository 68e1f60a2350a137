"""Stage: train a recipe on a snapshot."""

from sqlalchemy import Connection

from cloudseg.catalog import model as models
from cloudseg.keys import make_id
from cloudseg.recipe import Recipe, load_recipe
from cloudseg.records import TrainRecord
from cloudseg.runtime import open_runtime
from cloudseg.stages import log
from cloudseg.stages.compute import open_device


def train(
    snapshot_id: str, *, recipe: str = "nightly", run_id: str | None = None, minutes: float | None = None
) -> TrainRecord:
    """Train a recipe on a snapshot and register the weights.

    A run that was killed resumes from its newest checkpoint; a finished run is not trained again, its record is
    returned.

    Args:
        snapshot_id: what to train on.
        recipe: name of a shipped recipe, or path of a TOML file.
        run_id: names the run; None derives it from snapshot, recipe and parent weights.
        minutes: replaces the time budget of the recipe.
    """
    runtime, wanted = open_runtime(), load_recipe(recipe).with_minutes(minutes)
    if run_id is None:
        with runtime.catalog.read() as db:
            run_id = default_run_id(db, snapshot_id, wanted)
    log.started(
        "train",
        run_id=run_id,
        snapshot_id=snapshot_id,
        recipe=wanted.name,
        recipe_hash=wanted.recipe_hash,
        minutes=minutes,
    )
    device = open_device(runtime, precision=wanted.precision)
    from cloudseg.train import train_run

    record = train_run(
        runtime.store,
        runtime.catalog,
        snapshot_id=snapshot_id,
        recipe=wanted,
        run_id=run_id,
        device=device,
        on_progress=log.progress("train"),
    )
    log.ended("train", record)
    return record


def default_run_id(db: Connection, snapshot_id: str, recipe: Recipe, *, attempt: int = 0) -> str:
    """Return the run id that follows from snapshot, recipe and parent weights.

    Args:
        db: to look up the champion, which is the parent of a warm start.
        snapshot_id: what to train on.
        recipe: how.
        attempt: above 0 gives another id for the same three, for a retraining that is forced.
    """
    champion = models.find_champion(db) if recipe.warm_start else None
    parts = [snapshot_id, recipe.recipe_hash, champion.weights_id if champion else ""]
    return make_id("run", *parts, *([str(attempt)] if attempt else []))
