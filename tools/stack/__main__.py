"""The command `python -m tools.stack`, which `make stack` runs."""

from pathlib import Path
from typing import Any

import click

from cloudseg.cli import CONTEXT_SETTINGS, run_and_exit
from cloudseg.cli.output import reports


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option(
    "--home",
    type=click.Path(file_okay=False),
    default="var/stack",
    show_default=True,
    help="Folder for everything that the services store; the next start finds it again.",
)
@click.option(
    "--first-port", type=click.IntRange(1024, 55000), default=23000, show_default=True, help="First of twelve ports."
)
@reports(lambda console, record: None)
def stack(home: str, first_port: int) -> Any:
    """Run PostgreSQL, Redis, SeaweedFS and every component of Airflow on loopback until Ctrl-C.

    Every process that it starts ends with it. Exit codes are those of `cloudseg`, and 7: a service failed.
    """
    from tools.stack.run import run_stack

    return run_stack(home=Path(home), first_port=first_port)


if __name__ == "__main__":
    run_and_exit(stack, "python -m tools.stack")
