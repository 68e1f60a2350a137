"""Stage: train a recipe on a snapshot."""

from sqlalchemy import Connection

from cloudseg.catalog import model_rows
from cloudseg.keys import make_id
from cloudseg.recipe import Recipe, load_recipe
from cloudseg.records import TrainRecord
from cloudseg.runtime import open_runtime
from cloudseg.stages import log
from cloudseg.stages.compute import open_device


def train(
    snapshot_id: str, *, recipe: str = "nightly", run_id: str | None = None, minutes: float | None = None
) -> TrainRecord:
    """Train and register weights; `minutes` replaces the recipe's time budget.

    The run id follows from snapshot, recipe and parent weights unless it is given. A run that was killed resumes from
    its newest checkpoint; a run that is finished is not trained again: its record is given back.
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
    """Return the run id of a question: the same snapshot, recipe and parent weights give the same run.

    `attempt` above 0 makes another run of the same question, for a person who forces one.
    """
    champion = model_rows.find_champion(db) if recipe.warm_start else None
    parts = [snapshot_id, recipe.recipe_hash, champion.weights_id if champion else ""]
    return make_id("run", *parts, *([str(attempt)] if attempt else []))
