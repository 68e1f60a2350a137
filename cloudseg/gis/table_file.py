"""Write rows as CSV, JSON or Parquet, a few thousand at a time."""

import csv
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from cloudseg.errors import InputError
from cloudseg.gis.extras import import_extra
from cloudseg.gis.output_file import new_file
from cloudseg.records import Record

SUFFIXES: Final = (".csv", ".json", ".parquet")
_BATCH = 5_000
"""Rows of a row group in Parquet."""


def check_suffix(path: Path) -> None:
    """Check that the suffix names a format.

    Raises:
        InputError: it does not.
        SettingsError: the format needs a library that is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            "the suffix names no format of a table",
            subject=str(path),
            found=path.suffix or "none",
            expected=" ".join(SUFFIXES),
        )
    if path.suffix.lower() == ".parquet":
        import_extra("pyarrow.parquet")


def write_rows(path: Path, rows: Iterable[Record], kind: type[Record]) -> int:
    """Write rows to a file whose suffix names the format, and return how many there were.

    The file appears when all rows are written.

    Args:
        path: of the new file.
        rows: of one class.
        kind: that class, whose fields are the columns.

    Raises:
        InputError: the file cannot be written.
    """
    write = {".csv": _write_csv, ".json": _write_json, ".parquet": _write_parquet}[path.suffix.lower()]
    counted = _Counted(rows)
    with new_file(path) as part:
        write(part, counted, kind)
    return counted.count


class _Counted:
    """Count rows while they pass."""

    def __init__(self, rows: Iterable[Record]) -> None:
        self.rows, self.count = rows, 0

    def __iter__(self) -> Iterator[Record]:
        for row in self.rows:
            self.count += 1
            yield row


def _write_csv(path: Path, rows: Iterable[Record], kind: type[Record]) -> None:
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(kind.model_fields))
        writer.writeheader()
        writer.writerows(row.as_json() for row in rows)


def _write_json(path: Path, rows: Iterable[Record], kind: type[Record]) -> None:
    with path.open("w", encoding="utf-8") as out:
        out.write("[")
        for number, row in enumerate(rows):
            out.write(("," if number else "") + "\n" + json.dumps(row.as_json(), ensure_ascii=False, allow_nan=False))
        out.write("\n]\n")


def _write_parquet(path: Path, rows: Iterable[Record], kind: type[Record]) -> None:
    arrow, parquet = import_extra("pyarrow"), import_extra("pyarrow.parquet")
    schema = arrow.schema([(name, _arrow_type(arrow, name)) for name in kind.model_fields])
    remaining = iter(rows)
    with parquet.ParquetWriter(path, schema) as out:
        while batch := list(itertools.islice(remaining, _BATCH)):
            out.write_table(arrow.Table.from_pylist([row.model_dump() for row in batch], schema=schema))


def _arrow_type(arrow: Any, name: str) -> Any:
    """Return the type of a column: shares and areas are float64, a time has its zone."""
    if name.endswith(("_fraction", "_m2")):
        return arrow.float64()
    if name in ("feature_id", "model_version", "masks"):
        return arrow.int64()
    return arrow.timestamp("us", tz="UTC") if name == "acquired_at" else arrow.string()
