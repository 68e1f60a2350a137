"""Commands for the life of labels: `cloudseg labels list | show | diff | accept | reject | withdraw`."""

from collections.abc import Callable
from typing import Any

import click
from rich.console import Console

from cloudseg.cli.complete import complete_path, names_of
from cloudseg.cli.output import reports, show_record, show_rows
from cloudseg.records import Json

_STATES = click.Choice(["proposed", "accepted", "rejected", "withdrawn"])
_NAMES = click.argument("names", nargs=-1, metavar="[LABEL|SCENE]…", shell_complete=names_of("scene", "label"))
_SOURCE = click.option("--source", metavar="TEXT", help="Labels of this source, for example analyst:ada.")
_ACTOR = click.option("--actor", default="cli", show_default=True, help="Who decides; stored in the label's history.")
_WHY = click.option("--reason", required=True, help="Why; stored in the label's history.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Show what would be done without writing.")


def _state(default: str) -> Callable[[Any], Any]:
    return click.option(
        "--state", type=_STATES, help=f"Choose labels in this state instead of the {default} ones; ids choose any."
    )


@click.group()
def labels() -> None:
    """Review labels: only accepted ones are trained on and evaluated with.

    The first label of a scene is accepted on ingest, a correction is proposed and waits. Where a label has no opinion
    (255), older accepted labels of its scene hold.
    """


@labels.command("list")
@click.option("--state", type=_STATES, help="Only labels in this state.")
@click.option("--scene", metavar="ID|NAME", shell_complete=names_of("scene"), help="Only labels of this scene.")
@_SOURCE
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="Number of rows.")
@reports(
    show_rows(
        "labels",
        ["label_id", "scene", "version", "state", "actor", "decided_at", "source", "cloud_fraction"],
        below=["reason"],
    )
)
def list_labels(state: Any, scene: str | None, source: str | None, limit: int) -> Any:
    """List labels with their state, the newest decision first."""
    from cloudseg import stages

    return {"labels": stages.labels(state=state, scene=scene, source=source, limit=limit)}


def _show_label(console: Console, record: Json) -> None:
    """Print a label, then its history, one line for each event."""
    show_record(console, {name: value for name, value in record.items() if name not in ("events", "in_use")})
    versions = ", ".join(f"version {entry['version']} ({entry['label_id']})" for entry in record["in_use"])
    console.print(f"\nin use for this scene: {versions or 'none'}", markup=False, highlight=False, soft_wrap=True)
    show_rows("events", ["sequence", "state", "created_at", "actor", "reason"])(console, record)


@labels.command("show")
@click.argument("label_id", shell_complete=names_of("label"))
@reports(_show_label)
def show_label(label_id: str) -> Any:
    """Show LABEL_ID with its history, the mask that it corrects, and the snapshots that hold it."""
    from cloudseg import stages

    return stages.label(label_id)


@labels.command("diff")
@click.argument("label_id", shell_complete=names_of("label"))
@click.option(
    "--out", required=True, metavar="FILE.png", shell_complete=complete_path, help="Where to write the picture."
)
@reports(show_record)
def diff_label(label_id: str, out: str) -> Any:
    """Draw what LABEL_ID changes: RGB, the scene's label without it, and with it, where the two differ."""
    from cloudseg import stages

    return stages.diff_label(label_id, out)


def _show_decision(console: Console, record: Json) -> None:
    """Print the record, then what holds for each scene, one line each."""
    show_record(console, {name: value for name, value in record.items() if name != "notes"})
    for note in record["notes"]:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


@labels.command()
@_NAMES
@_SOURCE
@_state("proposed")
@_ACTOR
@click.option("--reason", default="", help="Why; stored in the label's history.")
@_DRY_RUN
@reports(_show_decision)
def accept(names: tuple[str, ...], source: str | None, state: Any, actor: str, reason: str, dry_run: bool) -> Any:
    """Accept proposed labels: by id, by scene, or all of a --source. By id, rejected and withdrawn ones come back."""
    from cloudseg import stages

    return stages.accept_labels(names, source=source, state=state, actor=actor, reason=reason, dry_run=dry_run)


@labels.command()
@_NAMES
@_SOURCE
@_state("proposed")
@_ACTOR
@_WHY
@_DRY_RUN
@reports(_show_decision)
def reject(names: tuple[str, ...], source: str | None, state: Any, actor: str, reason: str, dry_run: bool) -> Any:
    """Reject proposed labels: by id, by scene, or all of a --source. They are kept and never used."""
    from cloudseg import stages

    return stages.reject_labels(names, source=source, state=state, actor=actor, reason=reason, dry_run=dry_run)


@labels.command()
@_NAMES
@_SOURCE
@_state("accepted")
@_ACTOR
@_WHY
@_DRY_RUN
@reports(_show_decision)
def withdraw(names: tuple[str, ...], source: str | None, state: Any, actor: str, reason: str, dry_run: bool) -> Any:
    """Withdraw accepted labels: by id, by scene, or all of a --source. Their scenes are labeled as without them."""
    from cloudseg import stages

    return stages.withdraw_labels(names, source=source, state=state, actor=actor, reason=reason, dry_run=dry_run)
