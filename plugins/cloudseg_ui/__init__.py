"""The pages in the Airflow UI: models, masks, quarantine, readers, and the map; behind Airflow's login."""

import threading
from collections.abc import Callable
from typing import Any

import anyio.to_thread


class LazyApp:
    """An ASGI app that is built at the first request, in a thread: its imports take seconds.

    If that fails, the next request tries again.
    """

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build, self._lock = build, threading.Lock()
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Forward the request to the app."""
        if self._app is None:
            await anyio.to_thread.run_sync(self._make)
        await self._app(scope, receive, send)

    def _make(self) -> None:
        with self._lock:
            if self._app is None:
                self._app = self._build()
