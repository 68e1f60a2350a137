"""One process of the stack with all that it starts: started through a keeper, asked for its health, stopped, killed."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from cloudseg.errors import ServiceFailed

_STOP_S: Final = 120.0
_CHECK_S: Final = 60.0


@dataclass(frozen=True)
class Plan:
    """How a service is started and how one sees that it is well."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    after: tuple[str, ...] = ()
    is_well: Callable[[], bool] = lambda: True
    runs_once: bool = False
    patience_s: float = 20.0
    """How long it may take to end by itself after it was asked to."""


def check_command(command: Sequence[str], environment: Mapping[str, str]) -> Callable[[], bool]:
    """Return a health check that runs a command: well where it ends with 0."""

    def is_well() -> bool:
        try:
            done = subprocess.run(  # noqa: S603  (commands of the compose file)
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_CHECK_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    return is_well


class Service:
    """A running plan.

    Its keeper lives in a session of its own and ends everything with it, also when this process is killed.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.wanted = False
        """Whether it should run: one that ended although it is wanted is started again."""
        self._keeper: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, for the first time or again; what it prints is added to its log."""
        self.ask_to_stop()
        command = [
            sys.executable,
            "-m",
            "cloudseg.demo.keeper",
            str(self.plan.log),
            str(self.plan.patience_s),
            *self.plan.command,
        ]
        self._keeper = subprocess.Popen(  # noqa: S603  (no part of it comes from outside)
            command, stdin=subprocess.PIPE, env=dict(self.plan.environment), start_new_session=True
        )
        self.wanted = not self.plan.runs_once

    @property
    def has_ended(self) -> bool:
        """Return whether it has ended, whatever the reason."""
        return self._keeper is None or self._keeper.poll() is not None

    def processes(self) -> list[psutil.Process]:
        """List its living processes, without the keeper."""
        if self._keeper is None or self._keeper.poll() is not None:
            return []
        try:
            return [
                process for process in psutil.Process(self._keeper.pid).children(recursive=True) if process.is_running()
            ]
        except psutil.NoSuchProcess:
            return []

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its first process, as `docker stop` and `systemctl stop` do; it is not started again."""
        self.wanted = False
        if self._keeper is not None:
            for process in psutil.Process(self._keeper.pid).children():
                process.send_signal(number)

    def kill(self, *, start_again: bool) -> None:
        """Kill -9 all its processes at once: what a crash or a power cut looks like to the others."""
        self.wanted = start_again
        victims = self.processes()
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none sees another one die
            for process in victims:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        self.wait_for_end(_STOP_S)

    def wait_for_end(self, limit_s: float) -> None:
        """Wait until nothing of it is left. Raises ServiceFailed after the limit."""
        keeper = (
            self._keeper
        )  # the watch may start the service again, under a new keeper, as soon as this one has ended
        if keeper is None:
            return
        try:
            keeper.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            raise ServiceFailed(
                f"did not end within {limit_s:.0f} s", subject=self.plan.name, found=self.tail()
            ) from error
        if keeper.stdin is not None:
            keeper.stdin.close()

    def wait_until_through(self, limit_s: float) -> None:
        """Wait for the end of a service that runs once. Raises ServiceFailed where it failed."""
        self.wait_for_end(limit_s)
        if self._keeper is not None and self._keeper.returncode:
            raise ServiceFailed("failed", subject=self.plan.name, found=self.tail())

    def ask_to_stop(self) -> None:
        """Let the keeper end it; `wait_for_end` waits."""
        self.wanted = False
        if self._keeper is not None and self._keeper.stdin is not None:
            self._keeper.stdin.close()

    def wait_until_well(self, limit_s: float) -> None:
        """Wait until it is well. Raises ServiceFailed, with the end of its log, where it ended or after the limit."""
        until = time.monotonic() + limit_s
        while not self.plan.is_well():
            if self.has_ended:
                self.ask_to_stop()
                raise ServiceFailed("ended at its start", subject=self.plan.name, found=self.tail())
            if time.monotonic() > until:
                raise ServiceFailed(f"not well after {limit_s:.0f} s", subject=self.plan.name, found=self.tail())
            time.sleep(0.3)

    def tail(self, lines: int = 12) -> str:
        """Return the end of what it printed."""
        found = (
            self.plan.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.plan.log.is_file() else []
        )
        return "\n" + "\n".join(found[-lines:])
