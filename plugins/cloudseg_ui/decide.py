"""The page that shows what a decision would change, and whose form triggers the DAG `cloudseg_decide`.

Airflow's own trigger form cannot be filled in by address (3.3.2: its UI has no route for it and reads no parameters),
so the buttons of the other pages lead here. The pages never write: the API server's database user may only read. The
form triggers the DAG, so Airflow decides who may, and logs who did; the history of the catalog names them too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode, urlsplit

from cloudseg_ui.links import DECIDE
from cloudseg_ui.shell import Render
from fastapi import APIRouter, Depends, FastAPI, Form, HTTPException, Query, Request, Response, params
from fastapi.responses import RedirectResponse

from cloudseg.errors import InputError, StateError
from cloudseg.records import DecisionName, DecisionPlan
from cloudseg.registry.decision_plan import MOST, plan_decision
from cloudseg.runtime import Runtime

TITLES: Final[dict[DecisionName, str]] = {
    "promote": "Promote a model",
    "decline": "Decline a model",
    "roll_back": "Roll the champion back",
    "accept_label": "Accept labels",
    "reject_label": "Reject labels",
    "withdraw_label": "Withdraw labels",
    "release": "Release from quarantine",
    "switch_readers": "Switch what readers see",
    "switch_readers_back": "Switch readers back",
}
_Names = Annotated[str, Query(max_length=5000)]


@dataclass(frozen=True)
class Run:
    """A run of the DAG `cloudseg_decide`."""

    state: str
    conf: dict[str, Any]


@dataclass(frozen=True)
class Runs:
    """What the pages need of Airflow to trigger the DAG `cloudseg_decide`."""

    guards: Sequence[params.Depends]
    """Dependencies of the form's route: the permission to trigger the DAG in the path, and Airflow's audit log."""
    allowed: Callable[..., bool]
    """Dependency: whether this user may trigger it."""
    person: Callable[..., str]
    """Dependency: the name of this user."""
    trigger: Callable[[str, dict[str, Any]], str]
    """Trigger the DAG as a person with a conf; returns the id of the run."""
    find: Callable[[str], Run | None]
    """Returns a run, None if there is no such run."""
    own_hosts: Sequence[str]
    """Hosts of the UI's own address, besides the one that a request names."""


def add_decide(app: FastAPI, runtime: Callable[[], Runtime], render: Render, runs: Runs | None) -> None:
    """Add the pages to an app that has the login as a dependency of every route; without `runs` there are none."""
    if runs is not None:
        app.include_router(_routes(runtime, render, runs))


def _routes(runtime: Callable[[], Runtime], render: Render, runs: Runs) -> APIRouter:
    router = APIRouter()

    @router.get("/decide")
    def decide(
        request: Request,
        may: Annotated[bool, Depends(runs.allowed)],
        decision: DecisionName | None = None,
        about: Annotated[list[_Names], Query(max_length=MOST)] = [],  # noqa: B006  (FastAPI copies it)
        hold: bool = False,
        force: bool = False,
    ) -> Response:
        """Show what a decision would change, with the form that makes it; without one, the choice of one."""
        if not may:
            raise HTTPException(403, "Forbidden")
        names = _lines(about)
        asked = {"decision": decision, "about": names, "hold": hold, "force": force}
        plan: DecisionPlan | None = None
        problem: InputError | StateError | None = None
        if decision is not None:
            try:
                opened = runtime()
                plan = plan_decision(opened.store, opened.catalog, decision, names, hold=hold, force=force)
            except (InputError, StateError) as error:
                problem = error
        # What does not exist cannot be overridden either.
        overridable = isinstance(problem, StateError) and decision in ("promote", "switch_readers") and not force
        found = {"asked": asked, "plan": plan, "problem": problem, "can_override": overridable, "titles": TITLES}
        return render(request, "decide.html", found)

    def own_page(request: Request) -> None:
        _check_own_page(request, runs.own_hosts)

    @router.post("/runs/{dag_id}", dependencies=[Depends(own_page), *runs.guards])
    def trigger(
        request: Request,
        dag_id: Literal["cloudseg_decide"],
        person: Annotated[str, Depends(runs.person)],
        decision: Annotated[DecisionName, Form()],
        reason: Annotated[str, Form(max_length=500)],
        about: Annotated[list[Annotated[str, Form(max_length=250)]], Form(max_length=MOST)],
        hold: Annotated[bool, Form()] = False,
        force: Annotated[bool, Form()] = False,
    ) -> Response:
        _check_texts(reason, about)
        conf = {"decision": decision, "about": _lines(about), "reason": reason.strip(), "hold": hold, "force": force}
        run_id = runs.trigger(person, conf)
        # See Other: reloading the page that follows does not send the form again (RFC 9110, 15.4.4).
        return RedirectResponse(f"{request.scope.get('root_path', '')}/runs?{urlencode({'run_id': run_id})}", 303)

    @router.get("/runs")
    def run(request: Request, run_id: Annotated[str, Query(max_length=250)]) -> Response:
        """Show how far the run is; the page loads itself again until it has ended."""
        found = runs.find(run_id)
        if found is None:
            raise HTTPException(404, "no such run")
        return render(request, "run.html", {"run_id": run_id, "run": found, "titles": TITLES, "dag_id": DECIDE})

    return router


def _check_texts(reason: str, about: Sequence[str]) -> None:
    if not reason.strip():
        raise InputError("a decision needs a reason", subject="reason", next_step="Go back and write one.")
    if any("\0" in text for text in (reason, *about)):  # PostgreSQL, which Airflow's database may be, stores none
        raise HTTPException(422)


def _lines(values: Sequence[str]) -> list[str]:
    return [line.strip() for value in values for line in value.splitlines() if line.strip()]


def _check_own_page(request: Request, own_hosts: Sequence[str]) -> None:
    """Refuse a form of another site: a browser sends Airflow's cookie with it too, unless the cookie is SameSite.

    Browsers name the page's origin in every POST (fetch.spec.whatwg.org, append a request `Origin` header).

    Raises:
        HTTPException: the origin is another one, or there is none.
    """
    origin = urlsplit(request.headers.get("origin", "")).netloc
    if not origin or origin not in {request.url.netloc, *own_hosts}:
        raise HTTPException(403, "the form must come from a page of this UI")
