"""One S3 bucket through a plain boto3 client: names of objects as they are, errors as classes of `cloudseg.errors`.

botocore's standard mode retries requests (exponential back-off with jitter); an interrupted download is resumed
here. Keys and checksums are handled by `cloudseg.storage.s3`, which is built on this module.
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
from cloudseg.storage.s3_errors import translate_s3_errors

CHUNK: Final = 1 << 20
"""Bytes of a download that are in memory at a time."""
_CONNECT_S: Final = 10.0
_CHATTY: Final = ("boto3", "botocore", "s3transfer", "urllib3")
"""Loggers whose DEBUG level prints signed requests and session tokens, and INFO where credentials were found."""
_DEFAULT_REGION: Final = "us-east-1"

Answer = dict[str, Any]


@dataclass(frozen=True)
class Head:
    """What a HEAD request returns."""

    size: int
    written_at: datetime
    etag: str
    sha256: str | None
    """As the server verified it, else from the metadata; None where neither has it."""


class Bucket:
    """A bucket. Safe to share between threads and to pickle: every process finds its own credentials."""

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
        """Bucket and endpoint for messages, without secrets."""
        endpoint = self._client.meta.endpoint_url if self._client else self.options.endpoint
        return f"s3://{self.name}" + (f" at {endpoint}" if endpoint else "")

    def call(self, operation: str, name: str, **parameters: Any) -> Answer:
        """Send a request about one object.

        Raises:
            StoreError: as in `s3_errors.translate_s3_errors`.
        """
        with translate_s3_errors(self.where, name):
            answer: Answer = getattr(self.client(), operation)(Bucket=self.name, Key=name, **parameters)
            return answer

    def head(self, name: str) -> Head:
        """Return the head of an object.

        Raises:
            ObjectMissing: there is no such object.
            StoreRefused: there is no such bucket, or access is denied.
            StoreUnreachable: the server does not answer.
        """
        try:
            found = self.call("head_object", name, ChecksumMode="ENABLED")
        except (ObjectMissing, StoreRefused):
            # The answer to HEAD has no body: it does not show if the object or its bucket is missing, or why access
            # is denied.
            self.check()
            raise
        return _head(found)

    def check(self) -> None:
        """Check the bucket with one request.

        Raises:
            StoreRefused: there is no such bucket, or access is denied.
            StoreUnreachable: the server does not answer.
        """
        with translate_s3_errors(self.where, ""):
            self.client().list_objects_v2(Bucket=self.name, MaxKeys=1)

    def download(self, name: str) -> "Download":
        """Return the chunks of an object; the first request is sent with the first chunk."""
        return Download(self, name)

    def list(self, prefix: str) -> Iterator[Answer]:
        """Yield the objects below a prefix in the order of the server: `Key`, `Size`, `LastModified`."""
        with translate_s3_errors(self.where, prefix):
            for page in self.client().get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                yield from page.get("Contents", [])

    def unfinished(self, prefix: str) -> Iterator[Answer]:
        """Yield the incomplete multipart uploads below a prefix: `Key`, `UploadId`, `Initiated`."""
        with translate_s3_errors(self.where, prefix):
            for page in self.client().get_paginator("list_multipart_uploads").paginate(Bucket=self.name, Prefix=prefix):
                yield from page.get("Uploads", [])

    def link(self, name: str, expires_s: int) -> str:
        """Return a presigned URL of an object; until it expires it is a secret."""
        with translate_s3_errors(self.where, name):
            client = self._linking_client()
            return str(
                client.generate_presigned_url(
                    "get_object", Params={"Bucket": self.name, "Key": name}, ExpiresIn=expires_s
                )
            )

    def gdal_options(self) -> dict[str, str]:
        """Return the options by which GDAL reads `/vsis3/<bucket>/…`, with the endpoint and credentials of boto3."""
        endpoint, options = urlsplit(self.client().meta.endpoint_url), self.options
        with translate_s3_errors(self.where, ""):
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
            # GDAL doubles the delay after each attempt and adds jitter.
            "GDAL_HTTP_MAX_RETRY": str(options.attempts - 1),
            "GDAL_HTTP_RETRY_DELAY": "0.5",
            "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif",
            # Without this GDAL caches that an object was missing, although it may exist now.
            "CPL_VSIL_CURL_NON_CACHED": f"/vsis3/{self.name}/",
            "CPL_CURL_VERBOSE": "NO",
            **({"GDAL_CURL_CA_BUNDLE": str(options.ca_bundle)} if options.ca_bundle else {}),
        }

    @property
    def region(self) -> str:
        """From the settings, else from the environment or the profile of boto3."""
        self.client()
        return self.options.region or self._session.region_name or _DEFAULT_REGION

    def client(self) -> Any:
        """Return the client, which the first call creates."""
        with self._lock:
            if self._client is None:
                self._session = self._open_session()
                self._client = self._make_client(self.options.endpoint)
            return self._client

    def _linking_client(self) -> Any:
        """Return the client for presigned URLs: a signature covers the name of the host that users reach."""
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
        with translate_s3_errors(self.where, ""):
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
            # `s3.py` sends SHA-256 checksums; botocore's CRC would be a second one that some servers do not support.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        region = options.region or self._session.region_name or _DEFAULT_REGION
        with translate_s3_errors(self.where, ""):
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
        # Other servers seldom have a DNS name for each bucket; AWS requires one.
        return "path" if self.options.endpoint else "virtual"


class Download:
    """The chunks of an object; a broken download is resumed by a range request for the same version (ETag).

    Iterate over it once. One chunk is in memory at a time.

    Raises:
        ObjectMissing: there is no such object.
        StoreRefused: the server refuses the request.
        StoreUnreachable: no attempt succeeded, or the object changed while it was read.
    """

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket, self._name = bucket, name
        self._at = 0
        self._head: Head | None = None

    @property
    def head(self) -> Head:
        """Head of the object, known after the first chunk."""
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
        """Yield the chunks that have not been yielded yet."""
        if self._head is not None and self._at == self._head.size:
            return
        answer = self._request()
        self._head = self._head or _head(answer)
        with translate_s3_errors(self._bucket.where, self._name), closing(answer["Body"]) as body:
            for chunk in body.iter_chunks(CHUNK):
                self._at += len(chunk)
                yield chunk

    def _request(self) -> Answer:
        if self._head is None:
            return self._bucket.call("get_object", self._name, ChecksumMode="ENABLED")
        try:
            return self._bucket.call("get_object", self._name, Range=f"bytes={self._at}-", IfMatch=self._head.etag)
        except ObjectExists as error:
            raise StoreUnreachable(
                "the object changed while it was read", subject=self._name, next_step="Try again."
            ) from error


def checksum(digest: bytes) -> str:
    """Return a SHA-256 digest in the base64 form of S3."""
    return b64encode(digest).decode()


def _head(answer: Answer) -> Head:
    return Head(
        size=answer["ContentLength"], written_at=answer["LastModified"], etag=answer["ETag"], sha256=_sha256(answer)
    )


def _sha256(answer: Answer) -> str | None:
    """Return the hex SHA-256 of the whole object; that of a multipart upload covers its parts and is not used."""
    verified = answer.get("ChecksumSHA256", "")
    if verified and "-" not in verified and answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
        return b64decode(verified).hex()
    noted: str | None = answer.get("Metadata", {}).get("sha256")
    return noted


def _check_endpoints(options: S3Options) -> None:
    """Raise SettingsError for an endpoint that is not a plain http(s) URL and for unreadable certificates."""
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
