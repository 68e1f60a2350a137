"""The FastAPI app of the pages. It reads the catalog and the store and writes nothing; one form triggers a DAG.

Every route has the guards as dependencies, the style sheet and unknown paths too. Templates escape all values, no
script is allowed, and a report (HTML from an evaluation) is shown in a sandboxed frame.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2
from cloudseg_ui import view
from cloudseg_ui.changes import add_changes
from cloudseg_ui.readers import Runs, add_readers, readers_of
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.params import Depends
from fastapi.responses import HTMLResponse, RedirectResponse

from cloudseg.errors import CatalogOutdated, CloudsegError
from cloudseg.runtime import Runtime

_HERE: Final = Path(__file__).parent
_PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; frame-src 'self'; frame-ancestors 'self'; "
    "base-uri 'none'; form-action 'self'"
)
_REPORT_POLICY: Final = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; base-uri 'none'"
)
_FOR_A_DAY: Final = {"Cache-Control": "private, max-age=86400, immutable"}


def create_app(open_runtime: Callable[[], Runtime], *, guards: Sequence[Depends], runs: Runs | None = None) -> FastAPI:
    """Build the app.

    Args:
        open_runtime: opens catalog and store; called once, at the first request that needs them.
        guards: dependencies of every route (Airflow's login); without them the pages are public.
        runs: how the form of the readers triggers its DAG; None: there is no form.
    """
    # The generated documentation would be public: the guards do not apply to it.
    app = FastAPI(title="cloudseg", docs_url=None, redoc_url=None, openapi_url=None, dependencies=list(guards))
    runtime, templates = cache(open_runtime), _templates()
    app.middleware("http")(_add_headers)
    app.add_exception_handler(CloudsegError, _explain_with(templates))
    _add_pages(app, runtime, templates)
    _add_bytes(app, runtime)

    def render(request: Request, name: str, found: dict[str, Any]) -> HTMLResponse:
        return _render(templates, request, name, found)

    add_readers(app, runtime, render, runs)
    add_changes(app, runtime, render)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def nothing(path: str) -> Response:
        raise HTTPException(404, "no such page")

    return app


def _add_pages(app: FastAPI, runtime: Callable[[], Runtime], templates: jinja2.Environment) -> None:
    def render(request: Request, name: str, found: dict[str, Any]) -> HTMLResponse:
        return _render(templates, request, name, found)

    @app.get("/")
    def overview(request: Request) -> Response:
        return render(
            request, "overview.html", {**view.overview(runtime()), "readers": readers_of(runtime(), months=False)}
        )

    @app.get("/browse")
    def browse(request: Request) -> Response:
        """Lead to the map, whose addresses begin with a slash after this."""
        return RedirectResponse(f"{request.scope.get('root_path', '')}/browse/")

    @app.get("/masks/{mask_id}")
    def mask(request: Request, mask_id: str) -> Response:
        return render(request, "mask.html", view.mask(runtime(), mask_id))

    @app.get("/weights/{weights_id}")
    def weights(request: Request, weights_id: str) -> Response:
        return render(request, "weights.html", view.weights(runtime(), weights_id))


def _add_bytes(app: FastAPI, runtime: Callable[[], Runtime]) -> None:
    @app.get("/masks/{mask_id}/thumbnail")
    def thumbnail(mask_id: str) -> Response:
        content, media_type = view.thumbnail(runtime(), mask_id)
        return Response(content, media_type=media_type, headers=_FOR_A_DAY)

    @app.get("/weights/{weights_id}/report")
    def report(weights_id: str) -> Response:
        return HTMLResponse(view.report(runtime(), weights_id), headers={"Content-Security-Policy": _REPORT_POLICY})

    @app.get("/static/cloudseg.css")
    def style() -> Response:
        return Response((_HERE / "static" / "cloudseg.css").read_text(encoding="utf-8"), media_type="text/css")


def _render(templates: jinja2.Environment, request: Request, name: str, found: dict[str, Any]) -> HTMLResponse:
    return HTMLResponse(templates.get_template(name).render(base=request.scope.get("root_path", ""), **found))


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "percent": view.percent,
        "figure": view.figure,
        "moment": view.moment,
        "day": view.day,
        "size": view.size,
    }
    return environment


async def _add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    for name, value in {
        "Content-Security-Policy": _PAGE_POLICY,
        "X-Content-Type-Options": "nosniff",
        # Not `no-referrer`: with it browsers send `Origin: null` with the form, which does not tell where it is from.
        "Referrer-Policy": "same-origin",
        "Cache-Control": "no-store",
    }.items():
        response.headers.setdefault(name, value)
    return response


def _explain_with(templates: jinja2.Environment) -> Callable[[Request, Exception], Response]:
    """Return the handler that shows an error as a page; a catalog without tables is shown as empty."""

    def explain(request: Request, error: Exception) -> Response:
        assert isinstance(error, CloudsegError)  # noqa: S101  (registered for this class only)
        migrated = not isinstance(error, CatalogOutdated)
        page = templates.get_template("message.html").render(
            base=request.scope.get("root_path", ""), error=error, migrated=migrated
        )
        return HTMLResponse(page, status_code=error.http_status if migrated else 200)

    return explain
