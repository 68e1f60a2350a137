"""Reading ahead and writing behind in threads of their own, through queues that cannot grow.

GDAL and torch release the interpreter lock while they work, so reading, computing and writing overlap. An error in
either thread comes up in the caller; leaving the block stops both threads, whatever happened.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")
_END: Final = object()
_POLL_S: Final = 0.1
"""How often a thread that waits on a full or empty queue looks whether it should stop."""


@contextmanager
def read_ahead(items: Iterable[T], size: int = 1) -> Iterator[Iterator[T]]:
    """Run an iterable in a thread, at most `size` finished items ahead of the caller (one more is in the making).

    The iterable is started, advanced and closed in that one thread: it may hold a GDAL dataset, which belongs to one
    thread.
    """
    ready: queue.Queue[Any] = queue.Queue(maxsize=size)
    stop = threading.Event()
    failure: list[BaseException] = []

    def work() -> None:
        try:
            for item in items:
                if not _put(ready, item, stop):
                    break
        except BaseException as error:
            failure.append(error)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
            _put(ready, _END, stop)

    thread = threading.Thread(target=work, name="cloudseg-read", daemon=True)
    thread.start()
    try:
        yield _until_end(ready, failure)
    finally:
        stop.set()
        thread.join()


def _until_end(ready: "queue.Queue[Any]", failure: list[BaseException]) -> Iterator[Any]:
    while (item := ready.get()) is not _END:
        yield item
    if failure:
        raise failure[0]


def _put(target: "queue.Queue[Any]", item: Any, stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            target.put(item, timeout=_POLL_S)
        except queue.Full:
            continue
        return True
    return False


class WriteBehind(Generic[T]):
    """Hands items to a function that runs in another thread, in order; use as a context manager.

    Leaving the block normally waits until all is written; leaving it by an error drops what still waits.
    """

    def __init__(self, write: Callable[[T], None], size: int = 1) -> None:
        self._write = write
        self._waiting: queue.Queue[Any] = queue.Queue(maxsize=size)
        self._stop = threading.Event()
        # Not Thread.join: interrupted once, it takes a thread for ended that still runs.
        self._ended = threading.Event()
        self._failure: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="cloudseg-write", daemon=True)

    def __enter__(self) -> "WriteBehind[T]":
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Wait for the thread and raise what went wrong in it."""
        if kind is None:
            _put(self._waiting, _END, self._stop)
        else:
            self._stop.set()
        try:
            self._ended.wait()
        except (
            BaseException
        ):  # a signal's handler raised while we waited: the caller closes next what the thread still writes to
            self._stop.set()
            self._ended.wait()
            raise
        if kind is None:
            self._raise()

    def put(self, item: T) -> None:
        """Hand an item over; waits while the queue is full. Raises what went wrong in the thread."""
        self._raise()
        if not _put(self._waiting, item, self._stop):
            self._raise()

    def _raise(self) -> None:
        if self._failure:
            raise self._failure[0]

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._ended.set()

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                item = self._waiting.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if item is _END:
                return
            try:
                self._write(item)
            except BaseException as error:
                self._failure.append(error)
                self._stop.set()
