"""The keys of a store on disk: a million scenes with masks have five million objects, too many for memory."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from types import TracebackType
from typing import Self


class Listing:
    """Set of keys in a temporary file, as a context manager; about 100 bytes of disk per key."""

    def __enter__(self) -> Self:
        # An empty name is a temporary file that SQLite deletes with the connection (sqlite.org/inmemorydb.html).
        self._db = sqlite3.connect("")
        self._db.execute("CREATE TABLE listed (key TEXT PRIMARY KEY) WITHOUT ROWID")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def add(self, keys: Sequence[str]) -> None:
        """Add keys; adding one twice changes nothing."""
        with self._db:
            self._db.executemany("INSERT OR IGNORE INTO listed VALUES (?)", [(key,) for key in keys])

    def lacking(self, keys: Sequence[str]) -> list[str]:
        """Return those of the keys that were not added."""
        absent = "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT key FROM listed)"
        with closing(self._db.execute(absent, (json.dumps(keys),))) as found:
            return [key for (key,) in found]
