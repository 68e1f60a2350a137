"""The application of `cloudseg serve` behind Airflow's login.

One route takes every request, has the guards, and hands the request on to the application. So a route that the
application gets later stands behind them too, as its OpenAPI document and its unknown paths do: FastAPI's dependencies
alone would not cover those.
"""

import asyncio
import html
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from cloudseg_ui import LazyApp
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.params import Depends
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from cloudseg.errors import CloudsegError, SettingsError
from cloudseg.runtime import Runtime
from cloudseg.serve import extra_missing

log = logging.getLogger(__name__)
AT_ONCE: Final = 24
"""Requests that are worked on at the same time; others wait. Each takes a thread of the 40 that Airflow's API server
has for everything (the default of anyio), so that a burst of tiles never takes them all."""
_METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; frame-ancestors 'self'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def create_browse(
    open_app: Callable[[], Any], *, guards: Sequence[Depends], login_page: Callable[[str], str]
) -> FastAPI:
    """Build the app.

    Args:
        open_app: builds the application of `cloudseg serve`; called at the first request that passed the guards.
        guards: dependencies of every request (Airflow's login).
        login_page: returns the address of the login that leads to an address afterward.
    """
    outer = FastAPI(title="cloudseg", docs_url=None, redoc_url=None, openapi_url=None, dependencies=list(guards))
    inner = Bounded(LazyApp(open_app))

    @outer.api_route("/{path:path}", methods=_METHODS)
    async def hand_on(path: str) -> Response:
        return _HandedOn(inner)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  (registered for this class only)
        if error.status_code == 401 and _is_browser(request):
            query = f"?{request.url.query}" if request.url.query else ""
            return RedirectResponse(login_page(request.url.path + query), 302, headers=_HEADERS)
        return _explain(request, error.status_code, "HTTPException", str(error.detail), error.headers)

    async def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, CloudsegError)  # noqa: S101
        log.error("%s", error)
        # Only settings: what an operator must know. What is inside stays in the log.
        text = f"{error.what}. {error.next_step or ''}" if isinstance(error, SettingsError) else "not available"
        return _explain(request, 503, type(error).__name__, text.strip())

    outer.add_exception_handler(HTTPException, refused)
    outer.add_exception_handler(CloudsegError, failed)
    return outer


def open_application(runtime: Runtime) -> Any:
    """Return the application over a catalog and a store, for `create_browse`.

    Raises:
        SettingsError: the extra `serve` is not installed.
    """
    try:
        from cloudseg.serve.app import create_app
    except ImportError as error:
        raise extra_missing(error, "the map in the Airflow UI") from error
    return create_app(runtime, behind_login=True)


class Bounded:
    """An ASGI app of which a limited number of requests is worked on at the same time.

    A request counts until its answer begins: a slow download takes no thread while it waits for its client.
    """

    def __init__(self, app: Any) -> None:
        self._app, self._free = app, asyncio.Semaphore(AT_ONCE)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Forward the request to the app when there is a place."""
        await self._free.acquire()
        held = True

        async def send_and_release(message: Any) -> None:
            nonlocal held
            if held:
                held = False
                self._free.release()
            await send(message)

        try:
            await self._app(scope, receive, send_and_release)
        finally:
            if held:
                self._free.release()


class _HandedOn(Response):
    """The answer of another ASGI app to the same request."""

    def __init__(self, app: Any) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        # A copy: what this request's own routing has found is none of the other app's.
        await self._app(dict(scope), receive, send)


def _is_browser(request: Request) -> bool:
    """Return whether somebody opened the address: a browser asks so for a page, and not for data, tiles or files."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "")


def _explain(request: Request, status: int, code: str, text: str, headers: Any = None) -> Response:
    """Answer as the application does, `{code, description}`, or with a page in a browser."""
    every = {**_HEADERS, **(headers or {})}
    if not _is_browser(request):
        return JSONResponse({"code": code, "description": text}, status_code=status, headers=every)
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>Cloud masks</title><p>{html.escape(text)}</p>"
    return HTMLResponse(page, status_code=status, headers=every)
