"""The command `cloudseg drift`."""

from typing import Any

import click
from rich.console import Console

from cloudseg.cli.output import reports, show_record, show_rows
from cloudseg.records import Json

_SHOWN = 12
"""Rows of weeks on a terminal; --json has all."""


def _show_drift(console: Console, record: Json) -> None:
    """Print what is past its limit first, then the newest weeks and the places to look at."""
    lists = ("past_limit", "notes", "weeks", "places")
    show_record(console, {name: value for name, value in record.items() if name not in lists})
    for sentence in record["past_limit"] or ["nothing is past its limit"]:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    for note in record["notes"]:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    columns = ["week", "sensor", "measure", "scenes", "median", "reference_median", "psi", "psi_limit", "past"]
    show_rows("weeks", columns)(console, {"weeks": record["weeks"][:_SHOWN]})
    if record["places"]:
        show_rows("places", ["place", "kind", "masks", "mean", "region_mean"])(console, record)


@click.command()
@click.option(
    "--limit",
    type=click.IntRange(0, 1_000_000),
    default=500,
    show_default=True,
    help="How many scenes are measured at most; a repeated call measures the rest.",
)
@click.option("--dry-run", is_flag=True, help="Measure nothing: compare what was measured before.")
@reports(_show_drift)
def drift(limit: int, dry_run: bool) -> Any:
    """Compare the scenes and masks of the last weeks with what the champion was trained on."""
    from cloudseg import stages

    return stages.drift(limit=limit, dry_run=dry_run)
