"""All services together: start order by health, a watch that starts again what ended, one end for everything."""

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Final

from cloudseg.demo.api import AirflowApi, wait_for
from cloudseg.demo.home import checkout_folder
from cloudseg.demo.service import DAG_IDS
from cloudseg.errors import ServiceFailed
from cloudseg.stack.compose import ComposeService, here, read_compose
from cloudseg.stack.place import Place, airflow_environment
from cloudseg.stack.servers import server_plan
from cloudseg.stack.service import Plan, Service, check_command

PROXY: Final = "s3"
"""Keeps everything but the S3 port away from other containers; on loopback there is nobody to keep away."""
GPU_WORKER: Final = "worker-cpu"
"""Serves the queue `gpu` with the device that CLOUDSEG_DEVICE or the machine gives.

A process needs no device reservation.
"""
_START_S: Final = 300.0
_AGAIN_S: Final = 2.0
"""Pause before a service that ended is started again."""


class Stack:
    """The running services of a place. Use it as a context: at the end of the block nothing of it is left."""

    def __init__(
        self,
        place: Place,
        *,
        settings: Mapping[str, str] | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`settings` replace single variables of docker/airflow.env (tests wait less long).

        `tell` gets one line for each event.
        """
        self.place, self._settings, self._tell = place, dict(settings or {}), tell
        self.services: dict[str, Service] = {}
        self.api = AirflowApi(place.ports["api"], "admin", place.variables["AIRFLOW_ADMIN_PASSWORD"])
        self._watch: threading.Thread | None = None
        self._ends = threading.Event()

    def __enter__(self) -> "Stack":
        """Nothing runs yet; `start` starts."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything: what waits for others first, the servers last."""
        self._ends.set()
        if self._watch is not None:
            self._watch.join()
        servers = [service for service in self.services.values() if not service.plan.after]
        clients = [service for service in self.services.values() if service.plan.after]
        for group in (clients, servers):
            for service in group:
                service.ask_to_stop()
            for service in group:
                service.wait_for_end(_START_S)

    def start(self) -> None:
        """Start every service once those that it waits for are well, then watch over them.

        Raises ServiceFailed, SettingsError.
        """
        for described in read_compose(checkout_folder() / "docker" / "compose.yaml", "cpu"):
            if described.name != PROXY:
                self.add(self._plan(described))
        for service in self.services.values():
            if not service.plan.runs_once:
                service.wait_until_well(_START_S)
        self._watch = threading.Thread(target=self._watch_over, name="stack-watch", daemon=True)
        self._watch.start()

    def add(self, plan: Plan) -> Service:
        """Start a service after those that it waits for; return it. Raises ServiceFailed."""
        for name in plan.after:
            before = self.services[name]
            (before.wait_until_through if before.plan.runs_once else before.wait_until_well)(_START_S)
        service = self.services[plan.name] = Service(plan)
        service.start()
        self._tell(f"{plan.name} starts")
        return service

    def another(self, name: str, new_name: str) -> Plan:
        """Return the plan of one more worker like an existing one, under a name of its own."""
        plan = self.services[name].plan
        command = [part.replace("@%h", f"-{new_name}@%h") for part in plan.command]
        environment = dict(plan.environment)
        check = self._worker_check(next(part for part in command if "@%h" in part), environment)
        return replace(plan, name=new_name, command=command, log=self.place.logs / f"{new_name}.log", is_well=check)

    def let_dags_run(self) -> None:
        """Wait until the four DAGs are read and let them run. Raises ServiceFailed."""
        self.api.log_in()
        wait_for("the DAG files", lambda: all(self.api.has_dag(dag_id) for dag_id in DAG_IDS), limit_s=_START_S)
        for dag_id in DAG_IDS:
            self.api.unpause(dag_id)

    def check(self) -> None:
        """Raise ServiceFailed where nobody watches any more."""
        if self._watch is not None and not self._watch.is_alive() and not self._ends.is_set():
            raise ServiceFailed("the stack is no longer watched over", subject=str(self.place.root))

    def _plan(self, service: ComposeService) -> Plan:
        if not service.is_airflow:
            return server_plan(self.place, service)
        environment = airflow_environment(self.place, service, os.environ) | self._settings
        after = tuple("seaweedfs" if name == PROXY else name for name in service.after)
        return Plan(
            name=service.name,
            command=here(service.command, checkout_folder()),
            environment=environment,
            log=self.place.logs / f"{service.name}.log",
            after=after,
            is_well=check_command(here(service.check, checkout_folder()), environment)
            if service.check
            else lambda: True,
            runs_once=service.runs_once,
        )

    def _worker_check(self, hostname: str, environment: Mapping[str, str]) -> Callable[[], bool]:
        import socket

        script = str(checkout_folder() / "docker" / "healthy.py")
        return check_command(["python", script, "worker", hostname.replace("%h", socket.gethostname())], environment)

    def _watch_over(self) -> None:
        while not self._ends.wait(_AGAIN_S):
            for service in list(self.services.values()):
                if service.wanted and service.has_ended and not self._ends.is_set():
                    self._tell(f"{service.plan.name} ended and starts again")
                    service.start()
