"""Commands that show and switch whose masks readers see."""

from typing import Any

import click
from rich.console import Console

from cloudseg.cli.complete import names_of
from cloudseg.cli.output import reports, show_record, show_rows
from cloudseg.records import Json

_COLUMNS = ["sequence", "action", "mode", "weights_id", "effective_at", "actor"]
_ACTOR = click.option("--actor", default="cli", show_default=True, help="Who decides; stored in the history.")
_REASON = click.option("--reason", required=True, help="Why; stored in the history.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Show the decision as pending without writing it.")


def _show_readers(console: Console, record: Json) -> None:
    """Print what readers see, then the decisions, newest first."""
    show_record(console, {name: value for name, value in record.items() if name not in ("pending", "history")})
    for name in ("pending", "history"):
        if record[name]:
            console.print(f"\n{name}", style="bold underline")
            show_rows(name, _COLUMNS, below=["reason"])(console, record)


@click.group()
def readers() -> None:
    """Show and switch whose masks readers see: the newest champion's always, or those of one model since a date."""


@readers.command("show")
@click.option("--as-of", metavar="TIME", help="At this time (ISO 8601 with zone) instead of now.")
@reports(_show_readers)
def show(as_of: str | None) -> Any:
    """Show whose masks readers see, since when, who decided that and why."""
    from cloudseg import stages

    return stages.readers(as_of=as_of)


@readers.command("switch")
@click.argument("target", metavar="WEIGHTS|newest", shell_complete=names_of("weights", words=("newest",)))
@click.option("--at", metavar="TIME", help="From when (ISO 8601 with zone); at once when not given.")
@click.option(
    "--hold", is_flag=True, help="Keep these weights until the next switch, also when newer masks are complete."
)
@click.option("--incomplete", is_flag=True, help="Switch although readers lose scenes that have no such mask.")
@_ACTOR
@_REASON
@_DRY_RUN
@reports(_show_readers)
def switch(target: str, at: str | None, hold: bool, incomplete: bool, actor: str, reason: str, dry_run: bool) -> Any:
    """Let readers see the masks of WEIGHTS (`w-…`, `v31`, `champion`), or of the `newest` champion always.

    After a promotion `cloudseg backfill` makes the new masks, and switches readers when all are there. Masks of other
    models stay addressable.
    """
    from cloudseg import stages

    return stages.switch_readers(
        target, at=at, hold=hold, incomplete=incomplete, actor=actor, reason=reason, dry_run=dry_run
    )


@readers.command("back")
@click.argument("sequence", type=int, required=False)
@_ACTOR
@_REASON
@_DRY_RUN
@reports(_show_readers)
def back(sequence: int | None, actor: str, reason: str, dry_run: bool) -> Any:
    """Return readers at once to what they saw before the newest decision, and hold it there.

    SEQUENCE is the decision to take back: with it the command is safe to repeat.
    """
    from cloudseg import stages

    return stages.switch_readers_back(sequence, actor=actor, reason=reason, dry_run=dry_run)
