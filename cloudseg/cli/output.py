"""How a command speaks: the record to stdout (a table, or one JSON record), everything else to stderr."""

import functools
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from cloudseg.errors import CloudsegError
from cloudseg.records import Json, Record

Show = Callable[[Console, Json], None]
_NO_TERMINAL_WIDTH = 2000
_STDOUT_FAILED = 1
_GAP = 2
_NARROWEST = 10
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(\.\d+)?Z")


class BarHandler(logging.Handler):
    """Draws log records that carry `progress` as bars below the other lines; for a terminal."""

    def __init__(self) -> None:
        super().__init__()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._tasks: dict[str, Any] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Move a bar, or print a line above the bars."""
        step: tuple[int, int] | None = getattr(record, "progress", None)
        if step is None:
            self._progress.console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)
            return
        stage = str(getattr(record, "stage", "progress"))
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage)
            self._progress.start()
        self._progress.update(
            self._tasks[stage], completed=step[0], total=step[1], description=record.getMessage().partition(":")[0]
        )
        if step[0] >= step[1]:
            self._progress.remove_task(self._tasks.pop(stage))

    def close(self) -> None:
        """Take the bars away."""
        self._progress.stop()
        super().close()


def reports(
    show: Show, *, exit_code: Callable[[Json], int] = lambda _: 0
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Make a function a command body.

    Add `--json`, print what it returns, turn a CloudsegError into message and status.

    Args:
        show: prints the record's JSON form for people.
        exit_code: status of the command for a record that is not an error but no full success either.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., None]:
        @click.option("--json", "as_json", is_flag=True, help="Print one JSON record instead of a table.")
        @functools.wraps(function)
        def run(*args: Any, as_json: bool, **kwargs: Any) -> None:
            try:
                _set_up_log()
                result = _plain(function(*args, **kwargs))
            except CloudsegError as error:
                _refuse(error, as_json=as_json)
            _write(lambda: _print_json(result) if as_json else show(_console(), result))
            click.get_current_context().exit(exit_code(result))

        return run

    return decorate


def _write(say: Callable[[], None]) -> None:
    """Write the record to stdout.

    A reader who went away (`| head`) is no fault; a full disk or a closed stdout is one.
    """
    try:
        if sys.stdout is None:
            raise OSError("it is closed")
        say()
        sys.stdout.flush()
    except OSError as error:
        if sys.stdout is not None:  # what is left in its buffer must not fail once more when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            click.echo(f"error: all is done, but stdout cannot be written: {error.strerror or error}", err=True)
            click.get_current_context().exit(_STDOUT_FAILED)


def show_record(console: Console, record: Json) -> None:
    """Print a record as two columns; nested values as JSON."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in record.items():
        if value not in (None, "", [], {}):
            table.add_row(name, _cell(value))
    console.print(table)


def show_parts(console: Console, record: Json) -> None:
    """Print a record whose values are records of their own, one below the other under its name."""
    show_record(console, {name: value for name, value in record.items() if not isinstance(value, dict)})
    for name, part in record.items():
        if isinstance(part, dict):
            console.print(f"\n{name}", style="bold underline")
            show_record(console, part)


def show_rows(name: str, columns: Sequence[str], *, below: Sequence[str] = ()) -> Show:
    """Return a function that prints the rows under `record[name]`; a column `a.b` looks into a nested value.

    A terminal gets as many columns as fit, most important first, long words cut, and the `below` values whole under
    their row. A pipe gets every column of every row in one line.
    """

    def show(console: Console, record: Json) -> None:
        rows: list[Json] = record[name]
        if not rows:
            console.print(f"no {name}")
            return
        stacked = console.is_terminal and bool(below)
        wanted = list(columns) if stacked else [*columns, *below]
        cells = [[_cell(_look_up(row, column)) for column in wanted] for row in rows]
        widths = _widths(wanted, cells, console.width)
        _print_line(console, [_header(column) for column in wanted], widths, style="bold")
        for row, line in zip(rows, cells, strict=True):
            _print_line(console, line, widths)
            for column in below if stacked else ():
                if (value := _look_up(row, column)) is not None:
                    console.print(
                        f"    {_header(column)}: {_cell(value)}", markup=False, highlight=False, soft_wrap=True
                    )
        if left_out := wanted[len(widths) :]:
            console.print(
                f"(no room for {', '.join(map(_header, left_out))}: --json has everything)",
                style="dim",
                highlight=False,
                soft_wrap=True,
            )

    return show


def _widths(columns: Sequence[str], cells: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return the width of the columns that fit, first ones first.

    Ids and times stay whole, other columns shrink to a few letters.
    """
    natural = [
        max(cell_len(_header(column)), *(cell_len(line[i]) for line in cells)) for i, column in enumerate(columns)
    ]
    least = [
        width if column.endswith(("_id", "_at")) else min(width, _NARROWEST)
        for column, width in zip(columns, natural, strict=True)
    ]
    count = len(columns)
    while count > 1 and sum(least[:count]) + _GAP * (count - 1) > room:
        count -= 1
    widths = natural[:count]
    while sum(widths) + _GAP * (count - 1) > room and (over := [i for i in range(count) if widths[i] > least[i]]):
        widths[max(over, key=lambda i: widths[i])] -= 1
    return widths


def _print_line(console: Console, cells: Sequence[str], widths: Sequence[int], style: str | None = None) -> None:
    fitting = [
        set_cell_size(cell, width) if cell_len(cell) <= width else f"{set_cell_size(cell, width - 1)}…"
        for cell, width in zip(cells, widths, strict=False)
    ]
    text = (" " * _GAP).join(fitting).rstrip()
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _header(column: str) -> str:
    return column.rpartition(".")[2]


def _console() -> Console:
    """Return the console for stdout; lines of a pipe or a file are as long as they need to be."""
    return Console() if sys.stdout.isatty() else Console(width=_NO_TERMINAL_WIDTH)


def _look_up(row: Json, path: str) -> object:
    value: object = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value[:12]) + (f" … {len(value)} in all" if len(value) > 12 else "")
    if isinstance(value, dict):
        return "  ".join(f"{name} {_inner(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    time = _TIME.fullmatch(str(value))
    return f"{time[1]} {time[2]}" if time else str(value)


def _inner(value: object) -> str:
    """Return a value inside a cell; what is nested deeper is shown by `--json` only."""
    if isinstance(value, dict):
        plain = {name: inner for name, inner in value.items() if not isinstance(inner, dict | list)}
        return "(" + ", ".join(f"{name} {_cell(inner)}" for name, inner in plain.items()) + ")" if plain else "…"
    return _cell(value)


def _plain(result: Any) -> Json:
    return result.as_json() if isinstance(result, Record) else dict(result)


def _print_json(record: Json) -> None:
    click.echo(json.dumps(record, ensure_ascii=False, allow_nan=False))


def _refuse(error: CloudsegError, *, as_json: bool) -> NoReturn:
    if as_json:
        _print_json(dict(error.as_record()))
    click.echo(f"error: {error}", err=True)
    click.get_current_context().exit(error.exit_code)


def _set_up_log() -> None:
    from cloudseg.runtime import set_up_logging

    level = click.get_current_context().find_root().params.get("log_level")
    set_up_logging(level, BarHandler() if sys.stderr.isatty() else None)
