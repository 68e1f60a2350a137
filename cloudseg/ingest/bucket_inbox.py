"""An inbox on S3: a prefix of any bucket that the credentials may read.

Objects are streamed, never opened by GDAL over the network.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO
from urllib.parse import quote

from cloudseg.errors import ObjectMissing, SettingsError
from cloudseg.ingest.candidate import InboxFile
from cloudseg.ingest.inbox import S3_SCHEME, is_passed_over, shown, unreadable
from cloudseg.storage.bucket import Bucket
from cloudseg.storage.protocol import S3Options
from cloudseg.storage.s3 import is_bucket_name


def open_bucket_inbox(source: str, options: S3Options) -> "BucketInbox":
    """Open `s3://bucket/prefix`; the server is not asked yet. Raises SettingsError for what is no such URL."""
    name, _, prefix = source.removeprefix(S3_SCHEME).partition("/")
    if not is_bucket_name(name):
        raise SettingsError(
            "not a bucket of S3", subject=shown(source.rpartition("@")[2]), expected="s3://bucket/prefix"
        )
    return BucketInbox(Bucket(name, options), prefix.strip("/"))


class BucketInbox:
    """Everything below a prefix, names as they are; a prefix that names one object is an inbox of its own."""

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket, self._prefix = bucket, prefix

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`."""
        return f"{S3_SCHEME}{self._bucket.name}/{quote(self._prefix)}".rstrip("/")

    def list_files(self) -> list[InboxFile]:
        """See Inbox.list_files.

        Names with an empty or hidden part, folder markers among them, and uploads in progress are passed over.
        """
        folder = f"{self._prefix}/" if self._prefix else ""
        names = [entry["Key"] for entry in self._bucket.list(self._prefix)]
        files = [
            self._entry(name.removeprefix(folder), name)
            for name in names
            if name.startswith(folder) and not _is_hidden(name, folder)
        ]
        if self._prefix in names:
            files.append(self._entry(self._prefix.rpartition("/")[2], self._prefix))
        return sorted(files)

    @contextmanager
    def open(self, file: InboxFile) -> Iterator[IO[bytes]]:
        """See Inbox.open."""
        if file.fault:
            raise unreadable(file, ValueError(file.fault))
        single = file.path == self._prefix.rpartition("/")[2] and file.uri == self.uri
        name = self._prefix if single else f"{self._prefix}/{file.path}".lstrip("/")
        try:
            with io.BufferedReader(_Pieces(iter(self._bucket.download(name)))) as handle:
                yield handle
        except ObjectMissing as error:
            raise unreadable(file, error) from error

    def _entry(self, path: str, name: str) -> InboxFile:
        strange = shown(path) != path
        fault = "the object's name holds control characters" if strange else None
        return InboxFile(shown(path), f"{S3_SCHEME}{self._bucket.name}/{quote(name)}", fault)


class _Pieces(io.RawIOBase):
    """A stream over pieces that come one after another."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the buffer with what is at hand; 0 at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _is_hidden(name: str, folder: str) -> bool:
    parts = name.removeprefix(folder).split("/")
    return any(not part or part.startswith(".") for part in parts) or is_passed_over(parts[-1])
