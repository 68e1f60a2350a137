"""The commands that start other services: the demo, and the stack."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from cloudseg.cli.output import reports


@click.command()
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False),
    metavar="FOLDER",
    help="Real tiles instead of synthetic ones.",
)
@click.option("--keep/--no-keep", default=True, show_default=True, help="Leave the Airflow UI running until Ctrl-C.")
@click.option(
    "--home",
    type=click.Path(file_okay=False),
    default="var/demo",
    show_default=True,
    help="Folder for all that the demo makes.",
)
@click.option(
    "--recipe", default="nightly", show_default=True, help="Name of a shipped recipe, or path of a .toml file."
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Training budget; 2 for synthetic tiles and 10 for --data.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the Airflow UI; a free one when not given.")
@reports(lambda console, record: None)
def demo(data: str | None, keep: bool, home: str, recipe: str, minutes: float | None, port: int | None) -> Any:
    """Turn the circle once under a real `airflow standalone` and print what it made. Nothing it starts outlives it."""
    from cloudseg.demo.run import run_demo

    # The demo prints its summary while Airflow still runs; with --json, stdout belongs to the record alone.
    as_json = click.get_current_context().params.get("as_json")
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        return run_demo(
            home=Path(home), data=Path(data) if data else None, keep=keep, minutes=minutes, recipe=recipe, port=port
        )


@click.command()
@click.option(
    "--home",
    type=click.Path(file_okay=False),
    default="var/stack",
    show_default=True,
    help="Folder for all that it stores.",
)
@click.option(
    "--first-port", type=click.IntRange(1024, 55000), default=23000, show_default=True, help="First of twelve ports."
)
@reports(lambda console, record: None)
def stack(home: str, first_port: int) -> Any:
    """Run PostgreSQL, Redis, SeaweedFS and every part of Airflow on loopback until Ctrl-C.

    Nothing it starts outlives it.
    """
    from cloudseg.stack.run import run_stack

    return run_stack(home=Path(home), first_port=first_port)
