"""A real `airflow standalone` that ends with its owner."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final

from cloudseg.demo.api import AirflowApi, wait_for
from cloudseg.demo.home import Home, airflow_environment
from cloudseg.errors import ServiceFailed

DAG_IDS: Final = ("cloudseg_ingest", "cloudseg_retrain", "cloudseg_predict", "cloudseg_maintain")
_START_S: Final = 240.0
_STOP_S: Final = 60.0
_PATIENCE_S: Final = 20.0
"""`airflow standalone` took 6.6 s to stop on a loaded machine of two cores."""


class Standalone:
    """`airflow standalone` on a home. Use it as a context: at the end of the block nothing of it is left."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.api = AirflowApi(home.port, home.user, home.password)
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Standalone":
        """Start it; `wait_until_ready` waits."""
        command = [
            sys.executable,
            "-m",
            "cloudseg.demo.keeper",
            str(self.home.log),
            str(_PATIENCE_S),
            sys.executable,
            "-m",
            "airflow",
            "standalone",
        ]
        self._keeper = subprocess.Popen(  # noqa: S603  (no part of it comes from outside)
            command, stdin=subprocess.PIPE, env=airflow_environment(self.home, os.environ), start_new_session=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it; a second Ctrl-C meanwhile changes nothing."""
        if self._keeper is None or self._keeper.stdin is None:
            return
        with _deaf():
            self._keeper.stdin.close()
            self._keeper.wait(_STOP_S)

    def check(self) -> None:
        """Raise ServiceFailed, with the end of its output, where it has ended."""
        if self._keeper is None or self._keeper.poll() is not None:
            raise ServiceFailed("airflow standalone has ended", subject=str(self.home.log), found=self._tail())

    def wait_until_ready(self) -> None:
        """Wait until all components are well and the four DAGs are read; then make the pool and let the DAGs run.

        Raises ServiceFailed.
        """

        def healthy() -> bool:
            self.check()
            return self.api.is_healthy()

        wait_for("Airflow's components", healthy, limit_s=_START_S)
        self.api.log_in()
        self.api.make_pool("gpu", 1, "one training at a time")
        wait_for("the DAG files", lambda: all(self.api.has_dag(dag_id) for dag_id in DAG_IDS), limit_s=_START_S)
        for dag_id in DAG_IDS:
            self.api.unpause(dag_id)

    def _tail(self) -> str:
        lines = (
            self.home.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.home.log.is_file() else []
        )
        return "\n" + "\n".join(lines[-15:])


@contextmanager
def _deaf() -> Iterator[None]:
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
