"""What a store held when it was listed, on disk.

A million masked scenes have five million objects, too many names for memory.
"""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from types import TracebackType
from typing import Self


class Listing:
    """Keys in a temporary file, for the length of a block; about 100 bytes of disk each."""

    def __enter__(self) -> Self:
        # No name: a file of SQLite's own, which is gone with the connection (sqlite.org/inmemorydb.html).
        self._db = sqlite3.connect("")
        self._db.execute("CREATE TABLE listed (key TEXT PRIMARY KEY) WITHOUT ROWID")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def add(self, keys: Sequence[str]) -> None:
        """Note keys; one that is there already changes nothing."""
        with self._db:
            self._db.executemany("INSERT OR IGNORE INTO listed VALUES (?)", [(key,) for key in keys])

    def lacking(self, keys: Sequence[str]) -> list[str]:
        """Return those of the keys that were not noted."""
        absent = "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT key FROM listed)"
        with closing(self._db.execute(absent, (json.dumps(keys),))) as found:
            return [key for (key,) in found]
