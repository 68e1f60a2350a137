"""An inbox on S3: a prefix of any bucket that the credentials can read.

Objects are streamed, never opened by GDAL over the network.
"""

import io
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO
from urllib.parse import quote

from cloudseg.errors import ObjectMissing, SettingsError
from cloudseg.ingest.inbox_file import S3_SCHEME, InboxFile, escape_name, is_skipped, same_names_apart, unreadable_file
from cloudseg.storage.bucket import Bucket
from cloudseg.storage.protocol import S3Options
from cloudseg.storage.s3 import is_bucket_name


def open_bucket_inbox(source: str, options: S3Options) -> "BucketInbox":
    """Open `s3://bucket/prefix` without contacting the server.

    Raises:
        SettingsError: The URL names no valid bucket.
    """
    name, _, prefix = source.removeprefix(S3_SCHEME).partition("/")
    if not is_bucket_name(name):
        # Credentials before an @ must not be printed.
        subject = escape_name(source.rpartition("@")[2])
        raise SettingsError("not a valid bucket name", subject=subject, expected="s3://bucket/prefix")
    return BucketInbox(Bucket(name, options), prefix.strip("/"))


class BucketInbox:
    """All objects below a prefix, or the single object that the prefix names."""

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket, self._prefix = bucket, prefix

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`."""
        return f"{S3_SCHEME}{self._bucket.name}/{quote(self._prefix)}".rstrip("/")

    def list_files(self) -> list[InboxFile]:
        """Return the files; see `Inbox.list_files`.

        Skip names with an empty or hidden part (folder markers among them) and uploads in progress.
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
        return same_names_apart(files)

    @contextmanager
    def open(self, file: InboxFile) -> Iterator[IO[bytes]]:
        """Yield an open binary file; see `Inbox.open`."""
        if file.reject_reason:
            raise unreadable_file(file, ValueError(file.reject_reason))
        single = file.location == self._prefix.rpartition("/")[2] and file.uri == self.uri
        name = self._prefix if single else f"{self._prefix}/{file.location}".lstrip("/")
        try:
            with io.BufferedReader(_ChunkReader(iter(self._bucket.download(name)))) as handle:
                yield handle
        except ObjectMissing as error:
            raise unreadable_file(file, error) from error

    def _entry(self, path: str, name: str) -> InboxFile:
        shown = unicodedata.normalize("NFC", path)
        escaped = escape_name(shown)
        reject_reason = "the object name has control characters or invisible ones" if escaped != shown else None
        uri = f"{S3_SCHEME}{self._bucket.name}/{quote(name)}"
        return InboxFile(escaped, uri, reject_reason, path if shown != path else "")


class _ChunkReader(io.RawIOBase):
    """A raw stream over an iterator of byte chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the buffer with what has arrived and return the number of bytes; 0 at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _is_hidden(name: str, folder: str) -> bool:
    parts = name.removeprefix(folder).split("/")
    return any(not part or part.startswith(".") for part in parts) or is_skipped(parts[-1])
