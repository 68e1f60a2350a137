"""The command that prints the figures of the service."""

from typing import Any

import click
from rich.console import Console

from cloudseg.cli.output import reports
from cloudseg.records import Json


def _show(_: Console, record: Json) -> None:
    from cloudseg.monitor.exposition import metrics_text
    from cloudseg.monitor.figures import Figures

    click.echo(metrics_text(Figures.model_validate(record)), nl=False)


@click.command()
@reports(_show)
def metrics() -> Any:
    """Print what is measured, in the text format of Prometheus: models, masks, nights, labels, bytes, cost.

    `cloudseg serve` answers a scrape with the same text under /metrics, if CLOUDSEG_SERVE_METRICS_KEY is set.
    """
    from cloudseg import stages

    return stages.metrics()
