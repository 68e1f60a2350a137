"""The pages about models, masks and quarantine: read-only, behind Airflow's login."""

from collections.abc import Callable
from typing import Any


class LazyApp:
    """An ASGI app that is built at the first request."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Forward the request to the app."""
        if self._app is None:
            self._app = self._build()
        await self._app(scope, receive, send)
