"""Output of the commands: the record to stdout (a table, or one JSON record), everything else to stderr."""

import functools
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cloudseg.errors import CloudsegError
from cloudseg.records import Json, Record

Show = Callable[[Console, Json], None]
_NO_TERMINAL_WIDTH = 2000
"""Columns of a record where stdout is a pipe or a file."""
_STDOUT_FAILED = 1
_GAP = 2
"""Spaces between two columns."""
_MIN_WIDTH = 10
"""A column of a terminal's table is not cut to less."""
_NONE = {"quarantine": "no file is in quarantine", "history": "no decision yet"}
"""What is printed instead of an empty table, where `no NAME` is not English."""
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(\.\d+)?Z")


class BarHandler(logging.Handler):
    """Log handler that displays records with the attribute `progress` as progress bars on a terminal."""

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
        """Update a bar, or print a line above the bars."""
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
        """Remove the bars."""
        self._progress.stop()
        super().close()


def reports(
    show: Show, *, exit_code: Callable[[Json], int] = lambda _: 0
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Return a decorator that makes a function the body of a command.

    The command gets the option `--json`, prints what the function returns, and turns a CloudsegError into a message
    and an exit code.

    Args:
        show: Prints the record, as JSON types, in a readable form.
        exit_code: Returns the exit code for a record that is not an error, but not a full success either.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., None]:
        @click.option("--json", "as_json", is_flag=True, help="Print one JSON record instead of a table.")
        @functools.wraps(function)
        def run(*args: Any, as_json: bool, **kwargs: Any) -> None:
            try:
                _set_up_log()
                result = _plain(function(*args, **kwargs))
            except CloudsegError as error:
                _exit_with(error, as_json=as_json)
            _write(lambda: _print_json(result) if as_json else show(_console(), result))
            click.get_current_context().exit(exit_code(result))

        return run

    return decorate


def _write(show: Callable[[], None]) -> None:
    """Call `show`, which writes to stdout.

    A closed pipe (`| head`) is not an error; a full disk or a closed stdout is one.
    """
    try:
        if sys.stdout is None:
            raise OSError("it is closed")
        show()
        sys.stdout.flush()
    except OSError as error:
        if sys.stdout is not None:  # the rest of its buffer must not fail again when Python exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            click.echo(
                f"error: the command succeeded, but stdout cannot be written: {error.strerror or error}", err=True
            )
            click.get_current_context().exit(_STDOUT_FAILED)


def show_record(console: Console, record: Json) -> None:
    """Print a record as two columns, name and value."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in record.items():
        if value not in (None, "", [], {}):
            table.add_row(name, _cell(value))
    console.print(table)


def show_parts(console: Console, record: Json) -> None:
    """Print a record of records: each one under its name."""
    show_record(console, {name: value for name, value in record.items() if not isinstance(value, dict)})
    for name, part in record.items():
        if isinstance(part, dict):
            console.print(f"\n{name}", style="bold underline")
            show_record(console, part)


def show_rows(name: str, columns: Sequence[str], *, below: Sequence[str] = ()) -> Show:
    """Return a function that prints the rows in `record[name]` as a table.

    A terminal gets as many columns as fit, in the given order; long values are cut, ids and times never. A pipe or a
    file gets every column, and one uncut line for each row.

    Args:
        name: Key of the list of rows.
        columns: Keys of the columns; `a.b` is the key `b` of the nested value `a`.
        below: Keys of long values, which a terminal gets uncut on lines of their own under each row.
    """

    def show(console: Console, record: Json) -> None:
        rows: list[Json] = record[name]
        if not rows:
            console.print(_NONE.get(name, f"no {name}"))
            return
        stacked = below if console.is_terminal else ()
        wanted = [*columns, *(() if console.is_terminal else below)]
        cells = [[" ".join(_cell(_look_up(row, column)).split("\n")) for row in rows] for column in wanted]
        lines, count = _table_lines(console, wanted, cells)
        _print_line(console, lines[0], style="bold")
        for row, line in zip(rows, lines[1:], strict=True):
            _print_line(console, line)
            for column in stacked:
                if (value := _look_up(row, column)) is not None:
                    _print_line(console, f"    {_header(column)}: {_cell(value)}")
        if left_out := wanted[count:]:
            _print_line(console, f"(no room for {', '.join(map(_header, left_out))}: see --json)", style="dim")

    return show


def _table_lines(console: Console, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> tuple[list[str], int]:
    """Return header and rows, one line each, and the number of columns that have room.

    Args:
        console: Its width limits the lines if it is a terminal.
        columns: Keys of the columns.
        cells: Values of each column.
    """
    full = [
        max(map(cell_len, [_header(column), *values])) + _GAP for column, values in zip(columns, cells, strict=True)
    ]
    whole = [column.endswith(("_id", "_at")) for column in columns]
    least = [width if keep else min(width, _MIN_WIDTH + _GAP) for width, keep in zip(full, whole, strict=True)]
    room = console.width + _GAP if console.is_terminal else sum(full)
    count = max([1, *(number for number in range(1, len(columns) + 1) if sum(least[:number]) <= room)])
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=True)
    for column, keep in zip(columns[:count], whole, strict=False):
        table.add_column(Text(_header(column), no_wrap=True), no_wrap=keep)
    for row in zip(*cells[:count], strict=True):
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    options = console.options.update_width(max(room, sum(least[:count])))
    return ["".join(part.text for part in line).rstrip() for line in console.render_lines(table, options)], count


def _print_line(console: Console, line: str, style: str | None = None) -> None:
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def _header(column: str) -> str:
    return column.rpartition(".")[2]


def _console() -> Console:
    """Return the console for stdout, with long lines if it is a pipe or a file."""
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
        return f"{len(value)}: {', '.join(value[:12])}, …" if len(value) > 12 else ", ".join(value)
    if isinstance(value, dict):
        return "  ".join(f"{name} {_inner(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    time = _TIME.fullmatch(str(value))
    return f"{time[1]} {time[2]}" if time else str(value)


def _inner(value: object) -> str:
    """Return the text of a value in a nested record; deeper records are shown by `--json` only."""
    if isinstance(value, dict):
        plain = {name: inner for name, inner in value.items() if not isinstance(inner, dict | list)}
        return "(" + ", ".join(f"{name} {_cell(inner)}" for name, inner in plain.items()) + ")" if plain else "…"
    return _cell(value)


def _plain(result: Any) -> Json:
    return result.as_json() if isinstance(result, Record) else dict(result)


def _print_json(record: Json) -> None:
    click.echo(json.dumps(record, ensure_ascii=False, allow_nan=False))


def _exit_with(error: CloudsegError, *, as_json: bool) -> NoReturn:
    if as_json:
        _print_json(dict(error.as_record()))
    click.echo(f"error: {error}", err=True)
    click.get_current_context().exit(error.exit_code)


def _set_up_log() -> None:
    from cloudseg.runtime import set_up_logging

    level = click.get_current_context().find_root().params.get("log_level")
    set_up_logging(level, BarHandler() if sys.stderr.isatty() else None)
