"""A polite end: SIGTERM and SIGINT ask the training to write a checkpoint and leave."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass
class StopRequest:
    """Whether a signal came, and which."""

    signal_name: str | None = None


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Turn the first SIGTERM or SIGINT into a request; a second one has its usual effect.

    Signals can only be caught in the main thread; elsewhere nothing is caught and the caller's own handling stands.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, _: FrameType | None) -> None:
        request.signal_name = signal.Signals(number).name
        restore()

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, ask)
    try:
        yield request
    finally:
        restore()
