"""Leaving the writer's block by any way leaves no thread behind that still writes."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import pytest

from cloudseg.predict.pipeline import write_behind


class Alarm(Exception):
    """What a task's time limit raises in the main thread."""


def _write_one(write: Callable[[int], None], writing: threading.Event, *, fails: bool) -> None:
    with write_behind(write) as put:
        put(1)
        assert writing.wait(60)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        if fails:
            raise KeyError


@pytest.mark.parametrize("fails", [False, True])
def test_a_signal_while_waiting_for_the_writer_still_waits_for_it(fails: bool) -> None:
    """Else the caller closes the file under the writer, and the process dies of it."""
    writing = threading.Event()

    def write(_: int) -> None:
        writing.set()
        time.sleep(1)
        writing.clear()

    def ring(number: int, frame: FrameType | None) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with pytest.raises(Alarm):
            _write_one(write, writing, fails=fails)
        assert not writing.is_set()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
