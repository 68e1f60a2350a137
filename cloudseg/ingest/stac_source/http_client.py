"""A polite HTTP client whose answers are bounded in size and time.

At most so many requests at a time; a request is repeated after a temporary error, with growing pauses and never before
the moment that the server names in Retry-After. A host that keeps failing is left alone for the rest of the run.
"""

import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult

from cloudseg import __version__
from cloudseg.backoff import pauses
from cloudseg.ingest.inbox_file import NotRead, escape_name
from cloudseg.ingest.stac_source.hosts import HostPolicy, Refused, absolute
from cloudseg.scratch import cannot_write

MAX_JSON_BYTES: Final = 16 << 20
"""Size of one JSON answer; a page of 100 Sentinel-2 items has 4 MB."""
_CHUNK: Final = 1 << 18
_LEAST_RATE: Final = 20_000
"""Bytes per second below which an answer ends; a page or file may take the timeout and its size over this."""
_REDIRECTS: Final = 5
_TEMPORARY: Final = frozenset((408, 425, 429, 500, 502, 503, 504))
_GIVEN_UP: Final = 3
"""Requests in a row that a host failed, each after all attempts."""
USER_AGENT: Final = f"cloudseg/{__version__} (python)"
_T = TypeVar("_T")


@dataclass(frozen=True)
class HttpOptions:
    """How requests are made."""

    policy: HostPolicy = field(default_factory=HostPolicy)
    connections: int = 4
    """Requests at a time."""
    timeout_s: float = 60.0
    """Without an answer."""
    attempts: int = 5
    longest_wait_s: float = 300.0
    """A server that asks for a longer pause is left to the next run."""
    token_url: str = ""
    """Address of tokens for files, with `{collection}`; see `signing`."""


@dataclass(frozen=True)
class Remote:
    """What a server says about a file."""

    url: str
    size: int
    validator: str
    """ETag, else Last-Modified, empty if it states neither."""
    ranges: bool
    """Whether parts of the file can be read."""


class Unreachable(NotRead):
    """The server did not deliver after all attempts; a retry can help."""

    retry_helps = True
    exit_code = 6
    http_status = 503


class _TemporaryFailure(Exception):
    """An attempt failed and another one may succeed."""

    def __init__(self, why: str, after_s: float = 0.0) -> None:
        super().__init__(why)
        self.after_s = after_s


class HttpClient:
    """Requests of one ingest. Safe to use from several threads."""

    def __init__(self, options: HttpOptions, sleep: Callable[[float], object] = time.sleep) -> None:
        self._options, self._sleep = options, sleep
        self._slots = threading.BoundedSemaphore(max(1, options.connections))
        self._lock = threading.Lock()
        self._not_before: dict[str, float] = defaultdict(float)
        self._failures: dict[str, int] = defaultdict(int)
        self._tls = ssl.create_default_context()

    @property
    def policy(self) -> HostPolicy:
        """Where requests may go."""
        return self._options.policy

    def read_json(self, url: str, *, body: dict[str, Any] | None = None) -> Any:
        """Return the JSON document of a GET, or of a POST of `body`.

        Raises:
            Refused: The address is not allowed, or the answer is too large or no JSON.
            NotRead: The server does not answer, or answers with an error.
        """
        return parse_json(self.read_text(url, body=body), url)

    def read_text(self, url: str, *, body: dict[str, Any] | None = None) -> bytes:
        """Return the bytes of a JSON answer; see `read_json`."""
        sent = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/geo+json, application/json"}
        headers |= {"Content-Type": "application/json"} if sent is not None else {}

        def attempt() -> bytes:
            with self._open("GET" if sent is None else "POST", url, headers, MAX_JSON_BYTES, sent) as answer:
                if answer.status >= 300:
                    raise _refusal(url, answer.status)
                return b"".join(_chunks(answer, MAX_JSON_BYTES, url))

        return self._repeat(url, attempt)

    def probe(self, url: str) -> Remote:
        """Return size, version and abilities of a file by asking for its first byte: signed addresses allow no HEAD.

        Raises:
            Refused: The address is not allowed, or the server states no size.
            NotRead: The server does not answer, or answers with an error.
        """

        def attempt() -> Remote:
            with self._open("GET", url, {"Range": "bytes=0-0"}, 1) as answer:
                if answer.status not in (200, 206):
                    raise _refusal(url, answer.status)
                size = _total(answer) if answer.status == 206 else answer.length
                if size is None:
                    raise Refused("the server does not state the size of the file", subject=shown(url))
                return Remote(url, size, _validator(answer), answer.status == 206)

        return self._repeat(url, attempt)

    def read_range(self, remote: Remote, start: int, size: int) -> bytes:
        """Return bytes of a file.

        Raises:
            NotRead: The server does not answer, or the file has changed since it was probed.
        """

        def attempt() -> bytes:
            headers = {"Range": f"bytes={start}-{start + size - 1}"}
            with self._open("GET", remote.url, headers, size) as answer:
                _check_part(answer, remote, start)
                found = b"".join(_chunks(answer, size, remote.url))
            if len(found) < size:
                raise _TemporaryFailure("the connection ended early")
            return found

        return self._repeat(remote.url, attempt)

    def download(self, remote: Remote, to: Path, wrote: Callable[[int], object] = lambda size: None) -> None:
        """Copy a file to a path; what an earlier call left there is kept and the rest is added.

        Args:
            remote: From `probe`; its size is not exceeded.
            to: The path. An earlier part must be of the same version.
            wrote: Called with the size after each piece.

        Raises:
            NotRead: The server does not answer, or the file has changed since it was probed.
            StoreUnreachable: The copy cannot be written, usually because the disk is full.
        """

        def attempt() -> None:
            have = to.stat().st_size if to.exists() else 0
            if have > remote.size or not remote.ranges:
                have = 0
            if have == remote.size and to.exists():
                return
            headers = {"Range": f"bytes={have}-{remote.size - 1}"} if have else {}
            with self._open("GET", remote.url, headers, remote.size - have) as answer:
                _check_part(answer, remote, have)
                size = _append(to, have, _chunks(answer, remote.size - have, remote.url), wrote)
            if size < remote.size:
                raise _TemporaryFailure(f"the connection ended after {size} of {remote.size} bytes")

        self._repeat(remote.url, attempt)

    def _repeat(self, url: str, attempt: Callable[[], _T]) -> _T:
        """Return the result of the first attempt that succeeds."""
        host = self.policy.check(url).netloc
        if self._failures[host] >= _GIVEN_UP:
            raise _unreachable(url, "the host failed several times in this run and was not asked again")
        for pause in pauses(attempts=self._options.attempts):
            self._wait(host)
            try:
                with self._slots:
                    result = attempt()
            except _TemporaryFailure as error:
                wait = max(pause or 0.0, error.after_s)
                if pause is None or wait > self._options.longest_wait_s:
                    with self._lock:
                        self._failures[host] += 1 if pause is None else _GIVEN_UP
                    raise _unreachable(url, str(error)) from error
                with self._lock:
                    self._not_before[host] = max(self._not_before[host], time.monotonic() + wait)
            else:
                with self._lock:
                    self._failures[host] = 0
                return result
        raise AssertionError("pauses() ends with None")

    def _wait(self, host: str) -> None:
        """Wait until the host may be asked again: every thread, not only the one that was refused."""
        while (left := self._not_before[host] - time.monotonic()) > 0:
            self._sleep(min(left, self._options.longest_wait_s))

    @contextmanager
    def _open(
        self, method: str, url: str, headers: dict[str, str], size: int, body: bytes | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Yield the answer to one request, after redirects, each of which is checked like the first address.

        Args:
            method: GET or POST.
            url: The address.
            headers: Of this request.
            size: Bytes that are wanted; they decide how long the answer may take.
            body: Of a POST.

        Raises:
            _TemporaryFailure: Another attempt may succeed.
            Refused: An address is not allowed.
        """
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Connection": "close"} | headers
        for _ in range(_REDIRECTS + 1):
            parts = self.policy.check(url)
            connection = _Connection(self.policy, parts, self._options.timeout_s, self._tls)
            watchdog = threading.Timer(self._options.timeout_s + size / _LEAST_RATE, connection.cut)
            watchdog.daemon = True
            watchdog.start()
            answer: http.client.HTTPResponse | None = None
            try:
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request(method, target, body=body, headers=headers)
                answer = connection.getresponse()
                location = answer.getheader("Location")
                if answer.status in (301, 302, 303, 307, 308) and location:
                    url = absolute(url, location)
                    if answer.status == 303:
                        method, body = "GET", None
                    continue
                _check_status(answer)
                yield answer
                if connection.was_cut:  # a cut body of unknown length looks complete
                    raise _TemporaryFailure("it took too long")
                return
            except (OSError, http.client.HTTPException) as error:
                # Of http.client and socket; errors of the disk are converted before they reach this line.
                why = "it took too long" if connection.was_cut else str(error) or type(error).__name__
                raise _TemporaryFailure(escape_name(why[:200])) from error
            finally:
                watchdog.cancel()
                if answer is not None:
                    answer.close()
                connection.close()
        raise Refused("too many redirects", subject=shown(url), expected=f"at most {_REDIRECTS}")


class _Connection(http.client.HTTPConnection):
    """A connection to an address that the policy has checked."""

    def __init__(self, policy: HostPolicy, parts: SplitResult, timeout_s: float, tls: ssl.SSLContext) -> None:
        secure = parts.scheme == "https"
        super().__init__(parts.hostname or "", parts.port or (443 if secure else 80), timeout=timeout_s)
        self.default_port = 443 if secure else 80  # left out of the header Host
        self._policy, self._tls, self._timeout_s = policy, tls if secure else None, timeout_s
        self.was_cut = False
        self._raw: socket.socket | None = None

    def connect(self) -> None:
        """Connect; see `HostPolicy.connect`."""
        self._raw = self.sock = self._policy.connect(self.host, self.port, self._timeout_s)
        if self._tls is not None:
            # Without the handshake first, so that it can be cut too.
            secured = self._tls.wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
            self._raw = self.sock = secured
            secured.do_handshake()

    def cut(self) -> None:
        """End the connection from another thread."""
        self.was_cut = True
        if self._raw is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._raw, socket.SHUT_RDWR)


def parse_json(content: bytes, url: str) -> Any:
    """Return the values of a JSON document.

    Raises:
        Refused: It is no JSON, or nested too deeply.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(
            "the answer is no JSON",
            subject=shown(url),
            found=str(error)[:100],
            expected="a STAC catalog, collection or item",
            next_step="Check the address: the landing page of the API, or catalog.json.",
        ) from error


def shown(url: str) -> str:
    """Return an address for messages and for the catalog: without its query, which may hold a signature."""
    return escape_name(re.split(r"[?#]", url, maxsplit=1)[0][:500])


def _refusal(url: str, status: int) -> NotRead:
    return NotRead(
        "the server did not deliver",
        subject=shown(url),
        found=f"status {status}",
        next_step="Check the address, and whether access needs an account; the next ingest tries again.",
    )


def _unreachable(url: str, why: str) -> Unreachable:
    next_step = "The next ingest tries again and continues."
    return Unreachable("the server did not deliver", subject=shown(url), found=why, next_step=next_step)


def _check_status(answer: http.client.HTTPResponse) -> None:
    if answer.status in _TEMPORARY:
        raise _TemporaryFailure(f"the server answers with status {answer.status}", _retry_after(answer))
    encoding = (answer.getheader("Content-Encoding") or "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise Refused("the answer is compressed, which was not asked for", found=escape_name(encoding[:50]))


def _retry_after(answer: http.client.HTTPResponse) -> float:
    """Return the seconds of Retry-After, which is a number or a date (RFC 9110, 10.2.3)."""
    text = (answer.getheader("Retry-After") or "").strip()
    if re.fullmatch(r"\d{1,9}", text, re.A):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError):
        return 0.0


def _validator(answer: http.client.HTTPResponse) -> str:
    text = answer.getheader("ETag") or answer.getheader("Last-Modified") or ""
    return escape_name(text[:200])


def _total(answer: http.client.HTTPResponse) -> int | None:
    found = re.fullmatch(r"bytes \d{1,15}-\d{1,15}/(\d{1,15})", answer.getheader("Content-Range") or "", re.A)
    return int(found[1]) if found else None


def _check_part(answer: http.client.HTTPResponse, remote: Remote, start: int) -> None:
    """Check that an answer is the wanted part of the version that was probed."""
    begin = re.match(r"bytes (\d{1,15})-", answer.getheader("Content-Range") or "", re.A)
    if answer.status not in (200, 206):
        raise _refusal(remote.url, answer.status)
    size = _total(answer) if answer.status == 206 else answer.length
    is_part = answer.status == 206 and begin is not None and int(begin[1]) == start
    is_whole = answer.status == 200 and start == 0
    if size != remote.size or _validator(answer) != remote.validator or not (is_part or is_whole):
        raise NotRead(
            "the file changed while it was read",
            subject=shown(remote.url),
            found=f"status {answer.status}, {size} bytes, {_validator(answer)}",
            expected=f"{remote.size} bytes, {remote.validator}",
            next_step="The next ingest tries again.",
        )


def _chunks(answer: http.client.HTTPResponse, most: int, url: str) -> Iterator[bytes]:
    """Yield the content of an answer.

    Raises:
        Refused: It is longer than wanted.
    """
    size, stated = 0, answer.length
    # read1 returns what has arrived, so that a copy holds all of it when the process is killed.
    while size != stated and (chunk := answer.read1(_CHUNK)):
        size += len(chunk)
        if size > most:
            raise Refused(
                "the answer is larger than allowed",
                subject=shown(url),
                found=f"more than {most} bytes",
                expected=f"at most {most} bytes",
            )
        yield chunk
    if stated is not None and size < stated:
        raise _TemporaryFailure(f"the connection ended after {size} of {stated} bytes")


def _append(to: Path, have: int, chunks: Iterator[bytes], wrote: Callable[[int], object]) -> int:
    """Write chunks after the first `have` bytes of a file and return its size.

    Only writing is converted to an error of the disk: an error while reading is the server's.
    """
    try:
        target = to.open("r+b" if have else "wb", buffering=0)
    except OSError as error:
        raise cannot_write(to.parent, error) from error
    with target:
        target.truncate(have)
        target.seek(have)
        for chunk in chunks:
            try:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[target.write(rest) :]
            except OSError as error:
                raise cannot_write(to.parent, error) from error
            have += len(chunk)
            wrote(have)
    return have
