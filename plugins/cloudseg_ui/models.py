"""The page of all models: held-out IoU over the nights, and a table with verdicts, pages and a filter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from cloudseg_ui.charts import Night, nights_chart
from cloudseg_ui.formats import day
from cloudseg_ui.paging import PageNumber, Paging
from cloudseg_ui.shell import Render, Values
from cloudseg_ui.weights import metrics, open_decision, reasons
from fastapi import FastAPI, Query, Request, Response
from sqlalchemy import Connection, select

from cloudseg.catalog import model_rows
from cloudseg.catalog import tables as t
from cloudseg.catalog.session import fetch
from cloudseg.records import Evaluation, Outcome, Verdict
from cloudseg.runtime import Runtime

DRAWN: Final = 60
"""Models in the chart, the newest of those that the filter leaves."""
IMPORTED: Final = "imported"
"""Recipe of weights that were not trained here."""


@dataclass(frozen=True)
class Model:
    """A model in the list: what the filter needs."""

    weights_id: str
    version: int
    created_at: datetime
    recipe: str
    outcome: Outcome | None
    """Of the newest verdict on it."""
    verdict_id: str | None
    is_champion: bool
    is_promoted: bool
    """Whether it became champion at any time."""


def models(runtime: Runtime, page: int, recipe: str = "", verdict: str = "") -> Values:
    """Return the chart, one page of the table, newest first, and the champion's row, which every page has.

    Args:
        runtime: catalog and store.
        page: number of the page.
        recipe: only models of this recipe; empty: all.
        verdict: only models whose newest verdict is this; 'none': without one; empty: all.
    """
    with runtime.catalog.read() as db:
        every = list_models(db)
        wanted = [model for model in every if recipe in ("", model.recipe) and verdict in ("", model.outcome or "none")]
        paging = Paging(page, len(wanted), filters={"recipe": recipe, "verdict": verdict})
        on_page = wanted[paging.offset : paging.offset + paging.size]
        champion = next((model for model in every if model.is_champion), None)
        apart = champion if champion is not None and champion not in on_page else None
        evaluations = held_out_of(db, [*on_page, *wanted[:DRAWN], *([champion] if champion else [])])
        drawn = [night for model in reversed(wanted[:DRAWN]) if (night := _night(model, evaluations))]
        return {
            "rows": [_row(db, model, evaluations) for model in on_page],
            "apart": _row(db, apart, evaluations) if apart else None,
            "champion": champion,
            "any": bool(every),
            "paging": paging,
            "recipes": [("", "all"), *((name, name) for name in sorted({model.recipe for model in every}))],
            "asked": {"recipe": recipe, "verdict": verdict},
            "chart": nights_chart(drawn, _night(champion, evaluations) if champion else None),
            "names": [model.version for model in every[:200]],
        }


def list_models(db: Connection) -> list[Model]:
    """List all models, newest first, without what is large in their rows."""
    w, v, r = t.weights.c, t.verdict.c, t.run.c
    promotions = model_rows.list_promotions(db)
    promoted = {promotion.weights_id for promotion in promotions}
    champion_id = promotions[0].weights_id if promotions else None
    newest: dict[str, Any] = {}
    verdicts = select(v.challenger_id, v.outcome, v.verdict_id).order_by(v.created_at, v.verdict_id.desc())
    for row in db.execute(verdicts):
        newest[row.challenger_id] = row
    trained = t.weights.outerjoin(t.run, r.run_id == w.run_id)
    found = select(w.weights_id, w.version, w.created_at, r.recipe_name).select_from(trained)
    return [
        Model(
            weights_id=row.weights_id,
            version=row.version,
            created_at=row.created_at,
            recipe=row.recipe_name or IMPORTED,
            outcome=newest[row.weights_id].outcome if row.weights_id in newest else None,
            verdict_id=newest[row.weights_id].verdict_id if row.weights_id in newest else None,
            is_champion=row.weights_id == champion_id,
            is_promoted=row.weights_id in promoted,
        )
        for row in db.execute(found.order_by(w.version.desc()))
    ]


def held_out_of(db: Connection, wanted: Sequence[Model]) -> dict[str, Evaluation]:
    """Return the newest evaluation of each model on held-out places."""
    e = t.evaluation.c
    of_models = select(t.evaluation).where(
        e.split == "held_out", e.weights_id.in_({model.weights_id for model in wanted})
    )
    return {found.weights_id: found for found in fetch(db, Evaluation, of_models.order_by(e.created_at))}


def bounds_of(evaluation: Evaluation | None) -> tuple[float, float] | None:
    """Return the interval of the held-out IoU: the 5 % and the 95 % quantile of bootstrap draws of places, or None."""
    bounds = evaluation.metrics.get("iou_bounds") if evaluation else None
    return (bounds[0], bounds[1]) if bounds else None


def _night(model: Model, evaluations: dict[str, Evaluation]) -> Night | None:
    found = evaluations.get(model.weights_id)
    iou = found.metrics.get("iou") if found else None
    if iou is None:
        return None
    bounds = bounds_of(found)
    return Night(
        weights_id=model.weights_id,
        version=model.version,
        day=day(model.created_at),
        iou=iou,
        lower=bounds[0] if bounds else None,
        upper=bounds[1] if bounds else None,
        recipe=model.recipe,
        is_promoted=model.is_promoted,
    )


def _row(db: Connection, model: Model, evaluations: dict[str, Evaluation]) -> Values:
    evaluation = evaluations.get(model.weights_id)
    verdict: Verdict | None = model_rows.get_verdict(db, model.verdict_id) if model.verdict_id else None
    return {
        "model": model,
        "metrics": metrics(evaluation),
        "bounds": bounds_of(evaluation),
        "reasons": reasons(verdict) if verdict else [],
        "decision": open_decision(db, model.weights_id),
        "has_report": evaluation is not None and "html" in evaluation.report,
    }


def add_models(app: FastAPI, runtime: Callable[[], Runtime], render: Render) -> None:
    """Add the page to an app that has the login as a dependency of every route."""

    @app.get("/models")
    def models_page(
        request: Request,
        page: PageNumber = 1,
        recipe: Annotated[str, Query(max_length=100)] = "",
        verdict: Literal["", "PROMOTE", "HOLD", "REJECT", "none"] = "",
    ) -> Response:
        return render(request, "models.html", models(runtime(), page, recipe, verdict))
