"""Calls to Airflow's REST API (v2)."""

import json
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import Any, Final
from urllib.parse import quote, urlencode

from cloudseg.records import Json
from tools.errors import ServiceFailed

_ANSWER_S: Final = 180.0
_COMPONENTS: Final = ("metadatabase", "scheduler", "triggerer", "dag_processor")
ENDED: Final = ("success", "failed")


class AirflowApi:
    """Calls to one Airflow on loopback, as one user."""

    def __init__(self, port: int, user: str, password: str) -> None:
        self._port = port
        self._login = {"username": user, "password": password}
        self._token: str | None = None

    def call(self, method: str, path: str, body: Json | None = None, *, accept: tuple[int, ...] = (200, 201)) -> Any:
        """Send one request and return the JSON of the answer, None if it is empty.

        Args:
            method: HTTP method.
            path: Path with query.
            body: JSON to send.
            accept: HTTP statuses that are not an error.

        Raises:
            ServiceFailed: The answer has another status.
            OSError: There was no complete answer.
        """
        status, text = self._send(method, path, body)
        if status not in accept:
            raise ServiceFailed(
                "Airflow refused a request",
                subject=f"{method} {path}",
                found=f"{status}: {text[:400]}",
                expected=accept,
            )
        return json.loads(text) if text else None

    def _send(self, method: str, path: str, body: Json | None) -> tuple[int, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        connection = HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER_S)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except HTTPException as error:
            raise OSError(f"no complete answer from {path}: {error!r}") from error
        finally:
            connection.close()

    def is_healthy(self) -> bool:
        """Return whether all components report that they are healthy."""
        try:
            health = self.call("GET", "/api/v2/monitor/health")
        except (OSError, ServiceFailed):
            return False
        return all((health.get(name) or {}).get("status") == "healthy" for name in _COMPONENTS)

    def log_in(self) -> None:
        """Get a token for later calls."""
        self._token = self.call("POST", "/auth/token", self._login)["access_token"]

    def create_pool(self, name: str, slots: int, description: str) -> None:
        """Create a pool; an existing pool of that name is unchanged."""
        self.call(
            "POST", "/api/v2/pools", {"name": name, "slots": slots, "description": description}, accept=(201, 409)
        )

    def has_dag(self, dag_id: str) -> bool:
        """Return whether Airflow has parsed the DAG."""
        return "dag_id" in self.call("GET", f"/api/v2/dags/{dag_id}", accept=(200, 404))

    def unpause(self, dag_id: str) -> None:
        """Unpause a DAG."""
        self.call("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})

    def trigger(self, dag_id: str, conf: Json) -> str:
        """Trigger a DAG run with `conf` as its params and return its id."""
        return str(
            self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"]
        )

    def runs(self, dag_id: str) -> dict[str, str]:
        """Return the states of the newest 50 runs by id, newest first."""
        found = self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns?" + urlencode({"limit": 50, "order_by": "-id"}))
        return {run["dag_run_id"]: run["state"] for run in found["dag_runs"]}

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a DAG run."""
        return str(self.call("GET", _run_path(dag_id, run_id))["state"])

    def tasks(self, dag_id: str, run_id: str) -> list[Json]:
        """Return the task instances of a DAG run, one for each map index."""
        return list(self.call("GET", f"{_run_path(dag_id, run_id)}/taskInstances?limit=200")["task_instances"])

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str, map_index: int = -1) -> Any:
        """Return an XCom value of a task, None if there is none."""
        query = urlencode({"map_index": map_index, "deserialize": "true"})
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/{key}?{query}"
        return self.call("GET", path, accept=(200, 404)).get("value")

    def log_tail(self, dag_id: str, run_id: str, task: Json, lines: int = 25) -> list[str]:
        """Return the last lines of the log of a task's newest try."""
        query = urlencode({"map_index": task["map_index"], "full_content": "true"})
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{task['task_id']}/logs/{task['try_number']}?{query}"
        return [line for entry in self.call("GET", path)["content"] for line in log_lines(entry)][-lines:]


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


def log_lines(entry: Json | str) -> list[str]:
    """Return the lines of a structured log entry: its event, then type and message of its errors."""
    if isinstance(entry, str):
        return entry.splitlines()
    errors = [f"{error.get('exc_type')}: {error.get('exc_value')}" for error in entry.get("error_detail") or []]
    return [*str(entry.get("event", "")).splitlines(), *errors]


def wait_for(what: str, ready: Callable[[], bool], *, limit_s: float, every_s: float = 0.5) -> None:
    """Wait until `ready()` is true.

    Args:
        what: What is waited for, for the error message.
        ready: The condition.
        limit_s: Longest wait in seconds.
        every_s: Seconds between two calls of `ready`.

    Raises:
        ServiceFailed: `ready()` is still false after `limit_s`.
    """
    until = time.monotonic() + limit_s
    while not ready():
        if time.monotonic() > until:
            raise ServiceFailed(f"timed out after {limit_s:.0f} s waiting for {what}", subject="Airflow")
        time.sleep(every_s)
