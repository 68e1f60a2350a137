"""The command that makes the masks of a new champion for older scenes."""

from typing import Any

import click
from rich.console import Console

from cloudseg.cli.complete import names_of
from cloudseg.cli.output import reports, show_record, show_rows
from cloudseg.records import Json


def _show_backfill(console: Console, record: Json) -> None:
    """Print the record, then how far each month is."""
    show_record(console, {name: value for name, value in record.items() if name != "months"})
    if record["months"]:
        console.print()
        show_rows("months", ["month", "done", "total"])(console, record)


def _some_failed(record: Json) -> int:
    return 3 if record.get("failed") else 0


@click.command()
@click.option(
    "--budget",
    "megapixels",
    type=click.IntRange(0, 1_000_000_000),
    metavar="MEGAPIXELS",
    help="Millions of scene pixels to mask, one scene at least; CLOUDSEG_BACKFILL_MEGAPIXELS when not given.",
)
@click.option("--night", metavar="NAME", help="The plan to make or to go on with; today's date when not given.")
@click.option(
    "--weights",
    "weights_id",
    metavar="ID",
    shell_complete=names_of("weights"),
    help="Whose masks to make; the champion's when not given.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done without writing.")
@reports(_show_backfill, exit_code=_some_failed)
def backfill(megapixels: int | None, night: str | None, weights_id: str | None, dry_run: bool) -> Any:
    """Mask older scenes anew with the champion, within the budget of a night, and show how far each month is.

    Scenes of labeled places first, the newest scenes first. A night has one plan: a second call goes on with it.
    Readers that wait for the champion's masks (`cloudseg readers show`: mode complete) see them once none is missing.
    """
    from cloudseg import stages

    return stages.backfill(megapixels=megapixels, night=night, weights_id=weights_id, dry_run=dry_run)
