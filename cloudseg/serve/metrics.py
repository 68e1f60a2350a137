"""The route that Prometheus scrapes: figures of the whole service, none about a reader or a request.

It has a key of its own. Readers of masks need not see costs and failures, and whoever collects figures need not see
masks.
"""

from fastapi import FastAPI, HTTPException
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from cloudseg.monitor.exposition import CONTENT_TYPE, metrics_text
from cloudseg.monitor.figures import Prices, read_figures
from cloudseg.serve.context import Context
from cloudseg.serve.guard import ApiKeys, bearer_token

PATH = "/metrics"


def add_metrics(app: FastAPI, context: Context, key: SecretStr) -> None:
    """Add the route.

    Args:
        app: the application.
        context: its catalog, which cannot be written.
        key: what a scrape must send as `Authorization: Bearer`.

    Raises:
        SettingsError: the key is too short.
    """
    keys = ApiKeys(key.get_secret_value(), "CLOUDSEG_SERVE_METRICS_KEY")
    settings = context.runtime.settings
    prices = Prices(gpu_hour=settings.gpu_hour_price, cpu_hour=settings.cpu_hour_price)

    @app.get(PATH, include_in_schema=False)
    def metrics(request: Request) -> Response:
        if not keys.allow(bearer_token(request.headers)):
            raise HTTPException(401, "the key of the metrics is needed", {"WWW-Authenticate": "Bearer"})
        text = metrics_text(read_figures(context.catalog, prices=prices))
        return Response(text, headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})
