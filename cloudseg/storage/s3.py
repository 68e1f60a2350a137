"""A bucket, or a prefix of one, as object store. Its guarantees depend on conditions that the server checks.

Create-only is `If-None-Match: *`, compare and swap is `If-Match`. Every byte is sent with its SHA-256, which the server
verifies before it stores anything, and compared with the SHA-256 in the metadata of the object when it is read.
"""

import hashlib
import mimetypes
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote, urlsplit

from cloudseg.backoff import pauses
from cloudseg.errors import (
    CloudsegError,
    InputError,
    ObjectCorrupt,
    ObjectExists,
    ObjectMissing,
    SettingsError,
    StoreUnreachable,
)
from cloudseg.keys import checked, is_key, sha256_of
from cloudseg.records import GdalPath, ListedObject, StoredObject
from cloudseg.scratch import scratch_directory
from cloudseg.storage.bucket import Bucket, Head, checksum
from cloudseg.storage.protocol import ABANDONED_AFTER_S, S3Options, compare

PART: Final = 16 << 20
"""Bytes of a part; S3 requires at least 5 MiB. Smaller files are sent in one request."""
_MOST_PARTS: Final = 10_000
_AT_ONCE: Final = 4
"""Parts that are sent at a time; each needs `PART` bytes of memory."""
LONGEST_LINK_S: Final = 7 * 24 * 3600
"""AWS, "Sharing objects with presigned URLs": signature version 4 is valid for at most seven days."""
_BUCKET: Final = re.compile(r"(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
"""AWS, "Bucket naming rules"."""


class S3Store:
    """Objects of a bucket below a prefix. Safe to share between threads and to send to other processes."""

    def __init__(self, bucket: Bucket, prefix: str = "") -> None:
        """`prefix` ends with a slash or is empty."""
        self.bucket, self.prefix = bucket, prefix

    @classmethod
    def at(cls, url: str, options: S3Options) -> "S3Store":
        """Open `s3://bucket/prefix` without a request to the server.

        Raises:
            SettingsError: the URL is not of this form.
        """
        parts = urlsplit(url)
        prefix = parts.path.strip("/")
        if not is_bucket_name(parts.netloc) or (prefix and not is_key(prefix)) or parts.query or parts.fragment:
            raise SettingsError(
                "not the URL of an S3 bucket",
                subject="CLOUDSEG_STORE_URL",
                found=f"s3://{parts.netloc.rpartition('@')[2]}/{prefix}",
                expected="s3://bucket or s3://bucket/prefix, lower case",
                next_step="Credentials and endpoint have settings of their own.",
            )
        return cls(Bucket(parts.netloc, options), f"{prefix}/" if prefix else "")

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self.bucket.name}/{self.prefix}".rstrip("/")

    def put(self, key: str, data: bytes) -> StoredObject:
        """See Store.put."""
        stored = StoredObject(key=checked(key), sha256=sha256_of(data), size=len(data))
        self._create(stored, lambda: self._send(stored, data, IfNoneMatch="*"))
        return stored

    def put_file(self, key: str, path: Path) -> StoredObject:
        """See Store.put_file. Large files are sent in parts; the object appears complete or not at all."""
        checked(key)
        size = path.stat().st_size
        if size <= PART:
            return self.put(key, path.read_bytes())
        digests, sha256 = _digests(path, _part_size(size))
        stored = StoredObject(key=key, sha256=sha256, size=size)
        if not self._holds(stored):
            self._create(stored, lambda: self._send_parts(stored, path, digests))
        return stored

    def replace(self, key: str, data: bytes, expected: bytes | None = None) -> StoredObject:
        """See Store.replace."""
        stored = StoredObject(key=checked(key), sha256=sha256_of(data), size=len(data))
        if expected is None:
            self._send(stored, data)
            return stored
        head, found = self._read(key)
        if found != expected:
            raise ObjectExists("the object is not what the writer expected", subject=key, next_step="Read it again.")
        self._send(stored, data, IfMatch=head.etag)
        return stored

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """See Store.get. Without `sha256` the bytes are compared with the checksum in the metadata."""
        head, data = self._read(key)
        compare(key, sha256_of(data), sha256 or head.sha256)
        return data

    def stat(self, key: str) -> tuple[int, datetime]:
        """See Store.stat."""
        head = self._head(key)
        return head.size, head.written_at

    def exists(self, key: str) -> bool:
        """See Store.exists."""
        try:
            self._head(key)
        except ObjectMissing:
            return False
        return True

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """See Store.list_keys. AWS sorts by bytes, as Python does; SeaweedFS sorts folder by folder."""
        return iter(sorted(entry.key for entry in self.list_objects(prefix)))

    def list_objects(self, prefix: str = "") -> Iterator[ListedObject]:
        """See Store.list_objects. Objects whose names are not valid keys are skipped."""
        if "/" in prefix:
            checked(prefix.rpartition("/")[0])
        return self._listed(prefix)

    def _listed(self, prefix: str) -> Iterator[ListedObject]:
        for entry in self.bucket.list(self.prefix + prefix):
            key = entry["Key"].removeprefix(self.prefix)
            if is_key(key):
                yield ListedObject(key=key, size=entry["Size"], written_at=entry["LastModified"])

    def delete(self, key: str) -> None:
        """See Store.delete."""
        self.bucket.call("delete_object", self._name(key))

    @contextmanager
    def local_file(self, key: str, sha256: str | None = None) -> Iterator[Path]:
        """See Store.local_file: a verified copy in a scratch directory, removed at the end."""
        name = self._name(key)
        with _copy_file() as copy:
            download, digest = self.bucket.download(name), hashlib.sha256()
            with _missing_by_key(key):
                for chunk in download:
                    digest.update(chunk)
                    _write(copy, chunk)
            _write(copy, None)
            compare(key, digest.hexdigest(), sha256 or download.head.sha256)
            yield Path(copy.name)

    def gdal_path(self, key: str) -> GdalPath:
        """See Store.gdal_path."""
        path = f"/vsis3/{self.bucket.name}/{self._name(key)}"
        return GdalPath(path, self.bucket.gdal_options(), check=lambda: self._verify(key))

    def _verify(self, key: str) -> None:
        with self.local_file(key):
            pass

    def uri_of(self, key: str) -> str:
        """See Store.uri_of."""
        return f"s3://{self.bucket.name}/{quote(self._name(key))}"

    def link(self, key: str, expires_s: int) -> str:
        """See Store.link. The URL expires earlier if the credentials that signed it are temporary."""
        if not 1 <= expires_s <= LONGEST_LINK_S:
            raise InputError(
                "presigned URLs do not last that long",
                subject=checked(key),
                found=f"{expires_s} s",
                expected=f"1 to {LONGEST_LINK_S} s",
            )
        return self.bucket.link(self._name(key), expires_s)

    def clear_abandoned(self) -> int:
        """See Store.clear_abandoned: parts of incomplete uploads take up space and are never listed."""
        before = datetime.now(UTC) - timedelta(seconds=ABANDONED_AFTER_S)
        old = [upload for upload in self.bucket.unfinished(self.prefix) if upload["Initiated"] < before]
        for upload in old:
            with suppress(ObjectMissing):  # another process aborts them too
                self.bucket.call("abort_multipart_upload", upload["Key"], UploadId=upload["UploadId"])
        return len(old)

    def _name(self, key: str) -> str:
        return self.prefix + checked(key)

    def _head(self, key: str) -> Head:
        with _missing_by_key(key):
            return self.bucket.head(self._name(key))

    def _read(self, key: str) -> tuple[Head, bytes]:
        download = self.bucket.download(self._name(key))
        with _missing_by_key(key):
            data = b"".join(download)
        return download.head, data

    def _send(self, stored: StoredObject, data: bytes, **condition: str) -> None:
        with _exists_by_key(stored.key):
            self.bucket.call(
                "put_object",
                self._name(stored.key),
                Body=data,
                ChecksumSHA256=checksum(hashlib.sha256(data).digest()),
                **_about(stored),
                **condition,
            )

    def _create(self, stored: StoredObject, send: Callable[[], None]) -> None:
        """Create an object; if the key holds the same bytes already, nothing changes.

        A request whose answer was lost is sent again by botocore and then finds its own object: the same bytes.

        Raises:
            ObjectExists: the key holds other bytes.
            StoreUnreachable: other writers were at the key in every attempt.
        """
        for pause in pauses(attempts=self.bucket.options.attempts):
            try:
                send()
            except ObjectExists:
                if self._holds(stored):
                    return
            else:
                return
            if pause is None:
                break
            time.sleep(pause)  # two writers at once, and neither has succeeded yet
        raise StoreUnreachable(
            "other writers are busy with this key", subject=stored.key, next_step="Try again in a moment."
        )

    def _holds(self, stored: StoredObject) -> bool:
        """Return whether the key holds the same bytes, False if it is free.

        Raises:
            ObjectExists: the key holds other bytes.
        """
        try:
            head = self._head(stored.key)
            found = head.sha256 or sha256_of(self._read(stored.key)[1])
        except ObjectMissing:
            return False
        if (found, head.size) != (stored.sha256, stored.size):
            raise ObjectExists(
                "the key holds other bytes",
                subject=stored.key,
                found=found,
                expected=stored.sha256,
                next_step="Objects are never overwritten: find out which writer made the other one.",
            )
        return True

    def _send_parts(self, stored: StoredObject, path: Path, digests: list[bytes]) -> None:
        """Create an object by a multipart upload that is aborted if it fails; `digests` has one entry per part."""
        name, size = self._name(stored.key), _part_size(stored.size)
        upload = self.bucket.call("create_multipart_upload", name, ChecksumAlgorithm="SHA256", **_about(stored))[
            "UploadId"
        ]

        def send(number: int) -> dict[str, Any]:
            data = _part(path, number, size)
            if hashlib.sha256(data).digest() != digests[number]:
                raise ObjectCorrupt(
                    "the file changed while it was stored", subject=stored.key, next_step="Run the stage again."
                )
            digest = checksum(digests[number])
            sent = self.bucket.call(
                "upload_part", name, UploadId=upload, PartNumber=number + 1, Body=data, ChecksumSHA256=digest
            )
            return {"PartNumber": number + 1, "ETag": sent["ETag"], "ChecksumSHA256": digest}

        try:
            with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="upload") as threads:
                # The first failure cancels the parts that have not begun.
                parts = list(threads.map(send, range(len(digests))))
            with _exists_by_key(stored.key):
                self.bucket.call(
                    "complete_multipart_upload",
                    name,
                    UploadId=upload,
                    MultipartUpload={"Parts": parts},
                    IfNoneMatch="*",
                )
        except BaseException:
            with suppress(CloudsegError):  # maintenance aborts after a day what cannot be aborted now
                self.bucket.call("abort_multipart_upload", name, UploadId=upload)
            raise


def is_bucket_name(name: str) -> bool:
    """Return whether a bucket of S3 may have this name."""
    return _BUCKET.fullmatch(name) is not None


def _about(stored: StoredObject) -> dict[str, Any]:
    """Return the metadata of an object: the SHA-256 of its bytes, and their media type for browsers."""
    content_type = mimetypes.guess_type(stored.key)[0] or "application/octet-stream"
    return {"Metadata": {"sha256": stored.sha256}, "ContentType": content_type}


def _part_size(size: int) -> int:
    return max(PART, -(-size // _MOST_PARTS))


def _part(path: Path, number: int, size: int) -> bytes:
    with path.open("rb") as handle:
        handle.seek(number * size)
        return handle.read(size)


def _digests(path: Path, size: int) -> tuple[list[bytes], str]:
    """Return the SHA-256 of each part and the hex SHA-256 of the whole file, with one part in memory at a time."""
    whole, parts = hashlib.sha256(), []
    with path.open("rb") as handle:
        while part := handle.read(size):
            whole.update(part)
            parts.append(hashlib.sha256(part).digest())
    return parts, whole.hexdigest()


@contextmanager
def _missing_by_key(key: str) -> Iterator[None]:
    """Name a missing object by its key, which the caller uses, instead of its name in the bucket."""
    try:
        yield
    except ObjectMissing as error:
        raise ObjectMissing(error.what, subject=key, found=error.found, next_step=error.next_step) from error


@contextmanager
def _exists_by_key(key: str) -> Iterator[None]:
    """Turn a condition of the server that did not hold into ObjectExists of the key."""
    try:
        yield
    except (ObjectExists, ObjectMissing) as error:  # ObjectMissing: If-Match on a deleted object (AWS answers 404)
        raise ObjectExists(
            "the object is not what the writer expected", subject=key, found=error.found, next_step="Read it again."
        ) from error


@contextmanager
def _copy_file() -> Iterator[IO[bytes]]:
    """Yield an empty file in a scratch directory.

    Raises:
        StoreUnreachable: the disk is full.
    """
    with scratch_directory("object") as folder:
        try:
            copy = (folder / "copy").open("wb")
        except OSError as error:
            raise _no_room(error) from error
        with copy:
            yield copy


def _write(copy: IO[bytes], chunk: bytes | None) -> None:
    """Write a chunk, or flush the buffer for None.

    Raises:
        StoreUnreachable: the disk is full.
    """
    try:
        copy.flush() if chunk is None else copy.write(chunk)
    except OSError as error:
        raise _no_room(error) from error


def _no_room(error: OSError) -> StoreUnreachable:
    return StoreUnreachable(
        "the copy of an object cannot be written",
        subject=tempfile.gettempdir(),
        found=error.strerror or os.strerror(error.errno or 0),
        next_step="Free space, or set TMPDIR to another directory.",
    )
