"""The first page: the champion, what runs now, the last verdict, what waits for a person, counts, the latest masks."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from cloudseg_ui import links
from cloudseg_ui.charts import training_charts
from cloudseg_ui.downloads import held_out
from cloudseg_ui.masks import newest_masks
from cloudseg_ui.models import bounds_of
from cloudseg_ui.readers import readers_of
from cloudseg_ui.shell import Render, Values
from cloudseg_ui.weights import metrics, reasons, versions_of
from fastapi import FastAPI, Request, Response
from sqlalchemy import Connection, select

from cloudseg.catalog import alert_rows, figure_rows, model_rows, reader_rows, scene_rows, training_rows
from cloudseg.catalog import tables as t
from cloudseg.catalog.session import fetch, now
from cloudseg.monitor.alerts import ALERTS, SEVERITIES
from cloudseg.monitor.figures import read_figures
from cloudseg.records import Epoch, Promotion, Run
from cloudseg.runtime import Runtime

_MASKS: Final = 10
"""Two rows of five on a wide screen."""
_ALERTS: Final = 10
"""Open alerts that are listed."""


def overview(runtime: Runtime) -> Values:
    """Return what the page shows; what is measured is what alerts and `cloudseg metrics` measure (`figures`)."""
    at = now()
    figures = read_figures(runtime.catalog, at=at)
    with runtime.catalog.read() as db:
        champion = model_rows.find_champion(db)
        return {
            "at": at,
            "figures": figures,
            "scenes": scene_rows.count_scenes(db),
            "labeled": scene_rows.count_labeled_scenes(db),
            "alerts": _open_alerts(db),
            "alerts_left_out": max(0, sum(figures.alerts.values()) - _ALERTS),
            "champion": _champion(db, champion) if champion else None,
            "runs": [_run(db, run, at) for run in _running(db)],
            "last": _last_verdict(db),
            "approvals": _open_approvals(db),
            "masks": newest_masks(db, champion, _MASKS),
        }


def eta(run: Run, epochs: Sequence[Epoch], at: datetime) -> datetime | None:
    """Return about when a training ends, None if that cannot be told yet.

    The earlier of the end of its time budget, which may be past, and the end of its steps at the pace since it began.

    Args:
        run: the training.
        epochs: those that ended, in order.
        at: the current time.
    """
    budget = run.recipe.get("budget", {})
    ends = []
    if (minutes := budget.get("minutes")) is not None:
        ends.append(run.created_at + timedelta(minutes=minutes))
    if epochs and (steps := _steps_of(budget, epochs)):
        pace = (epochs[-1].created_at - run.created_at) / epochs[-1].step
        ends.append(max(at, run.created_at + pace * steps))
    return min(ends, default=None)


def _steps_of(budget: Values, epochs: Sequence[Epoch]) -> int | None:
    of_epochs = budget["epochs"] * epochs[0].step if budget.get("epochs") else None
    return min((steps for steps in (budget.get("steps"), of_epochs) if steps), default=None)


def _champion(db: Connection, promotion: Promotion) -> Values:
    evaluation = held_out(db, promotion.weights_id)
    return {
        "promotion": promotion,
        "weights": model_rows.get_weights(db, promotion.weights_id),
        "before": versions_of(db, [promotion.previous_weights_id]),
        "iou": metrics(evaluation)["iou"],
        "bounds": bounds_of(evaluation),
        "masks": reader_rows.count_masks(db, promotion.weights_id),
        "has_report": evaluation is not None and "html" in evaluation.report,
    }


def _running(db: Connection) -> list[Run]:
    r = t.run.c
    return fetch(db, Run, select(t.run).where(r.status == "running").order_by(r.created_at.desc()))


def _run(db: Connection, run: Run, at: datetime) -> Values:
    epochs = training_rows.list_epochs(db, run.run_id)
    return {
        "run": run,
        "newest": epochs[-1] if epochs else None,
        "ends": eta(run, epochs, at),
        "dag_run": links.dag_run_of_training(run.run_id),
        **training_charts(epochs),
    }


def _last_verdict(db: Connection) -> Values | None:
    verdict = next(iter(model_rows.list_verdicts(db, limit=1)), None)
    if verdict is None:
        return None
    versions = versions_of(db, [verdict.challenger_id, verdict.champion_id])
    return {"verdict": verdict, "reasons": reasons(verdict), "versions": versions}


def _open_approvals(db: Connection) -> list[Values]:
    """Return the requests for an approval that can still be granted, newest first, with the DAG run that asks."""
    return [
        {"request": request, "weights": weights, "dag_run": links.dag_run_of_training(weights.run_id)}
        for request, weights in figure_rows.list_open_requests(db)
    ]


def _open_alerts(db: Connection) -> list[Values]:
    """Return the alerts that hold, the most severe first, then the oldest."""
    found = sorted(alert_rows.list_open_alerts(db), key=lambda alert: -SEVERITIES.index(alert.severity))
    return [{"alert": alert, "kind": ALERTS.get(alert.name)} for alert in found[:_ALERTS]]


def add_overview(app: FastAPI, runtime: Callable[[], Runtime], render: Render) -> None:
    """Add the page to an app that has the login as a dependency of every route."""

    @app.get("/")
    def overview_page(request: Request) -> Response:
        readers = readers_of(runtime(), months=False)
        return render(request, "overview.html", {**overview(runtime()), "readers": readers})
