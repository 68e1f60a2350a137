"""The command line: a thin skin over `cloudseg.stages`, one command a stage, with the same names and arguments.

Exit codes are listed in the help of `cloudseg` itself; `cloudseg.errors` gives every error its code.
"""

import io
import sys

import click

from cloudseg import __version__
from cloudseg.cli.admin import backup, db, doctor, maintain, model, restore
from cloudseg.cli.demo import demo, stack
from cloudseg.cli.inspect import lineage, masks, models, quarantine, runs, scenes
from cloudseg.cli.pipeline import evaluate, ingest, predict, promote, retrain, rollback, snapshot, train
from cloudseg.errors import CloudsegError

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="cloudseg")
@click.option(
    "--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), help="Level of the log on stderr."
)
def root(log_level: str | None) -> None:
    """Keep a cloud-mask model fresh: tiles in, a U-Net retrained and judged, masks out.

    The record of a command goes to stdout (a table, or one JSON record with --json), the log to stderr.

    \b
    Exit codes:
      0    done
      1    the doctor found a fault, or stdout cannot be written
      2    wrong input, settings or usage
      3    the data cannot be used, or some scenes could not be masked
      4    the state of the service forbids it
      5    the object store misses or refuses an object
      6    object store or catalog do not answer: try again
      7    a service that the demo or the stack started failed
      130  interrupted (Ctrl-C)
      143  a training or a prediction was asked to stop and kept what it had: call it again
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
    models,
    runs,
    scenes,
    masks,
    lineage,
    quarantine,
    maintain,
    backup,
    restore,
    db,
    model,
    doctor,
    demo,
    stack,
):
    root.add_command(_command)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave the process with its exit code: no traceback for an error made on purpose."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of scenes may hold what the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    try:
        return int(root.main(args=arguments, prog_name="cloudseg", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        return _INTERRUPTED
    except CloudsegError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
