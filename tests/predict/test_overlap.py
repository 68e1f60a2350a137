"""Threads end, errors come up, queues do not grow."""

import threading
import time
from collections.abc import Iterator

import pytest

from cloudseg.predict.pipeline import in_parallel, read_ahead, write_behind


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("cloudseg-")]


def test_order_is_kept_and_threads_end() -> None:
    written: list[int] = []
    with write_behind(written.append) as put, read_ahead(range(50)) as items:
        for item in items:
            put(item)
    assert written == list(range(50))
    assert threads() == []


def test_reading_stays_a_bounded_number_of_items_ahead() -> None:
    made: list[int] = []

    def count() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    with read_ahead(count(), size=2) as items:
        for taken, _ in enumerate(items, start=1):
            time.sleep(0.002)
            assert len(made) <= taken + 3  # two wait, one is in the making
            if taken == 20:
                break
    assert threads() == []


def test_reading_happens_and_is_closed_in_one_thread() -> None:
    names: list[str] = []

    def items() -> Iterator[int]:
        names.append(threading.current_thread().name)
        try:
            yield from range(1000)
        finally:
            names.append(threading.current_thread().name)

    with read_ahead(items()) as ahead:
        next(ahead)
    assert names == ["cloudseg-read_0", "cloudseg-read_0"]


def test_an_error_while_reading_comes_up() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    with read_ahead(items()) as ahead:
        assert next(ahead) == 1
        with pytest.raises(OSError, match="disk"):
            next(ahead)
    assert threads() == []


def test_an_error_while_writing_comes_up_even_after_the_last_item() -> None:
    def write(item: int) -> None:
        raise OSError(f"full at {item}")

    with pytest.raises(OSError, match="full at 7"), write_behind(write) as put:
        put(7)

    def write_many() -> None:
        with write_behind(write) as put:
            for item in range(100):
                put(item)

    with pytest.raises(OSError, match="full at 0"):
        write_many()
    assert threads() == []


def test_an_error_of_the_caller_drops_what_waits() -> None:
    written: list[int] = []

    def write(item: int) -> None:
        time.sleep(0.05)
        written.append(item)

    def fail() -> None:
        with write_behind(write, size=10) as put:
            for item in range(5):
                put(item)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert len(written) <= 2
    assert threads() == []


def test_tasks_run_at_the_same_time_and_the_first_error_comes_up_when_all_have_ended() -> None:
    meet = threading.Barrier(2, timeout=10)
    done: list[int] = []

    def fail() -> None:
        meet.wait()
        raise OSError("disk")

    def work() -> None:
        meet.wait()
        time.sleep(0.05)
        done.append(1)

    with pytest.raises(OSError, match="disk"):
        in_parallel(fail, work)
    assert done == [1]
    assert threads() == []
