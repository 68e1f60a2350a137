"""A real `airflow standalone` that ends with the process that started it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final

from tools.airflow_api import AirflowApi, wait_for
from tools.checkout import DAG_IDS, tail
from tools.demo.home import DemoHome, airflow_environment
from tools.errors import ServiceFailed
from tools.supervisor import supervised

_START_S: Final = 900.0
_STOP_S: Final = 60.0
_GRACE_S: Final = 20.0
"""`airflow standalone` took 6.6 s to stop on a loaded machine with two cores."""


class Standalone:
    """`airflow standalone` in the folder of a demo, as a context manager: it and its children end with the block."""

    def __init__(self, home: DemoHome) -> None:
        self.home = home
        self.api = AirflowApi(home.port, home.user, home.password)
        self._supervisor: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Standalone":
        """Start it without waiting; `wait_until_ready` waits."""
        command = supervised([sys.executable, "-m", "airflow", "standalone"], self.home.log, grace_s=_GRACE_S)
        self._supervisor = subprocess.Popen(
            command, stdin=subprocess.PIPE, env=airflow_environment(self.home, os.environ), start_new_session=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it; a second Ctrl-C meanwhile is ignored."""
        if self._supervisor is None or self._supervisor.stdin is None:
            return
        with _signals_ignored():
            self._supervisor.stdin.close()
            self._supervisor.wait(_STOP_S)

    def check(self) -> None:
        """Check that it still runs.

        Raises:
            ServiceFailed: It has ended; the error holds the end of its output.
        """
        if self._supervisor is None or self._supervisor.poll() is not None:
            raise ServiceFailed(
                "airflow standalone has ended", subject=str(self.home.log), found=tail(self.home.log, 15)
            )

    def wait_until_ready(self) -> None:
        """Wait until all components are healthy and all DAGs are parsed, create the pool and unpause the DAGs.

        Raises:
            ServiceFailed: Airflow ended, or was not ready in time.
        """

        def healthy() -> bool:
            self.check()
            return self.api.is_healthy()

        wait_for("Airflow's components", healthy, limit_s=_START_S)
        self.api.log_in()
        self.api.create_pool("gpu", 1, "one training at a time")
        wait_for("the DAGs", lambda: all(self.api.has_dag(dag_id) for dag_id in DAG_IDS), limit_s=_START_S)
        for dag_id in DAG_IDS:
            self.api.unpause(dag_id)


@contextmanager
def _signals_ignored() -> Iterator[None]:
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
