"""What stands before every request: limits, API keys, headers. A pure ASGI middleware.

Order: size of the request, number of requests at once, rate of the client, API key. A refused request costs nothing
but this.
"""

import hashlib
import hmac
import ipaddress
import json
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloudseg.errors import SettingsError

log = logging.getLogger(__name__)
KEY_HEADER: Final = "x-api-key"
KEY_PARAMETER: Final = "api_key"
"""For clients of tiles that send no headers (QGIS, map libraries)."""
SHORTEST_KEY: Final = 16
MAX_URL: Final = 16_000
"""Bytes of path and query; the GET form of a search by a detailed geometry is the longest."""
MAX_BODY: Final = 1 << 20
MAX_AT_ONCE: Final = 256
_MAX_CLIENTS: Final = 10_000
"""Clients whose rate is remembered; the one that was idle longest is forgotten."""
_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class ApiKeys:
    """The API keys of readers, as digests: comparing them takes the same time whatever is given."""

    def __init__(self, text: str, setting: str = "CLOUDSEG_SERVE_API_KEYS") -> None:
        """Take keys.

        Args:
            text: keys divided by blanks.
            setting: where they are from, for the error.

        Raises:
            SettingsError: a key is too short to be a secret.
        """
        keys = text.split()
        if any(len(key) < SHORTEST_KEY for key in keys):
            raise SettingsError(
                "an API key is too short",
                subject=setting,
                expected=f"at least {SHORTEST_KEY} letters",
                next_step="Make one: python -c 'import secrets; print(secrets.token_urlsafe(24))'",
            )
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def allow(self, given: str) -> bool:
        """Return whether this is one of the keys; every key is compared (hmac.compare_digest)."""
        digest = _digest(given)
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class RateLimit:
    """A token bucket for each client: as many requests at once as in a minute, then one for each that is regained."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`per_minute`: 0 for no limit."""
        self._per_minute, self._clock = per_minute, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_of(self, client: str) -> float:
        """Count a request; return 0 if it is allowed, else the seconds until the next one is."""
        if self._per_minute == 0:
            return 0.0
        now = self._clock()
        left, seen_at = self._buckets.pop(client, (float(self._per_minute), now))
        left = min(self._per_minute, left + (now - seen_at) * self._per_minute / 60)
        allowed = left >= 1
        self._buckets[client] = (left - 1 if allowed else left, now)
        if len(self._buckets) > _MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) * 60 / self._per_minute


def client_of(scope: Scope) -> str:
    """Return the address of the client; an IPv6 client is its /64 network, of which it may have every address."""
    host = str((scope.get("client") or ("",))[0])
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host


class Guard:
    """The middleware."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: ApiKeys,
        rate: RateLimit,
        open_paths: Iterable[str],
        private: bool,
        at_once: int = MAX_AT_ONCE,
    ) -> None:
        """Take the limits.

        Args:
            app: what stands behind.
            keys: of readers; empty: everybody may read.
            rate: of each client.
            open_paths: paths, or beginnings that end with a slash, that need no key: they hold no data.
            private: a shared cache must not hand to everybody what a key or a login was needed for.
            at_once: requests that are answered at the same time; more are refused.
        """
        self._app, self._keys, self._rate, self._at_once, self._private = app, keys, rate, at_once, private
        self._open = tuple(open_paths)
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = self._with_headers(send)
        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        self._running += 1
        try:
            await self._app(scope, _limited(receive), send)
        except _TooLarge:
            await _answer(send, 413, "the request is too large", {})
        finally:
            self._running -= 1

    def _refusal(self, scope: Scope) -> tuple[int, str, dict[str, str]] | None:
        headers = Headers(scope=scope)
        if len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"]) > MAX_URL:
            return 414, "the address is too long", {}
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return 413, "the request is too large", {}
        if self._running >= self._at_once:
            return 503, "the service is busy", {"Retry-After": "1"}
        if wait := self._rate.wait_of(client_of(scope)):
            return 429, "too many requests", {"Retry-After": str(math.ceil(wait))}
        if self._keys and not self._is_open(scope) and not self._keys.allow(_given_key(headers, scope)):
            return 401, "an API key is needed", {"WWW-Authenticate": f'ApiKey header="{KEY_HEADER}"'}
        return None

    def _is_open(self, scope: Scope) -> bool:
        path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")))
        # A preflight request never carries a key (fetch.spec.whatwg.org, CORS-preflight fetch).
        if scope["method"] == "OPTIONS":
            return True
        return any(
            path == known or (known.endswith("/") and len(known) > 1 and path.startswith(known)) for known in self._open
        )

    def _with_headers(self, send: Send) -> Send:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if self._private:
                    headers["Cache-Control"] = headers["Cache-Control"].replace("public", "private")
            await send(message)

        return send_with_headers


class _TooLarge(Exception):
    """The body is longer than allowed."""


def _limited(receive: Receive) -> Receive:
    """Return a receiver that counts: a body without a length may be endless."""
    seen = 0

    async def receive_limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY:
            raise _TooLarge
        return message

    return receive_limited


def _given_key(headers: Headers, scope: Scope) -> str:
    if key := headers.get(KEY_HEADER):
        return key
    return bearer_token(headers) or key_parameter(scope) or ""


def bearer_token(headers: Headers) -> str:
    """Return the token of a request (RFC 6750, 2.1), an empty text if it has none."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token if kind.lower() == "bearer" else ""


def key_parameter(scope: Scope) -> str | None:
    """Return the key in the query of a request, None if there is none."""
    values = parse_qs(scope["query_string"].decode("latin-1")).get(KEY_PARAMETER)
    return values[0] if values else None


async def _answer(send: Send, status: int, what: str, headers: dict[str, str]) -> None:
    body = json.dumps({"code": str(status), "description": what}).encode()
    sent: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    sent += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})
