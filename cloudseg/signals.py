"""Graceful shutdown: SIGTERM and SIGINT become a request that a long stage checks between two units of work."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass
class StopRequest:
    """Whether a signal has arrived, and which."""

    signal_name: str | None = None


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Record the first SIGTERM or SIGINT in the request that is yielded; a second one has its usual effect.

    Python delivers signals to the main thread only; in any other thread nothing is installed and the handlers of the
    caller stay in place.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def record(number: int, _: FrameType | None) -> None:
        request.signal_name = signal.Signals(number).name
        restore()

    for number in (signal.SIGTERM, signal.SIGINT):
        previous[number] = signal.signal(number, record)
    try:
        yield request
    finally:
        restore()
