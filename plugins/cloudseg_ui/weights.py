"""The page of one model, and its evaluation report."""

from collections.abc import Callable, Sequence
from typing import Final

from cloudseg_ui import links
from cloudseg_ui.charts import training_charts
from cloudseg_ui.downloads import held_out, list_downloads, weights_objects
from cloudseg_ui.shell import Render, Values
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy import Connection

from cloudseg.catalog import model_rows, training_rows
from cloudseg.errors import NotInCatalog
from cloudseg.records import Decision, Evaluation, Verdict
from cloudseg.runtime import Runtime

_REPORT_POLICY: Final = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; base-uri 'none'"
)


def weights(runtime: Runtime, weights_id: str) -> Values:
    """Return weights with their metadata, metrics, verdicts and whether there is a report.

    Raises:
        NotInCatalog: the weights are unknown.
    """
    with runtime.catalog.read() as db:
        found = model_rows.get_weights(db, weights_id)
        champion = model_rows.find_champion(db)
        verdicts = model_rows.list_verdicts(db, challenger_id=weights_id)
        evaluation = held_out(db, weights_id)
        decision = open_decision(db, weights_id)
        epochs = training_rows.list_epochs(db, found.run_id) if found.run_id else []
        versions = versions_of(db, [verdict.champion_id for verdict in verdicts])
    return {
        "weights": found,
        "is_champion": champion is not None and champion.weights_id == weights_id,
        "decision": decision,
        "facts": {
            name: value for name, value in sorted(found.metadata.items()) if isinstance(value, str | int | float | list)
        },
        "verdicts": [{"verdict": verdict, "reasons": reasons(verdict)} for verdict in verdicts],
        "versions": versions,
        "metrics": metrics(evaluation),
        "has_report": evaluation is not None and "html" in evaluation.report,
        **training_charts(epochs),
        "dag_run": links.dag_run_of_training(found.run_id),
        "files": list_downloads(
            runtime.store, f"/weights/{weights_id}", weights_id, weights_objects(found, evaluation)
        ),
    }


def report(runtime: Runtime, weights_id: str) -> bytes:
    """Return the HTML of the newest held-out evaluation of weights.

    Raises:
        NotInCatalog: the weights are unknown or have no report.
        ObjectMissing: the store lacks the report.
        ObjectCorrupt: its bytes do not match their checksum.
    """
    with runtime.catalog.read() as db:
        model_rows.get_weights(db, weights_id)
        evaluation = held_out(db, weights_id)
    if evaluation is None or "html" not in evaluation.report:
        raise NotInCatalog("these weights have no report", subject=weights_id, next_step="Run `cloudseg evaluate`.")
    stored = evaluation.report["html"]
    return runtime.store.get(stored["key"], stored["sha256"])


def open_decision(db: Connection, weights_id: str) -> Decision | None:
    """Return the rejection of weights, else the open request for approval.

    None if the weights became champion or no approval was requested.
    """
    if any(promotion.weights_id == weights_id for promotion in model_rows.list_promotions(db)):
        return None
    found = model_rows.list_decisions(db, weights_id)
    return next((entry for kind in ("declined", "asked") for entry in found if entry.decision == kind), None)


def metrics(evaluation: Evaluation | None) -> dict[str, float | None]:
    """Return the metrics that the tables show, None for those that the evaluation lacks."""
    pooled = evaluation.metrics if evaluation else {}
    mean = pooled.get("scene_mean", {})
    names = ("iou", "f1", "precision", "recall", "balanced_accuracy")
    return {**{name: pooled.get(name) for name in names}, "scene_mean_iou": mean.get("iou")}


def reasons(verdict: Verdict) -> list[str]:
    """Return the sentences of a verdict."""
    return [str(reason) for reason in verdict.body.get("reasons", [])]


def versions_of(db: Connection, weights_ids: Sequence[str | None]) -> dict[str, int]:
    """Return the versions of weights; None among the ids is left out."""
    return {
        weights_id: model_rows.get_weights(db, weights_id).version
        for weights_id in set(weights_ids)
        if weights_id is not None
    }


def add_weights(app: FastAPI, runtime: Callable[[], Runtime], render: Render) -> None:
    """Add the pages to an app that has the login as a dependency of every route."""

    @app.get("/weights/{weights_id}")
    def weights_page(request: Request, weights_id: str) -> Response:
        return render(request, "weights.html", weights(runtime(), weights_id))

    @app.get("/weights/{weights_id}/report")
    def report_page(weights_id: str) -> Response:
        return HTMLResponse(report(runtime(), weights_id), headers={"Content-Security-Policy": _REPORT_POLICY})
