"""The tab "Cloud masks" on a DAG run or a task in Airflow: what this run made."""

from collections.abc import Callable
from typing import Annotated, Final

from cloudseg_ui import links
from cloudseg_ui.downloads import held_out
from cloudseg_ui.shell import Render, Values
from cloudseg_ui.weights import metrics, reasons, versions_of
from fastapi import FastAPI, Query, Request, Response
from sqlalchemy import Connection, func, select

from cloudseg.catalog import model_rows, training_rows
from cloudseg.catalog import tables as t
from cloudseg.records import Run
from cloudseg.runtime import Runtime

_Id = Annotated[str, Query(min_length=1, max_length=250)]
_MAPPED: Final = "{"
"""Airflow leaves the placeholder of an id that the page around it does not have."""


def of_run(runtime: Runtime, dag_id: str, run_id: str) -> Values:
    """Return the training of a DAG run with the weights, verdict and masks that came of it; None for what there is not.

    Args:
        runtime: catalog and store.
        dag_id: of the DAG.
        run_id: of the DAG run.
    """
    with runtime.catalog.read() as db:
        training = training_rows.find_run(db, links.training_of_dag_run(run_id)) if dag_id == links.RETRAIN else None
        return {"dag_id": dag_id, "run_id": run_id, "training": training, "made": _made(db, training)}


def _made(db: Connection, training: Run | None) -> Values | None:
    weights = model_rows.find_weights_of_run(db, training.run_id) if training else None
    if weights is None:
        return None
    champion = model_rows.find_champion(db)
    verdict = model_rows.find_verdict(db, weights.weights_id)
    masks = select(func.count()).select_from(t.mask).where(t.mask.c.weights_id == weights.weights_id)
    return {
        "weights": weights,
        "is_champion": champion is not None and champion.weights_id == weights.weights_id,
        "iou": metrics(held_out(db, weights.weights_id))["iou"],
        "verdict": verdict,
        "reasons": reasons(verdict) if verdict else [],
        "versions": versions_of(db, [verdict.champion_id]) if verdict else {},
        "masks": db.execute(masks).scalar_one(),
    }


def add_of_run(app: FastAPI, runtime: Callable[[], Runtime], render: Render) -> None:
    """Add the page to an app that has the login as a dependency of every route."""

    @app.get("/of-run")
    def of_run_page(request: Request, dag_id: _Id, run_id: _Id, task_id: str = "") -> Response:
        task = "" if task_id.startswith(_MAPPED) else task_id[:250]
        return render(request, "of_run.html", {**of_run(runtime(), dag_id, run_id), "task_id": task})
