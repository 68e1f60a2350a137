"""Conditional requests for documents (RFC 9110, 13.1.2) and HEAD for what GET answers. A pure ASGI middleware.

The ETag of a document follows from its bytes, so a client that has it sends a few bytes and gets none.
"""

import hashlib
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloudseg.serve.cache import is_cached

_REVALIDATE: Final = "no-cache"
"""Keep the document, and ask each time whether it is still the same."""


class Conditional:
    """Answers GET and HEAD of the documents under one path."""

    def __init__(self, app: ASGIApp, *, prefix: str) -> None:
        """`prefix`: with a slash at its end."""
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        path = str(scope.get("path", "")).removeprefix(str(scope.get("root_path", "")))
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or not path.startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        start: Message = {}
        body = bytearray()

        async def keep(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            else:
                body.extend(message.get("body", b""))

        await self._app({**scope, "method": "GET"}, receive, keep)
        if start:
            await self._answer(scope, start, bytes(body), send)

    async def _answer(self, scope: Scope, start: Message, body: bytes, send: Send) -> None:
        if start["status"] == 200 and "etag" not in Headers(raw=start["headers"]):
            tag = hashlib.sha256(body).hexdigest()[:32]
            headers = MutableHeaders(raw=list(start["headers"]))
            headers["ETag"], headers["Cache-Control"] = f'"{tag}"', _REVALIDATE
            if is_cached(Request(scope), tag):
                start, body = {**start, "status": 304}, b""
                for name in ("content-length", "content-type"):
                    del headers[name]
            start = {**start, "headers": headers.raw}
        await send(start)
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
