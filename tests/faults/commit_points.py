"""Commit points: every moment at which something is about to become durable. A process can be killed at any of them.

The store's writing methods and the catalog's writing transactions are wrapped from outside, in the child process: new
ones are covered automatically, and the library contains no test hooks. The process is killed just before a point.
Between two points the disk does not change; "the end" follows the last one.
"""

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

from cloudseg.catalog import Catalog
from cloudseg.storage import Store

WRITES = ("put", "put_file", "replace", "delete", "clear_abandoned")
"""Methods of a store that write; a test checks that every method of the protocol is here or in READS."""
READS = ("uri", "get", "stat", "exists", "list_keys", "list_objects", "local_file", "gdal_path", "uri_of", "link")
_CHANGES = re.compile(r"\s*(INSERT INTO|UPDATE|DELETE FROM) (\w+)")
_HASHED = re.compile(r"[0-9a-f]{12,}")


class CommitPoints:
    """Counts and traces the commit points of this process, and kills it at a chosen one."""

    def __init__(self, trace: Path, kill_at: int | None) -> None:
        self._trace, self._kill_at = trace, kill_at
        self._count, self._lock = 0, threading.Lock()
        self._local = threading.local()

    def reach(self, what: str) -> None:
        """Trace a point; kill the process if it is the chosen one, as `kill -9` would."""
        with self._lock:
            self._count += 1
            with self._trace.open("a") as out:
                out.write(json.dumps(what) + "\n")
            if self._count == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def install(self, store: type[Store]) -> None:
        """Wrap the store's class and the catalog's transactions, and listen for the tables that they change."""
        for name in WRITES:
            setattr(store, name, self._wrapped(name, getattr(store, name)))
        Catalog.begin = self._wrapped_begin(Catalog.begin)  # type: ignore[method-assign]

        @event.listens_for(Engine, "before_cursor_execute")
        def _listen(connection: Connection, cursor: object, statement: str, *more: object) -> None:
            if found := _CHANGES.match(statement):
                self._tables.setdefault(found[2])

    @property
    def _tables(self) -> dict[str, None]:
        return self._local.__dict__.setdefault("tables", {})

    def _wrapped(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(store: Store, *args: Any, **more: Any) -> Any:
            inside = self._local.__dict__.get("inside", False)
            if not inside:  # a store method may call another one: that is one point
                self.reach(" ".join([name, *(_HASHED.sub("*", key) for key in args[:1])]))
            self._local.inside = True
            try:
                return method(store, *args, **more)
            finally:
                self._local.inside = inside

        return call

    def _wrapped_begin(self, begin: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def call(catalog: Catalog, *args: Any, **more: Any) -> Iterator[Connection]:
            with begin(catalog, *args, **more) as connection:
                self._tables.clear()
                yield connection
                if self._tables:
                    self.reach(f"commit {', '.join(self._tables)}")

        return call


def read_trace(trace: Path) -> list[str]:
    """Return the commit points that a process passed, in order."""
    return [json.loads(line) for line in trace.read_text().splitlines()] if trace.exists() else []
