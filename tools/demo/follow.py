"""Progress of a DAG run in a terminal: the running task, the newest epoch, the remaining time."""

import time
from typing import Final

from rich.markup import escape

from cloudseg.catalog import Catalog, model_rows, scene_rows, training_rows
from cloudseg.errors import CloudsegError
from cloudseg.records import Epoch, Json
from tools.airflow_api import ENDED
from tools.demo.standalone import Standalone
from tools.errors import ServiceFailed
from tools.terminal import Screen

_POLL_S: Final = 1.0
_LOOK_S: Final = 5.0
"""Seconds between two looks into the log of a training."""
FINISHING: Final = "finishing: "
"""Begins a sub-step in the log of a training (`cloudseg.train.finish`)."""
_WAITING: Final = ("queued", "scheduled", "up_for_retry", "awaiting_input")
_MAX_NAME_LENGTH: Final = 32
_SYMBOLS: Final = {
    "success": "[green]✓[/]",
    "failed": "[red]✗[/]",
    "skipped": "[dim]–[/]",
    "upstream_failed": "[red]–[/]",
}


class RunFollower:
    """Follower of DAG runs that prints their progress."""

    def __init__(self, service: Standalone, screen: Screen, catalog: Catalog) -> None:
        self._service = service
        self._screen = screen
        self._catalog = catalog
        self._printed: set[tuple[str, int]] = set()
        self._printed_epochs: set[tuple[str, int]] = set()
        self._sub_step, self._looked_at = "the last epoch", 0.0

    def follow(self, dag_id: str, run_id: str, *, limit_s: float, minutes: float | None = None) -> None:
        """Wait for the end of a DAG run and print its progress.

        Args:
            dag_id: The DAG.
            run_id: The DAG run.
            limit_s: Longest wait in seconds.
            minutes: Training budget, to print the remaining time.

        Raises:
            ServiceFailed: A task failed (the end of its log is printed), or the run did not end in time.
        """
        until = time.monotonic() + limit_s
        self._printed.clear()
        with self._screen.busy(f"{dag_id} …") as show:
            while True:
                self._service.check()
                state, tasks = self._service.api.run_state(dag_id, run_id), self._service.api.tasks(dag_id, run_id)
                self._print_ended(dag_id, run_id, tasks)
                show(f"{dag_id}  " + (self._status(tasks, minutes) or state))
                if state in ENDED:
                    break
                if time.monotonic() > until:
                    raise ServiceFailed(
                        f"the run did not end within {limit_s:.0f} s", subject=f"{dag_id} {run_id}", found=state
                    )
                time.sleep(_POLL_S)
        if state == "failed":
            self._raise_failure(dag_id, run_id, tasks)

    def _print_ended(self, dag_id: str, run_id: str, tasks: list[Json]) -> None:
        for task in sorted(tasks, key=lambda task: str(task["end_date"])):
            key = (task["task_id"], task["map_index"])
            if task["state"] not in _SYMBOLS or key in self._printed:
                continue
            self._printed.add(key)
            self._screen.print(
                f"{_SYMBOLS[task['state']]} {dag_id} · {_name(task)}{self._detail(dag_id, run_id, task)}"
            )

    def _detail(self, dag_id: str, run_id: str, task: Json) -> str:
        if task["state"] == "skipped":
            reason = self._service.api.xcom(dag_id, run_id, task["task_id"], "reason", task["map_index"])
            return f"  [dim]{escape(str(reason)) if reason else 'skipped'}[/]"
        return f"  [dim]{task['duration']:.1f} s[/]" if task["duration"] else ""

    def _status(self, tasks: list[Json], minutes: float | None) -> str:
        running = {task["task_id"] for task in tasks if task["state"] == "running"}
        try:
            if "train" in running:
                return format_tasks(tasks) + self._training_status(tasks, minutes)
            return format_tasks(tasks) + (self._counts() if running & {"ingest", "predict"} else "")
        except CloudsegError:
            return format_tasks(tasks)  # the task is creating the catalog

    def _counts(self) -> str:
        """Return the counts of the catalog for the status line."""
        with self._catalog.read() as db:
            masks, bad = len(model_rows.list_masks(db)), len(scene_rows.list_quarantined(db))
            words = [
                f"{scene_rows.count_scenes(db)} scenes",
                f"{masks} masks" if masks else "",
                f"{bad} in quarantine" if bad else "",
            ]
        return " · " + ", ".join(word for word in words if word)

    def _training_status(self, tasks: list[Json], minutes: float | None) -> str:
        """Print new epochs of the newest training run; return its remaining time for the status line."""
        with self._catalog.read() as db:
            runs = training_rows.list_runs(db, limit=1)
            epochs = training_rows.list_epochs(db, runs[0].run_id) if runs else []
        for epoch in epochs:
            if (epoch.run_id, epoch.epoch) not in self._printed_epochs:
                self._printed_epochs.add((epoch.run_id, epoch.epoch))
                self._screen.print(f"  training · {format_epoch(epoch)}")
        if not runs or minutes is None:
            return ""
        from cloudseg.catalog.session import now

        left = minutes * 60 - (now() - runs[0].created_at).total_seconds()
        if left > 0:
            return f" · about {int(left) // 60}:{int(left) % 60:02d} left"
        if not epochs:
            return " · the budget is over before the first epoch: this machine is busy"
        return f" · finishing: {self._finishing(tasks)}"

    def _finishing(self, tasks: list[Json]) -> str:
        """Return what the training does after its last step, from its log, looked at now and then."""
        if time.monotonic() - self._looked_at > _LOOK_S:
            self._looked_at = time.monotonic()
            newest = [line.partition(FINISHING)[2] for line in self._log_of_training(tasks) if FINISHING in line][-1:]
            self._sub_step = newest[0].partition('"')[0] if newest else self._sub_step
        return self._sub_step

    def _log_of_training(self, tasks: list[Json]) -> list[str]:
        """Return the lines of the training's log from its file.

        The API would look for it on a log server, too, which the demo does not start, and log an error each time.
        """
        (task,) = [task for task in tasks if task["task_id"] == "train"]
        folder = self._service.home.airflow / "logs" / f"dag_id={task['dag_id']}" / f"run_id={task['dag_run_id']}"
        path = folder / "task_id=train" / f"attempt={task['try_number']}.log"
        return path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []

    def _raise_failure(self, dag_id: str, run_id: str, tasks: list[Json]) -> None:
        failed = [task for task in tasks if task["state"] == "failed"]
        for task in failed:
            self._screen.print(f"[red]end of the log of {_name(task)}:[/]")
            for line in self._service.api.log_tail(dag_id, run_id, task):
                self._screen.console.print("    " + escape(line), soft_wrap=True)
        raise ServiceFailed(
            "a task failed", subject=f"{dag_id} {run_id}", found=", ".join(map(_name, failed)) or "a failed run"
        )


def format_tasks(tasks: list[Json]) -> str:
    """Return one short line about the running and waiting tasks, however many there are."""
    running = [task for task in tasks if task["state"] == "running"]
    waiting = [task for task in tasks if task["state"] in _WAITING]
    shown = (running or waiting)[:1]
    words = [f"{_name(task)[:_MAX_NAME_LENGTH]} ({task['state']})" for task in shown]
    words += [f"{len(running) - 1} more running"] if len(running) > 1 else []
    left = len(waiting) - (0 if running else len(shown))
    return ", ".join([*words, f"{left} waiting"] if left > 0 else words)


def format_epoch(epoch: Epoch) -> str:
    """Return one line with the figures of an epoch."""
    words = {"train_loss": "loss {:.3f}", "validation_iou": "validation IoU {:.3f}", "images_per_s": "{:.1f} images/s"}
    known = [
        words[name].format(epoch.metrics[name]) for name in words if isinstance(epoch.metrics.get(name), int | float)
    ]
    return " · ".join([f"epoch {epoch.epoch}", f"step {epoch.step}", *known])


def _name(task: Json) -> str:
    shown = task.get("rendered_map_index")
    return f"{task['task_id']}: {shown}" if shown else str(task["task_id"])
