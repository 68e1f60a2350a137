"""A deadline in CPU time of other processes, so that a file does not fail because the machine is busy."""

import time
from collections.abc import Iterable
from typing import Final

import psutil

_WALL_FACTOR: Final = 10.0
"""A job that needs this many times its limit in wall time did not get the CPU."""
_MIN_WAIT_S: Final = 0.05


class CpuDeadline:
    """Limit of a job in CPU time of its processes together from now on, and of `_WALL_FACTOR` times as much wall time.

    A process that sleeps uses no CPU; the wall time ends it.
    """

    def __init__(self, pids: Iterable[int], limit_s: float) -> None:
        self._processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        self._spent_s = dict.fromkeys(self._processes, 0.0)
        self._before_s = self._cpu_s()
        self._limit_s = self._cpu_end = limit_s
        self._wall_end = time.monotonic() + _WALL_FACTOR * limit_s

    def extend(self, factor: float) -> None:
        """Raise the limit to `factor` times the original one, counted from the start."""
        self._cpu_end += (factor - 1) * self._limit_s
        self._wall_end += _WALL_FACTOR * (factor - 1) * self._limit_s

    @property
    def was_starved(self) -> bool:
        """Whether the processes have not used up their CPU time."""
        return self._cpu_s() - self._before_s < self._cpu_end

    def is_over(self) -> bool:
        """Return whether CPU time or wall time has run out."""
        return not self.was_starved or time.monotonic() >= self._wall_end

    def wait_s(self) -> float:
        """Return the seconds in which the CPU time cannot run out, as each process computes in one thread."""
        cpu_s = (self._cpu_end - self._cpu_s() + self._before_s) / max(1, len(self._processes))
        return max(_MIN_WAIT_S, min(cpu_s, self._wall_end - time.monotonic()))

    def _cpu_s(self) -> float:
        for process in self._processes:
            try:
                spent = process.cpu_times()
            except psutil.Error:
                continue  # it has ended, which the caller detects at its pipe; what it used still counts
            self._spent_s[process] = float(spent.user + spent.system)
        return sum(self._spent_s.values())
