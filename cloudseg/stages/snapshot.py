"""Stage: freeze the labels of today into a snapshot."""

from cloudseg.recipe import load_recipe
from cloudseg.records import SnapshotRecord
from cloudseg.runtime import open_runtime
from cloudseg.stages import log


def snapshot(recipe: str = "nightly", *, dry_run: bool = False) -> SnapshotRecord:
    """Cut the newest label of every scene into chips, as the recipe wants them, and freeze the list.

    The same labels and the same cut give the same snapshot id, so running twice changes nothing. `dry_run`
    tells what it would count, without id (that follows from the pixels) and without writing.
    """
    from cloudseg.dataset.snapshot import build_snapshot

    runtime, wanted = open_runtime(), load_recipe(recipe)
    log.started("snapshot", recipe=wanted.name, recipe_hash=wanted.recipe_hash, dry_run=dry_run)
    record = build_snapshot(
        runtime.store, runtime.catalog, wanted, dry_run=dry_run, on_progress=log.progress("snapshot")
    )
    log.ended("snapshot", record)
    return record
