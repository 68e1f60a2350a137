"""The pages about readers: whose masks they see, and the form that switches them.

The pages never write: the API server's database user may only read. The form triggers the DAG `cloudseg_readers`, so
Airflow decides who may, and logs who did; the history of the catalog names them too. Before that a page shows what
would change, as the catalog's own check says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode, urlsplit

from cloudseg_ui.view import Values
from fastapi import APIRouter, Depends, FastAPI, Form, HTTPException, Query, Request, Response, params
from fastapi.responses import RedirectResponse

from cloudseg.catalog import backfill_rows, model_rows, reader_rows
from cloudseg.errors import InputError, StateError
from cloudseg.records import ReaderMode, ReaderSwitch
from cloudseg.registry.readers import switch_readers, switch_readers_back
from cloudseg.runtime import Runtime

DAG_ID: Final = "cloudseg_readers"
NEWEST, BACK = "newest", "back"
_MODELS: Final = 20
_HISTORY: Final = 20
_MONTHS: Final = 60
_TARGET: Final = r"^(newest|back|v[0-9]{1,9}|w-[0-9a-z-]{1,60})$"
_Target = Annotated[str, Query(pattern=_TARGET)]


@dataclass(frozen=True)
class Runs:
    """What the pages need of Airflow to trigger the DAG `cloudseg_readers`."""

    guards: Sequence[params.Depends]
    """Dependencies of the form's route: the permission to trigger the DAG in the path, and Airflow's audit log."""
    allowed: Callable[..., bool]
    """Dependency: whether this user may trigger it."""
    person: Callable[..., str]
    """Dependency: the name of this user."""
    trigger: Callable[[str, dict[str, Any]], str]
    """Trigger the DAG as a person with a conf; returns the id of the run."""
    state: Callable[[str], str | None]
    """Returns the state of a run, None if there is no such run."""
    own_hosts: Sequence[str]
    """Hosts of the UI's own address, besides the one that a request names."""


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
            bands = model_rows.get_weights(db, champion.weights_id).metadata["bands"]
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
            "older": max(0, len(history) - _HISTORY),
            "months": counted[:_MONTHS],
            "months_left_out": max(0, len(counted) - _MONTHS),
            "done": sum(month.done for month in counted),
            "total": sum(month.total for month in counted),
        }


def planned(runtime: Runtime, target: str, *, hold: bool, incomplete: bool) -> ReaderSwitch:
    """Return the decision that a switch would write; nothing is written.

    Raises:
        NotInCatalog: the weights are unknown.
        StateError: readers would lose scenes, or there is nothing to go back to.
    """
    words: dict[str, Any] = {"actor": "", "reason": "", "dry_run": True}
    if target == BACK:
        return switch_readers_back(runtime.catalog, sequence=None, **words)
    if target == NEWEST:
        return switch_readers(runtime.catalog, mode="newest", weights_id=None, incomplete=incomplete, **words)
    with runtime.catalog.read() as db:
        weights_id = model_rows.get_weights_named(db, target).weights_id
    mode: ReaderMode = "hold" if hold else "complete"
    return switch_readers(runtime.catalog, mode=mode, weights_id=weights_id, incomplete=incomplete, **words)


def add_readers(
    app: FastAPI, runtime: Callable[[], Runtime], render: Callable[..., Response], runs: Runs | None
) -> None:
    """Add the pages to an app; without `runs` there is no form.

    Args:
        app: with the login as a dependency of every route.
        runtime: opens catalog and store.
        render: makes a page of a template and its values.
        runs: of Airflow.
    """

    @app.get("/readers")
    def readers(request: Request, may: Annotated[bool, Depends(runs.allowed if runs else _nobody)]) -> Response:
        return render(request, "readers.html", {**readers_of(runtime()), "may_switch": may})

    if runs is not None:
        app.include_router(_form(runtime, render, runs))


def _form(runtime: Callable[[], Runtime], render: Callable[..., Response], runs: Runs) -> APIRouter:
    router = APIRouter()

    @router.get("/readers/confirm")
    def confirm(
        request: Request,
        may: Annotated[bool, Depends(runs.allowed)],
        target: _Target,
        hold: bool = False,
        incomplete: bool = False,
    ) -> Response:
        if not may:
            raise HTTPException(403, "Forbidden")
        found = readers_of(runtime(), months=False) | {"problem": None, "decision": None}
        try:
            found["decision"] = planned(runtime(), target, hold=hold, incomplete=incomplete)
        except StateError as error:
            found["problem"] = error
        asked = {"target": target, "hold": hold, "incomplete": incomplete}
        return render(request, "confirm.html", {**found, "asked": asked, "to": _name_of(runtime(), found["decision"])})

    def own_page(request: Request) -> None:
        _check_own_page(request, runs.own_hosts)

    @router.post("/runs/{dag_id}", dependencies=[Depends(own_page), *runs.guards])
    def switch(
        request: Request,
        dag_id: Literal["cloudseg_readers"],
        person: Annotated[str, Depends(runs.person)],
        target: Annotated[str, Form(pattern=_TARGET)],
        reason: Annotated[str, Form(max_length=500)],
        hold: Annotated[bool, Form()] = False,
        incomplete: Annotated[bool, Form()] = False,
        sequence: Annotated[int | None, Form(ge=1)] = None,
    ) -> Response:
        if not reason.strip():
            raise InputError("a switch of readers needs a reason", subject="reason", next_step="Go back and write one.")
        conf = {"target": target, "hold": hold, "incomplete": incomplete, "sequence": sequence, "reason": reason}
        run_id = runs.trigger(person, conf)
        # See Other: reloading the page that follows does not send the form again (RFC 9110, 15.4.4).
        return RedirectResponse(f"{request.scope.get('root_path', '')}/runs?{urlencode({'run_id': run_id})}", 303)

    @router.get("/runs")
    def run(request: Request, run_id: Annotated[str, Query(max_length=250)]) -> Response:
        state = runs.state(run_id)
        if state is None:
            raise HTTPException(404, "no such run")
        return render(request, "run.html", {**readers_of(runtime(), months=False), "run_id": run_id, "state": state})

    return router


def _name_of(runtime: Runtime, decision: ReaderSwitch | None) -> str:
    """Return in words whose masks readers would see; the model may be older than those that the page lists."""
    if decision is None or decision.weights_id is None:
        return "the newest champion, always"
    with runtime.catalog.read() as db:
        return f"model v{model_rows.get_weights(db, decision.weights_id).version}"


def _nobody() -> bool:
    return False


def _check_own_page(request: Request, own_hosts: Sequence[str]) -> None:
    """Refuse a form of another site: a browser sends Airflow's cookie with it too, unless the cookie is SameSite.

    Browsers name the page's origin in every POST (fetch.spec.whatwg.org, append a request `Origin` header).

    Raises:
        HTTPException: the origin is another one, or there is none.
    """
    origin = urlsplit(request.headers.get("origin", "")).netloc
    if not origin or origin not in {request.url.netloc, *own_hosts}:
        raise HTTPException(403, "the form must come from a page of this UI")
