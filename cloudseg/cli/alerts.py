"""The command that lists alerts."""

from typing import Any

import click

from cloudseg.cli.output import reports, show_rows

_COLUMNS = ["severity", "name", "subject", "opened_at", "seen_at", "sent", "resolved_at"]


@click.command()
@click.option("--all", "closed", is_flag=True, help="Alerts that ended and events that happened too, newest first.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="Number of rows.")
@reports(show_rows("alerts", _COLUMNS, below=["sentence", "link", "runbook"]))
def alerts(closed: bool, limit: int) -> Any:
    """List the alerts that are open: what somebody should act on, since when, and where to read what to do."""
    from cloudseg import stages

    return {"alerts": stages.alerts(closed=closed, limit=limit)}
