"""The FastAPI app of the pages. It reads the catalog and the store and writes nothing; one form triggers a DAG.

Every route has the guards as dependencies, static files and unknown paths too. Templates escape all values, scripts are
the two static files alone, and a report (HTML from an evaluation) is shown in a sandboxed frame.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

from cloudseg_ui.changes import add_changes
from cloudseg_ui.compare import add_compare
from cloudseg_ui.data import add_data
from cloudseg_ui.decide import Runs, add_decide
from cloudseg_ui.downloads import add_downloads
from cloudseg_ui.drift import add_drift
from cloudseg_ui.history import add_history
from cloudseg_ui.masks import add_masks
from cloudseg_ui.models import add_models
from cloudseg_ui.of_run import add_of_run
from cloudseg_ui.overview import add_overview
from cloudseg_ui.quarantine import add_quarantine
from cloudseg_ui.readers import add_readers
from cloudseg_ui.shell import Shell, add_headers, static_file
from cloudseg_ui.weights import add_weights
from fastapi import Depends, FastAPI, HTTPException, Request, Response, params
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from cloudseg.errors import CloudsegError
from cloudseg.runtime import Runtime

STATIC: Final = {
    "cloudseg.css": "text/css",
    "theme.js": "text/javascript",
    "pages.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "icon_dark.svg": "image/svg+xml",
}


def create_app(
    open_runtime: Callable[[], Runtime], *, guards: Sequence[params.Depends], runs: Runs | None = None
) -> FastAPI:
    """Build the app.

    Args:
        open_runtime: opens catalog and store; called once, at the first request that needs them.
        guards: dependencies of every route (Airflow's login); without them the pages are public.
        runs: how the form of decisions triggers its DAG; None: there is no form.
    """
    # The generated documentation would be public: the guards do not apply to it.
    every = [*guards, Depends(_check_address)]
    app = FastAPI(title="cloudseg", docs_url=None, redoc_url=None, openapi_url=None, dependencies=every)
    runtime = cache(open_runtime)
    shell = Shell(runtime)
    app.middleware("http")(add_headers)
    app.add_exception_handler(CloudsegError, shell.explain)
    app.add_exception_handler(AnyHTTPException, shell.refuse)
    app.add_exception_handler(RequestValidationError, shell.refuse_values)
    app.add_exception_handler(Exception, shell.fail)
    for add_page in (
        add_overview,
        add_models,
        add_weights,
        add_compare,
        add_history,
        add_masks,
        add_data,
        add_quarantine,
        add_drift,
        add_changes,
        add_downloads,
        add_of_run,
    ):
        add_page(app, runtime, shell.render)
    add_readers(app, runtime, shell.render, runs)
    add_decide(app, runtime, shell.render, runs)
    _add_rest(app)
    return app


def _check_address(request: Request) -> None:
    """Refuse NUL in an address: PostgreSQL compares no text with it, and SQLite answers the same then."""
    values = [*request.path_params.values(), *(value for _, value in request.query_params.multi_items())]
    if any("\0" in str(value) for value in values):
        raise HTTPException(422)


def _add_rest(app: FastAPI) -> None:
    @app.get("/browse")
    def browse(request: Request) -> Response:
        """Lead to the map, whose addresses begin with a slash after this."""
        return RedirectResponse(f"{request.scope.get('root_path', '')}/browse/")

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in STATIC:
            raise HTTPException(404)
        return Response(static_file(name), media_type=STATIC[name])

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def nothing(path: str) -> Response:
        raise HTTPException(404)
