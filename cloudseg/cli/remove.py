"""Commands that remove a scene with everything made from it, and allow it again."""

from typing import Any

import click
from rich.console import Console

from cloudseg.cli.complete import names_of
from cloudseg.cli.output import reports, show_record, show_rows
from cloudseg.records import Json

_COLUMNS = ["scene_id", "actor", "created_at", "finished_at", "lifted_at"]
_ACTOR = click.option("--actor", default="cli", show_default=True, help="Who decides; stored with the removal.")


@click.group()
def remove() -> None:
    """Remove a scene and everything made from it, for a license or a take-down."""


def _show_removal(console: Console, record: Json) -> None:
    """Print what goes, then what stays."""
    show_record(console, record)
    if record["weights"] and not record["already"]:
        console.print(
            f"{len(record['weights'])} weights were trained on it and stay: `cloudseg retrain` trains without it, from "
            "the champion's parameters if its recipe has warm_start.",
            markup=False,
            highlight=False,
        )


@remove.command("scene")
@click.argument("name", metavar="SCENE", shell_complete=names_of("scene", "removal"))
@click.option("--reason", required=True, help="Why; stored with the removal.")
@_ACTOR
@click.option("--dry-run", is_flag=True, help="Show what would go and what stays, without deleting.")
@reports(_show_removal)
def scene(name: str, reason: str, actor: str, dry_run: bool) -> Any:
    """Remove SCENE with its labels, masks, chips, reports and STAC documents; weights stay.

    SCENE is an id, the beginning of one, or a name. The same bytes are not ingested again. Files in the inbox, exports
    and backups are not touched. On PostgreSQL this needs the owner of the database. An interrupted removal is completed
    by the same command with the id.
    """
    from cloudseg import stages

    return stages.remove_scene(name, reason=reason, actor=actor, dry_run=dry_run)


@remove.command("lift")
@click.argument("scene_id", metavar="SCENE_ID", shell_complete=names_of("removal"))
@click.option("--reason", required=True, help="Why; stored with the removal.")
@_ACTOR
@reports(show_record)
def lift(scene_id: str, reason: str, actor: str) -> Any:
    """Allow the bytes of a removed scene to be ingested again. What was deleted does not come back.

    SCENE_ID may be the beginning of an id.
    """
    from cloudseg import stages

    return stages.lift_removal(scene_id, reason=reason, actor=actor)


@remove.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Maximum number of removals.")
@reports(show_rows("removals", _COLUMNS, below=["reason"]))
def list_(limit: int) -> Any:
    """List removals, newest first; --json names the weights that were trained on each scene."""
    from cloudseg import stages

    return {"removals": stages.list_removals(limit=limit)}
