"""The command line: one command for each stage of `cloudseg.stages`, with the same names and arguments.

The help of `cloudseg` lists the exit codes; `cloudseg.errors` assigns the codes.
"""

import io
import sys
from typing import Final, NoReturn

import click

from cloudseg import __version__
from cloudseg.cli.admin import backup, db, doctor, maintain, model, restore
from cloudseg.cli.alerts import alerts
from cloudseg.cli.backfill import backfill
from cloudseg.cli.champion import champion, history
from cloudseg.cli.changes import changes
from cloudseg.cli.compare import compare
from cloudseg.cli.drift import drift
from cloudseg.cli.export import export
from cloudseg.cli.gis import composite, stats
from cloudseg.cli.inspect import lineage, masks, models, quarantine, runs, scenes
from cloudseg.cli.labels import labels
from cloudseg.cli.metrics import metrics
from cloudseg.cli.pipeline import evaluate, ingest, predict, promote, retrain, rollback, snapshot, train
from cloudseg.cli.readers import readers
from cloudseg.cli.remove import remove
from cloudseg.cli.serve import serve
from cloudseg.cli.worklist import worklist
from cloudseg.errors import CloudsegError, InputError

CONTEXT_SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_INTERRUPTED: Final = 130  # 128 + SIGINT, as in shells


@click.group(context_settings=CONTEXT_SETTINGS)
@click.version_option(__version__, prog_name="cloudseg")
@click.option(
    "--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), help="Level of the log on stderr."
)
def root(log_level: str | None) -> None:
    """Keep a cloud-mask model up to date: ingest tiles, retrain and evaluate a U-Net, publish masks.

    The result of a command goes to stdout (a table, or one JSON record with --json), the log to stderr.

    \b
    Exit codes:
      0    success
      1    doctor found a problem, or stdout cannot be written
      2    wrong input, settings or usage
      3    the data cannot be used, or some scenes could not be predicted or masks not read
      4    the state of the catalog does not allow it
      5    an object in the store is missing or damaged, or the store refused the request
      6    the store or the catalog does not respond: try again
      130  interrupted (Ctrl-C)
      143  a training or a prediction was stopped by a signal and saved its progress: run the command again to resume
    """  # noqa: D301 - \b keeps click from joining the lines


for _command in (
    ingest,
    snapshot,
    train,
    evaluate,
    promote,
    rollback,
    retrain,
    predict,
    backfill,
    readers,
    compare,
    changes,
    champion,
    history,
    models,
    runs,
    scenes,
    masks,
    lineage,
    labels,
    quarantine,
    drift,
    worklist,
    alerts,
    metrics,
    export,
    stats,
    composite,
    serve,
    maintain,
    remove,
    backup,
    restore,
    db,
    model,
    doctor,
):
    root.add_command(_command)


def _moved(name: str) -> click.Command:
    """Return a hidden command that prints what replaces a command of earlier releases."""

    @click.command(name, hidden=True, context_settings={"ignore_unknown_options": True}, help=f"Now `make {name}`.")
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def moved(arguments: tuple[str, ...]) -> None:
        raise InputError(f"now `make {name}`, in a checkout of the project", subject=f"cloudseg {name}")

    return moved


for _name in ("demo", "stack"):
    root.add_command(_moved(_name))


def main(arguments: list[str] | None = None) -> None:
    """Run `cloudseg` and exit with its exit code.

    Args:
        arguments: Command line without the program's name; that of the process if None.
    """
    run_and_exit(root, "cloudseg", arguments)


def run_and_exit(command: click.Command, name: str, arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit with its exit code; expected errors print one line and no traceback.

    Args:
        command: The command.
        name: Its name in help texts.
        arguments: Command line without the program's name; that of the process if None.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # names of scenes may hold characters that the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_run(arguments, command, name))


def _run(arguments: list[str] | None, command: click.Command = root, name: str = "cloudseg") -> int:
    try:
        return int(command.main(args=arguments, prog_name=name, standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        return _INTERRUPTED
    except CloudsegError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
