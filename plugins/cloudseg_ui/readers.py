"""The page about readers: whose masks they see, and the links to the decisions that switch them (`decide.py`)."""

from collections.abc import Callable
from typing import Annotated, Final

from cloudseg_ui.decide import Runs
from cloudseg_ui.shell import Render, Values
from fastapi import Depends, FastAPI, Request, Response

from cloudseg.catalog import backfill_rows, model_rows, reader_rows
from cloudseg.runtime import Runtime

_MODELS: Final = 20
_HISTORY: Final = 20
_MONTHS: Final = 60


def readers_of(runtime: Runtime, *, months: bool = True) -> Values:
    """Return whose masks readers see, since when, what is decided for later, and how far the champion's masks are.

    Args:
        runtime: catalog and store.
        months: count the masks of each month, which reads the row of every scene.
    """
    with runtime.catalog.read() as db:
        switch, shown, champion = reader_rows.find_switch(db), reader_rows.find_shown(db), model_rows.find_champion(db)
        history = reader_rows.list_switches(db)
        models = model_rows.list_weights(db, limit=_MODELS)
        versions = {weights.weights_id: weights.version for weights in models}
        named = [champion.weights_id] if champion is not None else []
        for weights_id in (shown, *named, *(entry.weights_id for entry in history[:_HISTORY])):
            if weights_id is not None and weights_id not in versions:
                versions[weights_id] = model_rows.get_weights(db, weights_id).version
        counted = []
        if champion is not None and months:
            bands = model_rows.get_weights(db, champion.weights_id).required_bands
            counted = backfill_rows.list_months(db, champion.weights_id, bands=bands)
        newest = history[0] if history else None
        return {
            "switch": switch,
            "pending": newest if newest is not None and newest != switch else None,
            "shown": shown,
            "seen_masks": reader_rows.count_shown(db),
            "champion": champion,
            "lost": reader_rows.count_lost(db, shown, champion.weights_id) if shown and champion else 0,
            "versions": versions,
            "models": models,
            "history": history[:_HISTORY],
            "newest": next((entry.sequence for entry in history if entry.action == "switch"), None),
            "older": max(0, len(history) - _HISTORY),
            "months": counted[:_MONTHS],
            "months_left_out": max(0, len(counted) - _MONTHS),
            "done": sum(month.done for month in counted),
            "total": sum(month.total for month in counted),
        }


def add_readers(app: FastAPI, runtime: Callable[[], Runtime], render: Render, runs: Runs | None) -> None:
    """Add the page to an app that has the login as a dependency of every route; without `runs` there is no form."""

    @app.get("/readers")
    def readers(request: Request, may: Annotated[bool, Depends(runs.allowed if runs else _nobody)]) -> Response:
        return render(request, "readers.html", {**readers_of(runtime()), "may_switch": may})


def _nobody() -> bool:
    return False
