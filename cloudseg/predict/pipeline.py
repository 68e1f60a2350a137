"""Read ahead and write behind, each in a separate thread and at most a bounded number of items from the caller.

GDAL and torch release the interpreter lock while they work, so reading, computing and writing overlap. An error in
either thread is raised in the caller; no thread still runs after the block has been left in any way.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Final, TypeVar

T = TypeVar("T")
_END: Final = object()


@contextmanager
def read_ahead(items: Iterable[T], size: int = 1) -> Iterator[Iterator[T]]:
    """Advance an iterable in another thread, at most `size` finished items ahead of the caller.

    One more item is being made.
    The iterable is started, advanced and closed in that one thread: it may hold a GDAL dataset, which belongs to one
    thread.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="cloudseg-read") as thread:
        ahead = deque(thread.submit(next, source, _END) for _ in range(size + 1))

        def results() -> Iterator[Any]:
            while (item := ahead.popleft().result()) is not _END:
                ahead.append(thread.submit(next, source, _END))
                yield item

        try:
            yield results()
        finally:
            for future in ahead:
                future.cancel()
            thread.submit(getattr(source, "close", lambda: None)).result()


@contextmanager
def write_behind(write: Callable[[T], None], size: int = 1) -> Iterator[Callable[[T], None]]:
    """Yield a function that hands an item to `write`, which runs in another thread, one item after the other.

    The function blocks while `size` items are queued behind the one being written, and raises what `write` raised.
    Leaving the block normally waits until everything is written; leaving it by an error drops the items that wait.
    """
    behind: deque[Future[None]] = deque()

    def put(item: T) -> None:
        behind.append(thread.submit(write, item))
        if len(behind) > size + 1:
            behind.popleft().result()

    with ThreadPoolExecutor(1, thread_name_prefix="cloudseg-write") as thread:
        try:
            yield put
            while behind:
                behind[0].result()
                behind.popleft()
        finally:
            for future in behind:
                future.cancel()
            # Not only the executor's own Thread.join: interrupted by an exception of a signal handler, Python 3.11's
            # considers a running thread ended, and the caller closes the file that it writes to.
            wait(behind)


def in_parallel(*tasks: Callable[[], object]) -> None:
    """Do tasks at the same time, each in a thread of its own, and raise the first error once all have ended."""
    with ThreadPoolExecutor(len(tasks), thread_name_prefix="cloudseg-parallel") as threads:
        running = [threads.submit(task) for task in tasks]
        try:
            for task in running:
                task.result()
        finally:
            wait(running)  # as above: their files must not be removed under them
