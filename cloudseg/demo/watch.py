"""Following one DAG run in a terminal: which task runs, which epoch, how long still."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.markup import escape

from cloudseg.catalog import Catalog, model_rows, scene_rows, training_rows
from cloudseg.demo.api import ENDED
from cloudseg.demo.service import Standalone
from cloudseg.errors import CloudsegError, ServiceFailed
from cloudseg.records import Epoch, Json

_POLL_S: Final = 1.0
_WAITING: Final = ("queued", "scheduled", "up_for_retry", "awaiting_input")
_LONGEST_NAME: Final = 32
_SIGNS: Final = {
    "success": "[green]✓[/]",
    "failed": "[red]✗[/]",
    "skipped": "[dim]–[/]",
    "upstream_failed": "[red]–[/]",
}


class Screen:
    """Lines that stay, and one that moves where stderr is a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line that stays, with the time since the start."""
        seconds = int(time.monotonic() - self._began)
        self.console.print(f"[dim]{seconds // 60:2d}:{seconds % 60:02d}[/]  {text}", soft_wrap=True)

    @contextmanager
    def busy(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show that something goes on; the value changes the moving line."""
        with self.console.status(text) as status:
            yield lambda words: status.update(words)


class Follower:
    """Follows a DAG run until it ends."""

    def __init__(self, service: Standalone, screen: Screen, catalog: Catalog) -> None:
        self._service = service
        self._screen = screen
        self._catalog = catalog
        self._told: set[tuple[str, int]] = set()
        self._epochs: set[tuple[str, int]] = set()

    def follow(self, dag_id: str, run_id: str, *, limit_s: float, minutes: float | None = None) -> None:
        """Wait for the end of a run and tell what happens in it.

        `minutes` is the training's budget, for the time that is left. Raises ServiceFailed with the end of the task's
        log where a task failed, or after the limit.
        """
        until = time.monotonic() + limit_s
        self._told.clear()
        with self._screen.busy(f"{dag_id} …") as show:
            while True:
                self._service.check()
                state, tasks = self._service.api.run_state(dag_id, run_id), self._service.api.tasks(dag_id, run_id)
                self._tell_ended(dag_id, run_id, tasks)
                show(f"{dag_id}  " + (self._now(tasks, minutes) or state))
                if state in ENDED:
                    break
                if time.monotonic() > until:
                    raise ServiceFailed(
                        f"the run did not end within {limit_s:.0f} s", subject=f"{dag_id} {run_id}", found=state
                    )
                time.sleep(_POLL_S)
        if state == "failed":
            self._explain(dag_id, run_id, tasks)

    def _tell_ended(self, dag_id: str, run_id: str, tasks: list[Json]) -> None:
        for task in sorted(tasks, key=lambda task: str(task["end_date"])):
            key = (task["task_id"], task["map_index"])
            if task["state"] not in _SIGNS or key in self._told:
                continue
            self._told.add(key)
            self._screen.say(f"{_SIGNS[task['state']]} {dag_id} · {_name(task)}{self._detail(dag_id, run_id, task)}")

    def _detail(self, dag_id: str, run_id: str, task: Json) -> str:
        if task["state"] == "skipped":
            reason = self._service.api.xcom(dag_id, run_id, task["task_id"], "reason", task["map_index"])
            return f"  [dim]{escape(str(reason)) if reason else 'skipped'}[/]"
        return f"  [dim]{task['duration']:.1f} s[/]" if task["duration"] else ""

    def _now(self, tasks: list[Json], minutes: float | None) -> str:
        running = {task["task_id"] for task in tasks if task["state"] == "running"}
        try:
            if "train" in running:
                return describe_tasks(tasks) + self._training(minutes)
            return describe_tasks(tasks) + (self._counted() if running & {"ingest", "predict"} else "")
        except CloudsegError:
            return describe_tasks(tasks)  # the stage is just making the catalog

    def _counted(self) -> str:
        """Return what the moving line says about how far ingest or prediction has come."""
        with self._catalog.read() as db:
            masks, bad = len(model_rows.list_masks(db)), len(scene_rows.list_quarantined(db))
            words = [
                f"{scene_rows.count_scenes(db)} scenes",
                f"{masks} masks" if masks else "",
                f"{bad} in quarantine" if bad else "",
            ]
        return " · " + ", ".join(word for word in words if word)

    def _training(self, minutes: float | None) -> str:
        """Tell new epochs of the newest run, and return what the moving line says about it."""
        with self._catalog.read() as db:
            runs = training_rows.list_runs(db, limit=1)
            epochs = training_rows.list_epochs(db, runs[0].run_id) if runs else []
        for epoch in epochs:
            if (epoch.run_id, epoch.epoch) not in self._epochs:
                self._epochs.add((epoch.run_id, epoch.epoch))
                self._screen.say(f"  training · {describe_epoch(epoch)}")
        if not runs or minutes is None:
            return ""
        from cloudseg.catalog.session import now

        left = minutes * 60 - (now() - runs[0].created_at).total_seconds()
        return f" · about {int(left) // 60}:{int(left) % 60:02d} left" if left > 0 else " · finishing"

    def _explain(self, dag_id: str, run_id: str, tasks: list[Json]) -> None:
        broken = [task for task in tasks if task["state"] == "failed"]
        for task in broken:
            self._screen.say(f"[red]the end of the log of {_name(task)}:[/]")
            for line in self._service.api.log_tail(dag_id, run_id, task):
                self._screen.console.print("    " + escape(line), soft_wrap=True)
        raise ServiceFailed(
            "a task failed", subject=f"{dag_id} {run_id}", found=", ".join(map(_name, broken)) or "a failed run"
        )


def describe_tasks(tasks: list[Json]) -> str:
    """Return one short line about what runs and what waits, however many tasks there are."""
    running = [task for task in tasks if task["state"] == "running"]
    waiting = [task for task in tasks if task["state"] in _WAITING]
    shown = (running or waiting)[:1]
    words = [f"{_name(task)[:_LONGEST_NAME]} ({task['state']})" for task in shown]
    words += [f"{len(running) - 1} more run"] if len(running) > 1 else []
    left = len(waiting) - (0 if running else len(shown))
    return ", ".join([*words, f"{left} wait"] if left > 0 else words)


def describe_epoch(epoch: Epoch) -> str:
    """Return one line about an epoch: the figures that its row holds."""
    words = {"train_loss": "loss {:.3f}", "validation_iou": "validation IoU {:.3f}", "images_per_s": "{:.1f} images/s"}
    known = [
        words[name].format(epoch.metrics[name]) for name in words if isinstance(epoch.metrics.get(name), int | float)
    ]
    return " · ".join([f"epoch {epoch.epoch}", f"step {epoch.step}", *known])


def _name(task: Json) -> str:
    shown = task.get("rendered_map_index")
    return f"{task['task_id']}: {shown}" if shown else str(task["task_id"])
