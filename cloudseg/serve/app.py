"""The application: routes, errors, and what stands before them."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import anyio.to_thread
from fastapi import FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

from cloudseg import __version__
from cloudseg.catalog.lineage import lineage_of_mask
from cloudseg.catalog.read_only import open_read_only
from cloudseg.errors import CloudsegError, InputError, ObjectMissing
from cloudseg.records import Json
from cloudseg.runtime import Runtime
from cloudseg.serve.cache import BRIEF
from cloudseg.serve.conditional import Conditional
from cloudseg.serve.context import DATABASE_TIMEOUT_S, PATIENT_TIMEOUT_S, Context, MaskId, Workers
from cloudseg.serve.features import add_features
from cloudseg.serve.files import add_files
from cloudseg.serve.guard import ApiKeys, Guard, RateLimit
from cloudseg.serve.metrics import PATH as METRICS
from cloudseg.serve.metrics import add_metrics
from cloudseg.serve.qgis import add_qgis
from cloudseg.serve.stac_api import PREFIX, TITLE, add_stac_api
from cloudseg.serve.tiles import TEMPLATES, add_tiles, find_item

log = logging.getLogger(__name__)
_THREADS: Final = 12
"""Threads that ask the catalog; each of them, and each worker, has a connection."""
OPEN_PATHS: Final = ("/", "/health", "/static/", METRICS)
"""They need no API key: the page asks for one, metrics have a key of their own, the others hold no data."""
_STATIC: Final = Path(__file__).parent / "static"
_FILES: Final = {
    "app.css": ("app.css", "text/css"),
    "app.js": ("app.js", "text/javascript"),
    "client.js": ("client.js", "text/javascript"),
    "views.js": ("views.js", "text/javascript"),
    "answer.js": ("answer.js", "text/javascript"),
    "grid.js": ("grid.js", "text/javascript"),
    "land.json": ("land/land-110m.json", "application/json"),
    "maplibre-gl.css": ("maplibre/maplibre-gl.css", "text/css"),
    "maplibre-gl.mjs": ("maplibre/maplibre-gl.mjs", "text/javascript"),
    "maplibre-gl-worker.mjs": ("maplibre/maplibre-gl-worker.mjs", "text/javascript"),
    "LICENSE.txt": ("maplibre/LICENSE.txt", "text/plain"),
}
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' blob: data:{base}; "
    "connect-src 'self'{base}; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
"""No inline script or style and no other host but that of the operator's base map.

MapLibre fetches tiles and draws them as blobs; the icons of its style sheet are data.
"""


def create_app(runtime: Runtime, *, behind_login: bool = False) -> FastAPI:
    """Return the application over a catalog and a store.

    Args:
        runtime: settings, catalog and store.
        behind_login: another application has checked who asks, as Airflow's API server does. Then there are no API
            keys, no limit of a client's requests and no other origins, and no shared cache may keep an answer.

    Raises:
        SettingsError: an API key is too short.
    """
    settings = runtime.settings
    workers = Workers(runtime.threads)
    readers = open_read_only(runtime.catalog, timeout_s=DATABASE_TIMEOUT_S, connections=_THREADS + workers.threads)
    patient = open_read_only(runtime.catalog, timeout_s=PATIENT_TIMEOUT_S, connections=1)
    context = Context(runtime, readers, workers, patient)
    app = FastAPI(
        title=TITLE,
        version=__version__,
        openapi_url=f"{PREFIX}/api",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.context = context
    add_stac_api(app, context)
    add_tiles(app, context)
    add_features(app, context)
    add_files(app, context)
    add_qgis(app, context)
    _add_pages(app)
    _add_errors(app)
    if behind_login:
        app.add_middleware(Guard, keys=ApiKeys(""), rate=RateLimit(0), open_paths=(), private=True)
        return app
    if settings.serve_metrics_key is not None:
        add_metrics(app, context, settings.serve_metrics_key)
    keys = ApiKeys(settings.serve_api_keys.get_secret_value() if settings.serve_api_keys else "")
    app.add_middleware(Conditional, prefix=f"{PREFIX}/")
    # The last one added is the first to see a request: browsers need CORS headers on refusals too.
    rate = RateLimit(settings.serve_requests_per_minute)
    app.add_middleware(Guard, keys=keys, rate=rate, open_paths=OPEN_PATHS, private=bool(keys))
    if origins := settings.serve_cors_origins.split():
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST", "OPTIONS"],
            allow_headers=["content-type", "x-api-key", "authorization", "range", "if-none-match"],
            expose_headers=["etag", "content-range", "accept-ranges", "content-length"],
            max_age=600,
        )
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
    yield
    for catalog in (app.state.context.catalog, app.state.context.patient):
        catalog.engine.dispose()


def _add_pages(app: FastAPI) -> None:
    @app.get("/health", include_in_schema=False)
    def health() -> dict[str, str]:
        app.state.context.catalog.revision()
        return {"status": "UP"}

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        settings = app.state.context.runtime.settings
        text = TEMPLATES.get_template("index.html").render(
            base_tiles=settings.serve_base_tiles or "", base_attribution=settings.serve_base_attribution
        )
        return HTMLResponse(text, headers=_page_headers(settings.serve_base_tiles))

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in _FILES:
            raise HTTPException(404, "no such file")
        path, media_type = _FILES[name]
        headers = {"Cache-Control": "public, max-age=3600"}
        return FileResponse(_STATIC / path, media_type=f"{media_type}; charset=utf-8", headers=headers)

    @app.get("/lineage/{mask_id}", tags=["Features"])
    def lineage(mask_id: MaskId) -> Response:
        """Return what a mask was made of, down to the labels, without addresses of the inside."""
        context: Context = app.state.context
        find_item(context, mask_id)
        with context.catalog.read() as db:
            found = lineage_of_mask(db, mask_id)
        return JSONResponse(_public(found), headers={"Cache-Control": BRIEF})

    @app.get(f"{PREFIX}/api.html", include_in_schema=False)
    def api_page(request: Request) -> Response:
        return HTMLResponse(_routes_page(app.openapi()))


def _page_headers(base_tiles: str | None) -> dict[str, str]:
    """Return the headers of the map; a base map's host may be asked, and is told the origin, as most of them want."""
    if base_tiles is None:
        return {"Content-Security-Policy": _PAGE_POLICY.format(base=""), "X-Frame-Options": "SAMEORIGIN"}
    host = urlsplit(base_tiles)
    return {
        "Content-Security-Policy": _PAGE_POLICY.format(base=f" {host.scheme}://{host.netloc}"),
        "X-Frame-Options": "SAMEORIGIN",
        "Referrer-Policy": "strict-origin",
    }


_LINEAGE: Final = {
    "mask": (
        "mask_id",
        "threshold",
        "cloud_fraction",
        "valid_fraction",
        "radiometry",
        "sha256",
        "created_at",
        "disputed",
    ),
    "scene": ("scene_id", "name", "sensor", "acquired_at", "place", "source_sha256", "sha256"),
    "weights": ("weights_id", "version", "architecture", "sha256", "created_at"),
    "run": ("run_id", "recipe_name", "recipe_hash", "parent_weights_id", "finished_at"),
    "snapshot": ("snapshot_id", "manifest_sha256", "chip_size", "bands", "created_at"),
}


def _public(found: Json) -> Json:
    """Return a lineage without addresses of sources: they name machines and folders."""
    parts = {
        part: None if found[part] is None else {name: found[part][name] for name in names}
        for part, names in _LINEAGE.items()
    }
    labels = [
        {
            **{name: label[name] for name in ("label_id", "version", "source", "source_sha256", "split", "state")},
            "scene_id": label["scene"]["scene_id"],
            "scene_name": label["scene"]["name"],
        }
        for label in found["labels"]
    ]
    return {**parts, "labels": labels, "ancestors": found["ancestors"]}


def _routes_page(document: dict[str, Any]) -> str:
    """Return the routes as a page without scripts; the usual one loads Swagger UI from another host."""
    rows = [
        {"method": method.upper(), "path": path, **operation}
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    return TEMPLATES.get_template("api.html").render(title=TITLE, rows=rows)


def _add_errors(app: FastAPI) -> None:
    """Answer errors as `{code, description}`; what is inside (paths, keys, statements) goes to the log only."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, CloudsegError)  # noqa: S101 - registered for this class only
        name = type(error).__name__
        if isinstance(error, InputError):
            facts = [f"found {error.found}"] if error.found else []
            facts += [f"expected {error.expected}"] if error.expected else []
            text = f"{error.subject}: {error.what}" if error.subject else error.what
            return _error(error.http_status, name, f"{text} ({', '.join(facts)})" if facts else text)
        log.error("%s", error)
        if isinstance(error, ObjectMissing):
            return _error(error.http_status, name, "the store lacks this object")
        return _error(error.http_status, name, "the service cannot answer this at the moment", retry=error.retry_helps)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        found = error.errors()[:3]
        words = "; ".join(f"{'.'.join(map(str, entry['loc'][1:]))}: {entry['msg']}" for entry in found)
        return _error(400, "InvalidParameter", words[:500])

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)  # noqa: S101
        return _error(error.status_code, "HTTPException", str(error.detail)[:300], headers=error.headers)

    async def unexpected(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return _error(500, "InternalError", "the service failed; its log says why")

    app.add_exception_handler(CloudsegError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(StarletteHTTPException, http)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


def _error(status: int, code: str, text: str, *, retry: bool = False, headers: Any = None) -> Response:
    more = {**(headers or {}), **({"Retry-After": "5"} if retry else {})}
    # JSON has lone surrogates as escapes, UTF-8 has none: what a client sent may be quoted here.
    shown = text.encode("utf-8", "backslashreplace").decode()
    return JSONResponse({"code": code, "description": shown}, status_code=status, headers=more)
