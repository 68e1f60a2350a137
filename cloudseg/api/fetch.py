"""Read a small published file from a path or an address: named schemes only, bounded, no redirect to another scheme."""

import re
from pathlib import Path
from typing import IO, Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from cloudseg.errors import InputError, ObjectMissing, SettingsError, StoreRefused, StoreUnreachable
from cloudseg.storage import S3Options

MAX_BYTES: Final = 1 << 30
"""Largest weights file; the baseline's U-Net has 31 million parameters, 124 MB."""
_TIMEOUT_S: Final = 60.0
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_EXPECTED: Final = "https://…, s3://bucket/key, file:///path (http:// on this machine only)"
_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)


def is_address(text: str) -> bool:
    """Return whether the text is an address with a scheme, not a path."""
    return _ADDRESS.match(text) is not None


def fetch(address: str, s3: S3Options, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the bytes behind an address.

    Args:
        address: https, s3 or file; http on this machine's loopback only. The fragment is ignored.
        s3: how S3 is reached.
        max_bytes: a larger file is an error; no more is read.

    Raises:
        InputError: another scheme, also after a redirect, or the file is too large.
        ObjectMissing: there is no such file.
        StoreRefused: access is denied.
        StoreUnreachable: the server does not answer.
    """
    parts = urlsplit(address)
    match parts.scheme:
        case "file" if parts.netloc in ("", "localhost"):
            return read_file(Path(unquote(parts.path)), max_bytes=max_bytes)
        case "https" | "http":
            return _fetch_http(address, max_bytes)
        case "s3":
            return _fetch_s3(parts, s3, max_bytes)
    raise InputError("this address is not read", subject=_plain(address), expected=_EXPECTED)


def read_file(path: Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the bytes of a file.

    Raises:
        InputError: the file is missing, cannot be read or is too large.
    """
    try:
        if not path.is_file():
            raise InputError("no such file", subject=str(path), next_step="Check the path.")
        with path.open("rb") as file:
            return _bounded(file, str(path), max_bytes)
    except OSError as error:
        raise InputError("the file cannot be read", subject=str(path), found=error.strerror or error) from error


def _bounded(file: IO[bytes] | Any, name: str, max_bytes: int) -> bytes:
    data: bytes = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InputError(
            "the file is larger than allowed", subject=name, found="more", expected=f"at most {max_bytes} bytes"
        )
    return data


class _Redirects(HTTPRedirectHandler):
    """Follow a redirect only to what could have been asked for, in the same scheme."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        if urlsplit(newurl).scheme != urlsplit(req.full_url).scheme or not _is_read(newurl):
            raise _redirected(_plain(req.full_url), newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch_http(address: str, max_bytes: int) -> bytes:
    name = _plain(address)
    if not _is_read(address):
        raise InputError("this address is not read", subject=name, expected=_EXPECTED)
    try:
        with build_opener(_Redirects()).open(address.partition("#")[0], timeout=_TIMEOUT_S) as answer:
            return _bounded(answer, name, max_bytes)
    except HTTPError as error:
        raise _http_error(error, name) from error
    except (URLError, TimeoutError, ConnectionError) as error:
        raise StoreUnreachable(
            "the server does not answer", subject=name, found=getattr(error, "reason", error), next_step="Try again."
        ) from error


def _is_read(address: str) -> bool:
    """Return whether an address is https, or http on this machine."""
    parts = urlsplit(address)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


def _redirected(name: str, to: str) -> InputError:
    return InputError(
        "the server redirects to an address that is not read",
        subject=name,
        found=_plain(to),
        expected=_EXPECTED,
        next_step="Use the address that it redirects to, if you trust it.",
    )


def _http_error(error: HTTPError, name: str) -> Exception:
    found = f"HTTP status {error.code}"
    if 300 <= error.code < 400:  # of another kind than http, or in a loop: urllib itself does not follow it
        return _redirected(name, error.headers.get("Location", ""))
    if error.code in (404, 410):
        return ObjectMissing("there is no such file", subject=name, found=found, next_step="Check the address.")
    if error.code < 500 and error.code != 429:
        return StoreRefused("the server refuses the request", subject=name, found=found)
    return StoreUnreachable("the server cannot answer now", subject=name, found=found, next_step="Try again.")


def _fetch_s3(parts: SplitResult, s3: S3Options, max_bytes: int) -> bytes:
    try:
        from cloudseg.storage.s3 import S3Store, is_bucket_name
    except ImportError as error:
        raise SettingsError(
            "boto3, which s3:// addresses need, is not installed",
            subject=str(error.name),
            next_step="Install the extra: pip install 'cloudseg[s3]'.",
        ) from error
    name, key = f"s3://{parts.netloc}{parts.path}", unquote(parts.path.lstrip("/"))
    if not is_bucket_name(parts.netloc) or not key:
        raise InputError("not the address of an object", subject=name, expected="s3://bucket/key")
    download = S3Store.at(f"s3://{parts.netloc}", s3).bucket.download(key)
    data = bytearray()
    for chunk in download:
        data += chunk
        if len(data) > max_bytes:
            raise InputError(
                "the file is larger than allowed",
                subject=name,
                found=download.head.size,
                expected=f"at most {max_bytes} bytes",
            )
    return bytes(data)


def _plain(address: str) -> str:
    """Return an address without user name, password and query, which may be secret."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
