"""Commands that turn the circle: ingest, snapshot, train, evaluate, promote, rollback, retrain, predict."""

from typing import Any

import click

from cloudseg.cli.output import reports, show_parts, show_record
from cloudseg.records import Json

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Tell what would be done and write nothing.")
_RECIPE = click.option(
    "--recipe", default="nightly", show_default=True, help="Name of a shipped recipe, or path of a .toml file."
)
_MINUTES = click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), help="Time budget instead of the recipe's."
)
_SNAPSHOT = click.option(
    "--snapshot", "snapshot_id", metavar="ID", help="Snapshot to judge on; by default the one of the training."
)
_ACTOR = click.option("--actor", default="cli", show_default=True, help="Who decides, for the history.")
_REASON = click.option("--reason", default="", help="Why, for the history.")


@click.command()
@click.argument("source", required=False)
@click.option("--layout", help="Layout of the files; found by itself when not given.")
@click.option("--bands", metavar="A,B,…", help="Band names in file order, for files that do not say: red,green,blue.")
@_DRY_RUN
@reports(show_record)
def ingest(source: str | None, layout: str | None, bands: str | None, dry_run: bool) -> Any:
    """Bring the tiles and labels under SOURCE (default: the inbox) into the catalog.

    Bad files go to quarantine with a reason and never stop the others; the same bytes twice are one scene.
    """
    from cloudseg import stages

    return stages.ingest(source, layout=layout, bands=bands.split(",") if bands else None, dry_run=dry_run)


@click.command()
@_RECIPE
@_DRY_RUN
@reports(show_record)
def snapshot(recipe: str, dry_run: bool) -> Any:
    """Freeze today's labels into a snapshot, cut as the recipe wants.

    The same labels give the same snapshot.
    """
    from cloudseg import stages

    return stages.snapshot(recipe, dry_run=dry_run)


@click.command()
@click.argument("snapshot_id")
@_RECIPE
@click.option(
    "--run-id", metavar="ID", help="Run to begin or resume; follows from snapshot, recipe and champion when not given."
)
@_MINUTES
@_DRY_RUN
@reports(show_record)
def train(snapshot_id: str, recipe: str, run_id: str | None, minutes: float | None, dry_run: bool) -> Any:
    """Train a recipe on SNAPSHOT_ID and register the weights. A killed run resumes from its newest checkpoint."""
    from cloudseg import stages
    from cloudseg.stages.plan import plan_train

    call = plan_train if dry_run else stages.train
    return call(snapshot_id, recipe=recipe, run_id=run_id, minutes=minutes)


@click.command()
@click.argument("weights_id")
@_SNAPSHOT
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "held_out"]),
    default="held_out",
    show_default=True,
    help="Places to judge on.",
)
@_DRY_RUN
@reports(show_record)
def evaluate(weights_id: str, snapshot_id: str | None, split: Any, dry_run: bool) -> Any:
    """Evaluator WEIGHTS_ID on places that it never saw, and store the report."""
    from cloudseg import stages
    from cloudseg.stages.plan import plan_evaluate

    call = plan_evaluate if dry_run else stages.evaluate
    return call(weights_id, snapshot_id=snapshot_id, split=split)


@click.command()
@click.argument("weights_id")
@_SNAPSHOT
@click.option(
    "--apply/--no-apply", default=True, show_default=True, help="Promote where the verdict says so, or judge only."
)
@click.option("--force", is_flag=True, help="Promote against the verdict, or against an earlier no; needs --reason.")
@click.option("--ask", is_flag=True, help="Evaluator only, and write down that a verdict PROMOTE waits for a person.")
@click.option("--decline", is_flag=True, help="Evaluator only, and write down a person's no; needs --reason.")
@click.option("--automatic", is_flag=True, help="Nobody looks: leave alone what waits for a person or was declined.")
@_ACTOR
@_REASON
@_DRY_RUN
@reports(show_record)
def promote(
    weights_id: str,
    snapshot_id: str | None,
    apply: bool,
    force: bool,
    ask: bool,
    decline: bool,
    automatic: bool,
    actor: str,
    reason: str,
    dry_run: bool,
) -> Any:
    """Compare WEIGHTS_ID with the champion and make it champion where the verdict is PROMOTE.

    HOLD and REJECT are verdicts, not errors: the exit code is 0 and the record gives the reasons. What waits for a
    person (`--ask`, or `cloudseg retrain --no-auto-promote`) is promoted by this command, and declined by `--decline
    --reason`.
    """
    from cloudseg import stages
    from cloudseg.stages.plan import plan_promote

    if force and (ask or decline or automatic):
        raise click.UsageError("--force is a decision of its own: it goes with none of --ask, --decline, --automatic.")
    if dry_run:
        return plan_promote(weights_id, snapshot_id=snapshot_id)
    if decline:
        return stages.decline(weights_id, snapshot_id=snapshot_id, actor=actor, reason=reason)
    if ask:
        return stages.request_approval(weights_id, snapshot_id=snapshot_id, actor=actor, reason=reason)
    if not apply:
        return stages.compare(weights_id, snapshot_id=snapshot_id)
    if automatic:
        return stages.promote_unattended(weights_id, snapshot_id=snapshot_id, actor=actor, reason=reason)
    return stages.promote(weights_id, snapshot_id=snapshot_id, force=force, actor=actor, reason=reason)


@click.command()
@click.argument("champion_id", required=False)
@_ACTOR
@click.option("--reason", required=True, help="Why, for the history.")
@_DRY_RUN
@reports(show_record)
def rollback(champion_id: str | None, actor: str, reason: str, dry_run: bool) -> Any:
    """Make the champion before this one champion again; the history keeps both changes.

    CHAMPION_ID is the one to take out of office: naming it makes the command safe to repeat. Without it, whoever is
    champion now goes, and a second call goes one champion further back.
    """
    from cloudseg import stages
    from cloudseg.stages.plan import plan_rollback

    return plan_rollback() if dry_run else stages.rollback(champion_id, actor=actor, reason=reason)


@click.command()
@_RECIPE
@_MINUTES
@click.option("--force", is_flag=True, help="Train although no label is new.")
@click.option(
    "--auto-promote/--no-auto-promote",
    default=True,
    show_default=True,
    help="Promote by verdict, or leave that to a person.",
)
@click.option("--run-id", metavar="ID", help="Run to begin or resume.")
@_DRY_RUN
@reports(show_parts)
def retrain(
    recipe: str, minutes: float | None, force: bool, auto_promote: bool, run_id: str | None, dry_run: bool
) -> Any:
    """Snapshot, train, evaluate and promote in one go; skips itself, with the reason, when no label is new."""
    from cloudseg import stages

    if dry_run:
        return stages.plan_retrain(recipe, force=force)
    return stages.retrain(recipe, minutes=minutes, force=force, auto_promote=auto_promote, run_id=run_id)


def _some_failed(record: Json) -> int:
    return 3 if record.get("failed") else 0


@click.command()
@click.argument("scene_ids", nargs=-1, metavar="SCENE…")
@click.option("--new", is_flag=True, help="All scenes that have no mask of these weights yet.")
@click.option("--weights", "weights_id", metavar="ID", help="Weights to use; the champion when not given.")
@_DRY_RUN
@reports(show_record, exit_code=_some_failed)
def predict(scene_ids: tuple[str, ...], new: bool, weights_id: str | None, dry_run: bool) -> Any:
    """Publish the masks of the named scenes, or of all new ones. A mask that is there stays as it is."""
    from cloudseg import stages
    from cloudseg.stages.plan import plan_masks

    call = plan_masks if dry_run else stages.predict
    return call(scene_ids, new=new, weights_id=weights_id)
