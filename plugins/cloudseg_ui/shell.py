"""What all pages share: navigation, templates, banners, errors as pages, headers.

To add a page: a module with `add_<page>(app, runtime, render)`, a template that extends `base.html` and sets `page`, an
entry in `NAV`, and a call in `app.py`.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jinja2
from cloudseg_ui import links
from cloudseg_ui.formats import FILTERS
from cloudseg_ui.probe import Banner, Probe
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from cloudseg.errors import CatalogOutdated, CloudsegError
from cloudseg.runtime import Runtime

log = logging.getLogger(__name__)
Values = dict[str, Any]
Render = Callable[[Request, str, Values], Response]
"""Makes a page: of the request, the name of its template, and the template's values."""
FOR_A_DAY: Final = {"Cache-Control": "private, max-age=86400, immutable"}
"""Headers of bytes that never change under their address."""
_HERE: Final = Path(__file__).parent
_HEADERS: Final = {
    # Scripts are the two static files of this package: no page has one of its own (docs/concepts/security.md).
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: with it browsers send `Origin: null` with the form, which does not tell where it is from.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_STATUS: Final = {
    401: "You are not logged in",
    403: "You may not see or do this",
    404: "There is no such page",
    405: "This address takes no such request",
    422: "The address is not valid",
}


@dataclass(frozen=True)
class Entry:
    """An entry of the navigation."""

    name: str
    """A template says by this name where it is: `{% set page = 'models' %}`."""
    title: str
    path: str


NAV: Final = (
    Entry("overview", "Overview", "/"),
    Entry("models", "Models", "/models"),
    Entry("history", "History", "/history"),
    Entry("masks", "Masks", "/masks"),
    Entry("data", "Data", "/data"),
    Entry("quarantine", "Quarantine", "/quarantine"),
    Entry("drift", "Drift", "/drift"),
    Entry("readers", "Readers", "/readers"),
    Entry("changes", "Change maps", "/changes"),
    Entry("map", "Map", "/browse/"),
)


class Shell:
    """Makes pages of templates."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        """Load the templates.

        Args:
            runtime: opens catalog and store, once.
        """
        self._runtime = runtime
        self._probe = Probe(runtime)
        self._templates = _templates()

    def render(self, request: Request, name: str, found: Values) -> HTMLResponse:
        """Return the page of a template."""
        return HTMLResponse(self._page(request, name, found, self._probe.banners()))

    def explain(self, request: Request, error: Exception) -> Response:
        """Return an error of this project as a page; a catalog without tables is shown as empty."""
        assert isinstance(error, CloudsegError)  # noqa: S101  (registered for this class only)
        if isinstance(error, CatalogOutdated) and self._is_empty():
            return HTMLResponse(self._page(request, "nothing.html", {}, []))
        found = {"what": error.what, "subject": error.subject, "found": error.found, "next_step": error.next_step}
        return self._message(request, error.http_status, found)

    def refuse(self, request: Request, error: Exception) -> Response:
        """Return an error of HTTP (no such page, no login, no permission) as a page."""
        assert isinstance(error, HTTPException)  # noqa: S101
        found = {"what": _STATUS.get(error.status_code, str(error.detail)), "found": None}
        return self._message(request, error.status_code, found, error.headers)

    def refuse_values(self, request: Request, error: Exception) -> Response:
        """Return values of an address or a form that are not valid as a page."""
        assert isinstance(error, RequestValidationError)  # noqa: S101
        wrong = "; ".join(f"{entry['loc'][-1]}: {entry['msg']}" for entry in error.errors()[:3])
        return self._message(request, 422, {"what": _STATUS[422], "found": wrong})

    def fail(self, request: Request, error: Exception) -> Response:
        """Return an unexpected error as a page without its details, which are in the log."""
        found = {
            "what": "The page could not be made",
            "next_step": "The log of Airflow's API server has the error. Please report it.",
        }
        response = self._message(request, 500, found)
        # This one is made outside the middleware that adds the headers.
        response.headers.update(_HEADERS)
        return response

    def _message(
        self, request: Request, status: int, found: Values, headers: Mapping[str, str] | None = None
    ) -> HTMLResponse:
        every = {"subject": "", "found": None, "next_step": "", **found}
        page = self._page(request, "message.html", every, [])
        return HTMLResponse(page, status_code=status, headers=dict(headers or {}))

    def _page(self, request: Request, name: str, found: Values, banners: list[Banner]) -> str:
        base = request.scope.get("root_path", "")
        shared = {"base": base, "airflow": links.base_of(base), "nav": NAV, "banners": banners}
        return self._templates.get_template(name).render(**shared, **found)

    def _is_empty(self) -> bool:
        """Return whether there is no catalog yet, or one without any table."""
        try:
            return self._runtime().catalog.revision() is None
        except CatalogOutdated:
            return True
        except CloudsegError:
            return False


async def add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Add the headers of a page that its route did not set."""
    response = await call_next(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def static_file(name: str) -> bytes:
    """Return a file of the folder `static`.

    Args:
        name: one of the names that `app.py` has a route for.
    """
    return (_HERE / "static" / name).read_bytes()


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= FILTERS
    environment.globals["links"] = links
    return environment
