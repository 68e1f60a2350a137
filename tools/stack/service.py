"""One service of the stack: started under a supervisor, checked for health, stopped, killed."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tools.checkout import tail
from tools.errors import ServiceFailed
from tools.supervisor import supervised

_STOP_S: Final = 120.0
_CHECK_S: Final = 60.0
_LOG_LINES: Final = 12


@dataclass(frozen=True)
class ServiceSpec:
    """How a service is started, and how its health is checked."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    after: tuple[str, ...] = ()
    """Services that must be healthy, or completed, before it starts."""
    is_healthy: Callable[[], bool] = lambda: True
    runs_once: bool = False
    grace_s: float = 20.0
    """Seconds that it may take to end after the stop signal."""


def check_command(command: Sequence[str], environment: Mapping[str, str]) -> Callable[[], bool]:
    """Return a health check that runs a command; exit status 0 means healthy."""

    def is_healthy() -> bool:
        try:
            done = subprocess.run(
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

    return is_healthy


class Service:
    """A service that was started, with all its processes.

    Its supervisor runs in a separate session and ends all of them with it, also when this process is killed.
    """

    def __init__(self, spec: ServiceSpec) -> None:
        self.spec = spec
        self.wanted = False
        """Whether it should run; one that ended although it is wanted is restarted."""
        self._supervisor: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start or restart it; its output is appended to its log."""
        self.request_stop()
        self._supervisor = subprocess.Popen(
            supervised(self.spec.command, self.spec.log, grace_s=self.spec.grace_s),
            stdin=subprocess.PIPE,
            env=dict(self.spec.environment),
            start_new_session=True,
        )
        self.wanted = not self.spec.runs_once

    @property
    def has_ended(self) -> bool:
        """Return whether it does not run, whatever the reason."""
        return self._supervisor is None or self._supervisor.poll() is not None

    def processes(self) -> list[psutil.Process]:
        """Return its running processes without the supervisor."""
        if self._supervisor is None or self._supervisor.poll() is not None:
            return []
        try:
            children = psutil.Process(self._supervisor.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [process for process in children if process.is_running()]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its first process, as `docker stop` and `systemctl stop` do; it is not restarted."""
        self.wanted = False
        if self._supervisor is not None:
            for process in psutil.Process(self._supervisor.pid).children():
                process.send_signal(number)

    def kill(self, *, restart: bool) -> None:
        """Kill all its processes at once with SIGKILL, as a crash or a power failure would.

        Args:
            restart: Whether it is wanted afterwards.

        Raises:
            ServiceFailed: It did not end.
        """
        self.wanted = restart
        processes = self.processes()
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none reacts to the end of another one
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        self.wait_until_ended(_STOP_S)

    def wait_until_ended(self, limit_s: float) -> None:
        """Wait until all its processes have ended.

        Raises:
            ServiceFailed: Some still run after `limit_s` seconds.
        """
        # The watch may restart the service, under a new supervisor, as soon as this one has ended.
        supervisor = self._supervisor
        if supervisor is None:
            return
        try:
            supervisor.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            raise self._failure(f"did not end within {limit_s:.0f} s") from error
        if supervisor.stdin is not None:
            supervisor.stdin.close()

    def wait_until_completed(self, limit_s: float) -> None:
        """Wait for the end of a service that runs once.

        Raises:
            ServiceFailed: It failed, or still runs after `limit_s` seconds.
        """
        self.wait_until_ended(limit_s)
        if self._supervisor is not None and self._supervisor.returncode:
            raise self._failure("failed")

    def request_stop(self) -> None:
        """Let the supervisor stop it, without waiting; `wait_until_ended` waits."""
        self.wanted = False
        if self._supervisor is not None and self._supervisor.stdin is not None:
            self._supervisor.stdin.close()

    def wait_until_healthy(self, limit_s: float) -> None:
        """Wait until its health check succeeds.

        Raises:
            ServiceFailed: It ended, or is not healthy after `limit_s` seconds; the error holds the end of its log.
        """
        until = time.monotonic() + limit_s
        while not self.spec.is_healthy():
            if self.has_ended:
                self.request_stop()
                raise self._failure("ended at its start")
            if time.monotonic() > until:
                raise self._failure(f"not healthy after {limit_s:.0f} s")
            time.sleep(0.3)

    def _failure(self, what: str) -> ServiceFailed:
        return ServiceFailed(what, subject=self.spec.name, found=tail(self.spec.log, _LOG_LINES))
