"""One S3 bucket through a plain boto3 client: raw names, every fault translated into an error of `cloudseg.errors`.

Requests are retried by botocore's standard mode (exponential pauses with jitter); what breaks after the answer has
begun, a download, is taken up here where it broke. Nothing of cloudseg's keys is known here: `cloudseg.storage.s3` is
built on it.
"""

import logging
import os
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from cloudseg.backoff import pauses
from cloudseg.errors import ObjectExists, ObjectMissing, SettingsError, StoreRefused, StoreUnreachable
from cloudseg.storage.protocol import S3Options
from cloudseg.storage.s3_errors import translated

PIECE: Final = 1 << 20
"""Bytes of a download that are held at a time."""
_CONNECT_S: Final = 10.0
_CHATTY: Final = ("boto3", "botocore", "s3transfer", "urllib3")
"""Their DEBUG log holds signed requests and session tokens, and INFO tells where credentials were found, again and again."""
_DEFAULT_REGION: Final = "us-east-1"

Answer = dict[str, Any]


@dataclass(frozen=True)
class Head:
    """What the store says about an object without sending it."""

    size: int
    written_at: datetime
    etag: str
    sha256: str | None
    """As the server verified it, else as the writer noted it; None for an object that neither did."""


class Bucket:
    """A bucket.

    Safe to share between threads, and to send to another process: credentials stay behind, each finds its own.
    """

    def __init__(self, name: str, options: S3Options) -> None:
        _check_endpoints(options)
        self.name, self.options = name, options
        self._lock = threading.Lock()
        self._session: Any = None
        self._client: Any = None
        self._link_client: Any = None

    def __reduce__(self) -> tuple[object, ...]:
        return Bucket, (self.name, self.options)

    @property
    def where(self) -> str:
        """For people: bucket and endpoint, no secrets."""
        endpoint = self._client.meta.endpoint_url if self._client else self.options.endpoint
        return f"s3://{self.name}" + (f" at {endpoint}" if endpoint else "")

    def call(self, operation: str, name: str, **parameters: Any) -> Answer:
        """Ask the server about one object. Raises what `s3_errors.translated` gives."""
        with translated(self.where, name):
            answer: Answer = getattr(self.client(), operation)(Bucket=self.name, Key=name, **parameters)
            return answer

    def head(self, name: str) -> Head:
        """Look at an object. Raises ObjectMissing, StoreRefused where there is no such bucket, StoreUnreachable."""
        try:
            found = self.call("head_object", name, ChecksumMode="ENABLED")
        except (ObjectMissing, StoreRefused):
            # The answer to HEAD has no body: it does not say whether the object or its bucket is missing, or why it is
            # forbidden.
            self.check()
            raise
        return _head(found)

    def check(self) -> None:
        """Raise StoreRefused where there is no such bucket or no right to look at it, StoreUnreachable."""
        with translated(self.where, ""):
            self.client().list_objects_v2(Bucket=self.name, MaxKeys=1)

    def download(self, name: str) -> "Download":
        """Stream an object in pieces. The server is asked when the first piece is."""
        return Download(self, name)

    def list(self, prefix: str) -> Iterator[Answer]:
        """Yield the entries below a prefix in the order of the server: `Key`, `Size`, `LastModified`."""
        with translated(self.where, prefix):
            for page in self.client().get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                yield from page.get("Contents", [])

    def unfinished(self, prefix: str) -> Iterator[Answer]:
        """Yield the multipart uploads below a prefix that nobody completed: `Key`, `UploadId`, `Initiated`."""
        with translated(self.where, prefix):
            for page in self.client().get_paginator("list_multipart_uploads").paginate(Bucket=self.name, Prefix=prefix):
                yield from page.get("Uploads", [])

    def link(self, name: str, expires_s: int) -> str:
        """Return a URL that reads the object without credentials until it expires.

        The URL itself is a secret until then.
        """
        with translated(self.where, name):
            client = self._linking_client()
            return str(
                client.generate_presigned_url(
                    "get_object", Params={"Bucket": self.name, "Key": name}, ExpiresIn=expires_s
                )
            )

    def gdal_options(self) -> dict[str, str]:
        """Return the options under which GDAL reads `/vsis3/<bucket>/…`.

        The same endpoint and credentials, nothing from elsewhere.
        """
        endpoint, options = urlsplit(self.client().meta.endpoint_url), self.options
        with translated(self.where, ""):
            found = self._session.get_credentials()
            keys = found.get_frozen_credentials() if found else None
        return {
            "AWS_ACCESS_KEY_ID": keys.access_key if keys else "",
            "AWS_SECRET_ACCESS_KEY": keys.secret_key if keys else "",
            "AWS_SESSION_TOKEN": (keys.token if keys else None) or "",
            "AWS_REGION": self.region,
            "AWS_NO_SIGN_REQUEST": "NO",
            "AWS_S3_ENDPOINT": endpoint.netloc + endpoint.path.rstrip("/"),
            "AWS_HTTPS": "YES" if endpoint.scheme == "https" else "NO",
            "AWS_VIRTUAL_HOSTING": "TRUE" if self._addressing() == "virtual" else "FALSE",
            "GDAL_HTTP_CONNECTTIMEOUT": f"{_CONNECT_S:g}",
            "GDAL_HTTP_TIMEOUT": f"{options.timeout_s:g}",
            # GDAL doubles the delay after each try and adds jitter by itself.
            "GDAL_HTTP_MAX_RETRY": str(options.attempts - 1),
            "GDAL_HTTP_RETRY_DELAY": "0.5",
            "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif",
            # An object that was missing a moment ago may be there now; GDAL would remember its absence.
            "CPL_VSIL_CURL_NON_CACHED": f"/vsis3/{self.name}/",
            "CPL_CURL_VERBOSE": "NO",
            **({"GDAL_CURL_CA_BUNDLE": str(options.ca_bundle)} if options.ca_bundle else {}),
        }

    @property
    def region(self) -> str:
        """As the settings say, else as the environment or the profile of boto3 says."""
        self.client()
        return self.options.region or self._session.region_name or _DEFAULT_REGION

    def client(self) -> Any:
        """Return the client, made when it is first needed."""
        with self._lock:
            if self._client is None:
                self._session = self._open_session()
                self._client = self._make_client(self.options.endpoint)
            return self._client

    def _linking_client(self) -> Any:
        """Return a client whose URLs people can reach: a signature holds the name of the host."""
        usual = self.client()
        if self.options.link_endpoint is None:
            return usual
        with self._lock:
            self._link_client = self._link_client or self._make_client(self.options.link_endpoint)
            return self._link_client

    def _open_session(self) -> Any:
        for name in _CHATTY:
            logger = logging.getLogger(name)
            logger.setLevel(max(logger.level, logging.WARNING))
        with translated(self.where, ""):
            return boto3.Session()

    def _make_client(self, endpoint: str | None) -> Any:
        options = self.options
        config = Config(
            signature_version="s3v4",
            connect_timeout=_CONNECT_S,
            read_timeout=options.timeout_s,
            retries={"mode": "standard", "total_max_attempts": options.attempts},
            s3={"addressing_style": self._addressing()},
            max_pool_connections=16,
            user_agent_extra="cloudseg",
            # Checksums are SHA-256 and sent by `s3.py`; botocore's own CRCs would be a second one, and some servers do
            # not know them.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        region = options.region or self._session.region_name or _DEFAULT_REGION
        with translated(self.where, ""):
            return self._session.client(
                "s3",
                endpoint_url=endpoint,
                region_name=region,
                verify=str(options.ca_bundle) if options.ca_bundle else None,
                config=config,
            )

    def _addressing(self) -> Literal["path", "virtual"]:
        if self.options.addressing != "auto":
            return self.options.addressing
        # Own servers seldom have a DNS name for each bucket; AWS wants one.
        return "path" if self.options.endpoint else "virtual"


class Download:
    """The pieces of an object, once; a broken connection goes on where it broke, by a range of the same version.

    Holds one piece at a time. Raises ObjectMissing, StoreRefused, StoreUnreachable.
    """

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket, self._name = bucket, name
        self._at = 0
        self._head: Head | None = None

    @property
    def head(self) -> Head:
        """What the server said when the first piece came."""
        assert self._head is not None  # noqa: S101
        return self._head

    def __iter__(self) -> Iterator[bytes]:
        for pause in pauses(attempts=self._bucket.options.attempts):
            try:
                yield from self._rest()
            except StoreUnreachable:
                if pause is None:
                    raise
                time.sleep(pause)
            else:
                return

    def _rest(self) -> Iterator[bytes]:
        """Yield what has not been given yet."""
        if self._head is not None and self._at == self._head.size:
            return
        answer = self._ask()
        self._head = self._head or _head(answer)
        with translated(self._bucket.where, self._name), closing(answer["Body"]) as body:
            for piece in body.iter_chunks(PIECE):
                self._at += len(piece)
                yield piece

    def _ask(self) -> Answer:
        if self._head is None:
            return self._bucket.call("get_object", self._name, ChecksumMode="ENABLED")
        try:
            return self._bucket.call("get_object", self._name, Range=f"bytes={self._at}-", IfMatch=self._head.etag)
        except ObjectExists as error:
            raise StoreUnreachable(
                "the object changed while it was read", subject=self._name, next_step="Try again."
            ) from error


def checksum(digest: bytes) -> str:
    """Return a SHA-256 as S3 writes it."""
    return b64encode(digest).decode()


def _head(answer: Answer) -> Head:
    return Head(
        size=answer["ContentLength"], written_at=answer["LastModified"], etag=answer["ETag"], sha256=_sha256(answer)
    )


def _sha256(answer: Answer) -> str | None:
    """Return the hex SHA-256 of the whole object.

    That of a multipart upload is one over its parts and of no use here.
    """
    verified = answer.get("ChecksumSHA256", "")
    if verified and "-" not in verified and answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
        return b64decode(verified).hex()
    noted: str | None = answer.get("Metadata", {}).get("sha256")
    return noted


def _check_endpoints(options: S3Options) -> None:
    for name, endpoint in (("ENDPOINT", options.endpoint), ("LINK_ENDPOINT", options.link_endpoint)):
        if endpoint is None:
            continue
        parts = urlsplit(endpoint)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.username
            or parts.password
            or parts.query
        ):
            raise SettingsError(
                "not the address of an S3 server",
                subject=f"CLOUDSEG_S3_{name}",
                found=f"{parts.scheme or 'no scheme'}://…",
                expected="http(s)://host[:port], credentials in the environment or in a profile",
            )
    if options.ca_bundle is not None and not os.access(options.ca_bundle, os.R_OK):
        raise SettingsError(
            "the CA certificates cannot be read", subject="CLOUDSEG_S3_CA_BUNDLE", found=options.ca_bundle
        )
