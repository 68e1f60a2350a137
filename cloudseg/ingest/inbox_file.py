"""Files of an inbox: what one is, how its name is displayed, and how its bytes are hashed, copied and read.

`Inbox` is the protocol; `cloudseg.ingest.inbox` and `cloudseg.ingest.bucket_inbox` implement it.
"""

import hashlib
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Final, Protocol

from cloudseg.errors import BadScene
from cloudseg.ingest.tiff_layout import claimed_bytes
from cloudseg.scratch import cannot_write

S3_SCHEME: Final = "s3://"
_CHUNK_BYTES: Final = 1 << 20
_TEXT_BYTES: Final = 1 << 20
"""Bytes of a metadata file that are read at most; Landsat's MTL has 9 kB."""
MAX_BYTES: Final = 16 << 30
"""Size of one file, where no other limit is given; a Sentinel-2 product has 1 GB."""
_ANY_BYTES: Final = 64 << 20
"""A file of this size is read whatever its header says: tags, thumbnails, and old blocks of a file that was updated."""
_CLAIM_FACTOR: Final = 4
"""Bytes of a file over bytes of its pixels without compression: overviews, masks, blocks that were written again."""
_EMOJI_STYLE: Final = "\ufe0e\ufe0f"
"""Variation selectors that show the symbol before them as text or as emoji; after anything else they are invisible."""
_SAME_NAME: Final = "another file has the same name in another Unicode normal form"
_IN_PROGRESS: Final = re.compile(
    r"\.(part|partial|tmp|temp|crdownload|filepart|download|opdownload|unfinished|gstmp|!qb|!ut|rsync\.[^./]+)$", re.I
)
"""Suffixes of files that are still being written: browsers, transfer programs, rsync."""
_INVISIBLE: Final = re.compile(
    # Unicode, DerivedCoreProperties: Default_Ignorable_Code_Point without category Cf, and the empty Braille pattern.
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""Characters that are letters or marks by category but take no ink: two names with and without them look the same."""


class NotRead(BadScene):
    """The bytes could not be read completely. Independent of their content, so the next ingest tries again."""


@dataclass(frozen=True, order=True)
class InboxFile:
    """A file of an inbox. Open it with `Inbox.open`, never by this name."""

    path: str
    """Relative to the inbox, parts joined by `/`; in Unicode normal form C, so that names are compared as they look."""
    uri: str = field(compare=False)
    """For users and for the catalog."""
    reject_reason: str | None = field(default=None, compare=False)
    """Why it must not be opened (a link that leaves the inbox, a named pipe); None for a regular file."""
    stored_path: str = field(default="", compare=False)
    """The path in the spelling of the disk or bucket, where it differs from `path`."""

    @property
    def location(self) -> str:
        """The path by which an inbox opens it."""
        return self.stored_path or self.path

    @property
    def folder(self) -> str:
        """The path without its last part; empty at the top."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its last suffix."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def suffix(self) -> str:
        """The last suffix in lower case, without the dot."""
        return self.name.rpartition(".")[2].lower() if "." in self.name else ""


class Inbox(Protocol):
    """Where files come from. Every method may be called from several threads."""

    @property
    def uri(self) -> str:
        """The inbox's address, for users."""
        ...

    def list_files(self) -> list[InboxFile]:
        """Return every file of the inbox, sorted by path."""
        ...

    def open(self, file: InboxFile) -> AbstractContextManager[IO[bytes]]:
        """Yield an open binary file.

        Raises:
            NotRead: The file is gone, not readable, not a regular file, or a link that leaves the inbox.
        """
        ...


def escape_name(name: str) -> str:
    r"""Return a file's name safe to print on a terminal, in a log and on a web page.

    Control characters, invisible ones and bytes that are not valid UTF-8 become `\xNN`.
    """
    return "".join(
        escape_bytes(c) if _needs_escape(c, before) else c for before, c in zip(f" {name}", name, strict=False)
    )


def escape_bytes(character: str) -> str:
    r"""Return the bytes of a character as `\xNN`."""
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def _needs_escape(character: str, before: str) -> bool:
    """Return whether a character hides or rewrites what is printed around it.

    Lone surrogates represent bytes that are not valid UTF-8. The category Cf holds the zero width characters, the byte
    order mark, the soft hyphen, the tag letters and the controls of direction (Unicode Annex 9).
    """
    if character in _EMOJI_STYLE and unicodedata.category(before) == "So":
        return False
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") or bool(_INVISIBLE.match(character))


def same_names_apart(files: list[InboxFile]) -> list[InboxFile]:
    """Return the files; of those whose names differ only in their Unicode normal form all but the first are refused."""
    seen: set[str] = set()
    found = []
    for file in sorted(files, key=lambda each: (each.path, each.location != each.path, each.location)):
        if file.path in seen:
            ascii_path = "".join(c if c.isascii() else escape_bytes(c) for c in file.location)
            file = replace(file, path=ascii_path, reject_reason=_SAME_NAME)
        seen.add(file.path)
        found.append(file)
    return sorted(found)


def is_skipped(name: str) -> bool:
    """Return whether a file of this name is not meant for ingest: hidden, or still being written."""
    return name.startswith(".") or bool(_IN_PROGRESS.search(name))


def unreadable_file(file: InboxFile, error: Exception) -> NotRead:
    """Return the error of a file that cannot be read, with the cause from `error`."""
    return NotRead(
        "the file cannot be read",
        subject=file.path,
        found=getattr(error, "strerror", None) or str(error),
        next_step="Check that the file still exists and that the service has permission to read it.",
    )


def hash_file(inbox: Inbox, file: InboxFile, copy_to: Path | None = None, *, max_bytes: int = MAX_BYTES) -> str:
    """Return the hex SHA-256 of a file, and write a copy of it to `copy_to` in the same pass.

    Args:
        inbox: Where the file is.
        file: The file.
        copy_to: Path of the copy, if one is wanted.
        max_bytes: A larger file is not read; neither is one that is far larger than the raster that its header claims.

    Raises:
        NotRead: The file cannot be read, or is larger than allowed.
        StoreUnreachable: The copy cannot be written, usually because the disk is full; the file is not to blame.
    """
    digest = hashlib.sha256()
    with inbox.open(file) as source:
        try:
            most = _most_bytes(source, max_bytes)
            if copy_to is None:
                _feed(file, most, source, digest.update)
            else:
                with _copy(copy_to) as write:
                    _feed(file, most, source, digest.update, write)
        except OSError as error:
            raise unreadable_file(file, error) from error
    return digest.hexdigest()


@contextmanager
def _copy(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that appends to a new file, and raises StoreUnreachable where that fails.

    Nothing waits in a buffer, so closing the file cannot fail for want of room.
    """
    try:
        target = path.open("wb", buffering=0)
    except OSError as error:
        raise cannot_write(Path(tempfile.gettempdir()), error) from error

    def write(chunk: bytes) -> None:
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[target.write(rest) :]
        except OSError as error:
            raise cannot_write(Path(tempfile.gettempdir()), error) from error

    with target:
        yield write


def _most_bytes(source: IO[bytes], max_bytes: int) -> int:
    """Return the most bytes that a raster of the size in the file's header can need, at most `max_bytes`.

    A sparse file of a gigabyte has no gigabyte on the sender's disk, but its copy would. Files of other formats, and
    streams, which cannot be sparse, have no such bound.
    """
    if not source.seekable():
        return max_bytes
    is_large = source.seek(0, os.SEEK_END) > _ANY_BYTES
    claimed = claimed_bytes(source) if is_large else None
    source.seek(0)
    return max_bytes if claimed is None else min(max_bytes, _ANY_BYTES + _CLAIM_FACTOR * claimed)


def _feed(file: InboxFile, most: int, source: IO[bytes], *consumers: Callable[[bytes], object]) -> None:
    size = 0
    while chunk := source.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > most:
            raise NotRead(
                "the file is larger than its raster can need",
                subject=file.path,
                found=f"more than {most >> 20} MB",
                expected=f"at most {most >> 20} MB",
                next_step="Write the file again (GDAL: gdal_translate), or raise CLOUDSEG_MAX_FILE_MB.",
            )
        for consume in consumers:
            consume(chunk)


def copy_file(inbox: Inbox, file: InboxFile, sha256: str, copy_to: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Copy a file and check that the copy has the hash that was computed before.

    Args:
        inbox: Where the file is.
        file: The file.
        sha256: Its hash, from `hash_file`.
        copy_to: Path of the copy.
        max_bytes: A larger file is not read.

    Raises:
        NotRead: The file cannot be read, or its bytes have changed in the meantime.
    """
    found = hash_file(inbox, file, copy_to=copy_to, max_bytes=max_bytes)
    if found != sha256:
        raise NotRead(
            "the file changed while it was read",
            subject=file.path,
            found=found[:12],
            expected=sha256[:12],
            next_step="Upload under a temporary name (*.part) and rename when complete; the next ingest reads it.",
        )


def read_text(inbox: Inbox, file: InboxFile) -> str:
    """Return at most the first megabyte of a metadata file as text; empty if it cannot be read.

    Bytes that are not valid UTF-8 become replacement characters.
    """
    try:
        with inbox.open(file) as handle:
            return str(handle.read(_TEXT_BYTES).decode("utf-8", "replace"))
    except (BadScene, OSError):
        return ""


def read_metadata(inbox: Inbox, file: InboxFile, max_bytes: int) -> bytes:
    """Return the bytes of a metadata file.

    Raises:
        NotRead: The file cannot be read.
        ValueError: It is larger than `max_bytes`.
    """
    with inbox.open(file) as handle:
        try:
            content = handle.read(max_bytes + 1)
        except OSError as error:
            raise unreadable_file(file, error) from error
    if len(content) > max_bytes:
        raise ValueError(f"larger than {max_bytes >> 20} MB")
    return bytes(content)
