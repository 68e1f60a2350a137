"""The command `python -m tools.demo`, which `make demo` runs."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from cloudseg.cli import CONTEXT_SETTINGS, run_and_exit
from cloudseg.cli.output import reports


@click.command(context_settings=CONTEXT_SETTINGS)
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
    help="Folder for everything that the demo makes; what an earlier demo left there is deleted.",
)
@click.option(
    "--recipe", default="nightly", show_default=True, help="Name of a shipped recipe, or path of a .toml file."
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    show_default="2 for synthetic tiles, 10 for --data",
    help="Training budget in minutes.",
)
@click.option("--again", is_flag=True, help="Start the Airflow of an earlier demo again, with what it made.")
@click.option("--port", type=click.IntRange(1, 65535), show_default="any free port", help="Port of the Airflow UI.")
@reports(lambda console, record: None)
def demo(
    data: str | None, keep: bool, home: str, recipe: str, minutes: float | None, again: bool, port: int | None
) -> Any:
    """Run the pipeline end to end under a real `airflow standalone` and print what it made.

    Every process that it starts ends with it. Exit codes are those of `cloudseg`, and 7: Airflow or a task failed.
    """
    from tools.demo.run import run_again, run_demo

    # The summary is printed while Airflow still runs; with --json, stdout holds the record alone.
    as_json = click.get_current_context().params.get("as_json")
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        if again:
            if data is not None or minutes is not None:
                raise click.UsageError("--again cannot be combined with --data or --minutes: nothing is made.")
            return run_again(home=Path(home), keep=keep, port=port)
        return run_demo(
            home=Path(home), data=Path(data) if data else None, keep=keep, minutes=minutes, recipe=recipe, port=port
        )


if __name__ == "__main__":
    run_and_exit(demo, "python -m tools.demo")
