"""Stage: freeze the accepted labels into a snapshot."""

from cloudseg.recipe import Recipe, load_recipe
from cloudseg.records import SnapshotRecord
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import log
from cloudseg.stages.stac import publish_stac


def snapshot(recipe: str = "nightly", *, dry_run: bool = False) -> SnapshotRecord:
    """Cut the accepted labels of every scene into chips, as the recipe defines them, and freeze the list.

    The same labels and recipe produce the same snapshot id, so running it twice changes nothing.

    Args:
        recipe: name or path.
        dry_run: count only; without an id, which follows from the pixels, and without writing.
    """
    return run_snapshot(open_runtime(), load_recipe(recipe), dry_run=dry_run)


def run_snapshot(runtime: Runtime, recipe: Recipe, *, dry_run: bool = False) -> SnapshotRecord:
    """Do what `snapshot` does, with a runtime that is open and a recipe that is read."""
    from cloudseg.dataset.snapshot import build_snapshot

    log.started("snapshot", recipe=recipe.name, recipe_hash=recipe.recipe_hash, dry_run=dry_run)
    record = build_snapshot(
        runtime.store, runtime.catalog, recipe, dry_run=dry_run, on_progress=log.progress("snapshot")
    )
    if not dry_run:
        publish_stac(runtime)
    log.ended("snapshot", record)
    return record
