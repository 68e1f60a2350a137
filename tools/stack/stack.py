"""All services together: started in order of their dependencies, restarted when one ends, stopped at the end."""

import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Final

from tools.airflow_api import AirflowApi, wait_for
from tools.checkout import CHECKOUT, DAG_IDS
from tools.errors import ServiceFailed
from tools.stack.compose import ComposeService, in_checkout, read_compose
from tools.stack.home import StackHome, airflow_environment
from tools.stack.servers import server_spec
from tools.stack.service import Service, ServiceSpec, check_command

PROXY: Final = "s3"
"""Opens only the S3 port of SeaweedFS to other containers; on loopback it is not needed."""
GPU_WORKER: Final = "worker-cpu"
"""Serves the queue `gpu` with the device of CLOUDSEG_DEVICE or the machine; a process needs no device reservation."""
_START_S: Final = 300.0
_RESTART_S: Final = 2.0
"""Seconds before a service that ended is restarted."""


class Stack:
    """The services of a stack, as a context manager: all of them end with the block."""

    def __init__(
        self,
        home: StackHome,
        *,
        settings: Mapping[str, str] | None = None,
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Prepare a stack; nothing runs yet.

        Args:
            home: Its folders, ports and secrets.
            settings: Replacements for variables of docker/airflow.env; tests shorten waits with them.
            report: Called with one line for each event.
        """
        self.home, self._settings, self._report = home, dict(settings or {}), report
        self.services: dict[str, Service] = {}
        self.api = AirflowApi(home.ports["api"], "admin", home.variables["AIRFLOW_ADMIN_PASSWORD"])
        self._watch: threading.Thread | None = None
        self._stopping = threading.Event()

    def __enter__(self) -> "Stack":
        """Return the stack; `start` starts it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything: the services that depend on others first, the servers last."""
        self._stopping.set()
        if self._watch is not None:
            self._watch.join()
        servers = [service for service in self.services.values() if not service.spec.after]
        clients = [service for service in self.services.values() if service.spec.after]
        for group in (clients, servers):
            for service in group:
                service.request_stop()
            for service in group:
                service.wait_until_ended(_START_S)

    def start(self) -> None:
        """Start every service, wait until all are healthy, and restart from then on what ends.

        Raises:
            ServiceFailed: A service did not become healthy.
            SettingsError: The program of a server is missing.
        """
        for described in read_compose(CHECKOUT / "docker" / "compose.yaml", "cpu"):
            if described.name != PROXY:
                self.add(self._spec(described))
        for service in self.services.values():
            if not service.spec.runs_once:
                service.wait_until_healthy(_START_S)
        self._watch = threading.Thread(target=self._restart_ended, name="stack-watch", daemon=True)
        self._watch.start()

    def add(self, spec: ServiceSpec) -> Service:
        """Start a service once its dependencies are healthy or completed.

        Raises:
            ServiceFailed: A dependency failed.
        """
        for name in spec.after:
            before = self.services[name]
            (before.wait_until_completed if before.spec.runs_once else before.wait_until_healthy)(_START_S)
        service = self.services[spec.name] = Service(spec)
        service.start()
        self._report(f"{spec.name} starts")
        return service

    def copy_spec(self, name: str, new_name: str) -> ServiceSpec:
        """Return the spec of one more worker like an existing one, under a new name."""
        spec = self.services[name].spec
        command = [part.replace("@%h", f"-{new_name}@%h") for part in spec.command]
        environment = dict(spec.environment)
        check = self._worker_check(next(part for part in command if "@%h" in part), environment)
        return replace(spec, name=new_name, command=command, log=self.home.logs / f"{new_name}.log", is_healthy=check)

    def unpause_dags(self) -> None:
        """Wait until all DAGs are parsed and unpause them.

        Raises:
            ServiceFailed: They were not parsed in time.
        """
        self.api.log_in()
        wait_for("the DAGs", lambda: all(self.api.has_dag(dag_id) for dag_id in DAG_IDS), limit_s=_START_S)
        for dag_id in DAG_IDS:
            self.api.unpause(dag_id)

    def check(self) -> None:
        """Check that ended services are still restarted.

        Raises:
            ServiceFailed: The thread that does so has ended.
        """
        if self._watch is not None and not self._watch.is_alive() and not self._stopping.is_set():
            raise ServiceFailed("ended services are no longer restarted", subject=str(self.home.root))

    def _spec(self, service: ComposeService) -> ServiceSpec:
        if not service.is_airflow:
            return server_spec(self.home, service)
        environment = airflow_environment(self.home, service, os.environ) | self._settings
        check = check_command(in_checkout(service.check, CHECKOUT), environment) if service.check else lambda: True
        return ServiceSpec(
            name=service.name,
            command=in_checkout(service.command, CHECKOUT),
            environment=environment,
            log=self.home.logs / f"{service.name}.log",
            after=tuple("seaweedfs" if name == PROXY else name for name in service.after),
            is_healthy=check,
            runs_once=service.runs_once,
        )

    def _worker_check(self, hostname: str, environment: Mapping[str, str]) -> Callable[[], bool]:
        script = str(CHECKOUT / "docker" / "healthy.py")
        return check_command(["python", script, "worker", hostname.replace("%h", socket.gethostname())], environment)

    def _restart_ended(self) -> None:
        while not self._stopping.wait(_RESTART_S):
            for service in list(self.services.values()):
                if service.wanted and service.has_ended and not self._stopping.is_set():
                    self._report(f"{service.spec.name} ended and is restarted")
                    service.start()
