"""The inbox: a folder, or a prefix of the object store. Lists files in a fixed order and lends their bytes.

A folder is hostile: links that lead out of it, pipes and devices are named but never opened.
"""

import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Final, Protocol
from urllib.parse import quote, unquote

from cloudseg.errors import BadScene, InputError, ObjectMissing
from cloudseg.ingest.candidate import InboxFile
from cloudseg.keys import is_key
from cloudseg.storage import LocalStore, S3Options, Store

STORE_SCHEME: Final = "store://"
S3_SCHEME: Final = "s3://"
_PIECE: Final = 1 << 20
_TEXT_LIMIT: Final = 1 << 20
"""Bytes of a metadata file that are read at most; Landsat's MTL has 9 kB."""
_BIDI_CONTROLS: Final = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Unicode Annex 9: characters that turn the text around them, so that a name shows as another."""


class NotRead(BadScene):
    """The bytes were never seen whole: says nothing about them, so the file is tried again at the next ingest."""


class Inbox(Protocol):
    """Where files come from. Every method may be called from several threads."""

    @property
    def uri(self) -> str:
        """For people."""
        ...

    def list_files(self) -> list[InboxFile]:
        """Return every file below, sorted by path."""
        ...

    def open(self, file: InboxFile) -> AbstractContextManager[IO[bytes]]:
        """Yield an open file.

        Raises NotRead where it cannot be read (gone, no permission, a pipe, a link that leads out).
        """
        ...


def open_inbox(source: str, store: Store, s3: S3Options) -> Inbox:
    """Open a folder (a path or `file:///…`), `store://prefix` of the configured store, or `s3://bucket/prefix`.

    Raises InputError where there is no such folder, SettingsError for what is no bucket.
    """
    if source.startswith(STORE_SCHEME) and store.uri.startswith(S3_SCHEME):
        source = f"{store.uri}/{source.removeprefix(STORE_SCHEME)}"
    if source.startswith(S3_SCHEME):
        from cloudseg.ingest.bucket_inbox import open_bucket_inbox  # boto3 is an extra

        return open_bucket_inbox(source, s3)
    if source.startswith(STORE_SCHEME):
        return _open_prefix(store, source.removeprefix(STORE_SCHEME).strip("/"))
    scheme, separator, rest = source.partition("://")
    if separator and scheme != "file" and "/" not in scheme:
        raise InputError(
            "no source speaks this scheme",
            subject=shown(source),
            found=scheme,
            expected="a folder, store://prefix or s3://bucket/prefix",
        )
    return FolderInbox(Path(unquote(rest) if separator and scheme == "file" else source))


def _open_prefix(store: Store, prefix: str) -> "FolderInbox | StoreInbox":
    """Open a prefix of the store.

    In a local store it is a folder, whose files may have names that are no keys (`S2A_….tif`).
    """
    if not is_key(prefix):
        raise InputError(
            "no prefix of the store",
            subject=shown(f"{STORE_SCHEME}{prefix}"),
            expected="lower case parts joined by /",
            next_step="Name a prefix, such as store://inbox.",
        )
    if isinstance(store, LocalStore) and (store.root / prefix).is_dir():
        return FolderInbox(store.root / prefix, uri=f"{STORE_SCHEME}{prefix}")
    return StoreInbox(store, prefix)


class FolderInbox:
    """A folder with everything below it; a single file is an inbox of its own."""

    def __init__(self, folder: Path, *, uri: str | None = None) -> None:
        self._uri = uri
        self._single = folder.name if folder.is_file() else None
        try:
            self.root = (folder.parent if self._single else folder).resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:  # ValueError: a NUL in the name
            raise InputError(
                "no such folder",
                subject=shown(str(folder)),
                found=getattr(error, "strerror", None) or error,
                next_step="Name a folder with tiles.",
            ) from error
        if not self.root.is_dir():
            raise InputError("neither a folder nor a file", subject=str(folder), next_step="Name a folder with tiles.")

    @property
    def uri(self) -> str:
        """`file:///…`, or what the caller calls it."""
        return self._uri or self.root.as_uri()

    def list_files(self) -> list[InboxFile]:
        """See Inbox.list_files. Hidden files and folders, and uploads in progress, are passed over."""
        if self._single:
            return [self._entry(self.root / self._single)]
        found: list[InboxFile] = []

        def refuse(error: OSError) -> None:
            closed = self._entry(Path(error.filename))
            found.append(replace(closed, fault=f"the folder cannot be listed: {error.strerror}"))

        for folder, folders, names in os.walk(self.root, followlinks=False, onerror=refuse):
            here = Path(folder)
            linked = [name for name in folders if (here / name).is_symlink()]
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in linked)
            found += [self._entry(here / name) for name in [*names, *linked] if not is_passed_over(name)]
        return sorted(found)

    @contextmanager
    def open(self, file: InboxFile) -> Iterator[IO[bytes]]:
        """See Inbox.open."""
        if file.fault:
            raise NotRead(file.fault, subject=file.path, next_step="Put the file itself into the inbox.")
        try:
            path = (self.root / file.path).resolve(strict=True)
            # O_NONBLOCK: opening a pipe must not wait for a writer that never comes. O_NOFOLLOW: the path was resolved
            # just now.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (OSError, RuntimeError, ValueError) as error:
            raise unreadable(file, error) from error
        with os.fdopen(descriptor, "rb") as handle:
            if not path.is_relative_to(self.root) or not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise NotRead(
                    "not a plain file of the inbox", subject=file.path, next_step="Put the file itself into the inbox."
                )
            yield handle

    def _entry(self, path: Path) -> InboxFile:
        relative = path.relative_to(self.root).as_posix()
        name = shown(relative)
        # quote() takes the bytes of a name that is no UTF-8 as they are.
        return InboxFile(
            name, f"{self.uri.rstrip('/')}/{quote(os.fsencode(relative))}", self._fault(path, strange=name != relative)
        )

    def _fault(self, path: Path, *, strange: bool) -> str | None:
        if strange:
            return "the file's name holds control characters or is not valid UTF-8"
        try:
            real = path.resolve(strict=True)
            mode = real.stat().st_mode
        except (OSError, RuntimeError):
            return "a link that leads nowhere" if path.is_symlink() else None
        if not real.is_relative_to(self.root):
            return "a link that leads out of the inbox"
        return None if stat.S_ISREG(mode) else "not a plain file (a link to a folder, a pipe, a socket or a device)"


class StoreInbox:
    """A prefix of an object store; what is no key (`cloudseg.keys`) the store does not list."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._prefix = store, f"{prefix}/"

    @property
    def uri(self) -> str:
        """`store://prefix`."""
        return f"{STORE_SCHEME}{self._prefix.rstrip('/')}"

    def list_files(self) -> list[InboxFile]:
        """See Inbox.list_files."""
        keys = [key for key in self._store.list_keys(self._prefix) if not is_passed_over(key.rpartition("/")[2])]
        return sorted(InboxFile(key.removeprefix(self._prefix), f"{STORE_SCHEME}{key}") for key in keys)

    @contextmanager
    def open(self, file: InboxFile) -> Iterator[IO[bytes]]:
        """See Inbox.open."""
        try:
            with self._store.local_file(self._prefix + file.path) as path, path.open("rb") as handle:
                yield handle
        except (ObjectMissing, ValueError) as error:
            raise unreadable(file, error) from error


def shown(name: str) -> str:
    """Return a file's name as a terminal, a log line and a web page may show it."""
    return "".join("".join(f"\\x{byte:02x}" for byte in os.fsencode(c)) if _is_odd(c) else c for c in name)


def _is_odd(character: str) -> bool:
    """Return whether a character hides or rewrites what is printed around it.

    Lone surrogates stand for bytes that are no UTF-8.
    """
    return (
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character) in _BIDI_CONTROLS
    )


def is_passed_over(name: str) -> bool:
    """Return whether a name marks something that is not meant for ingest: hidden, or still being written."""
    return name.startswith(".") or name.lower().endswith((".part", ".partial", ".tmp", ".crdownload", ".filepart"))


def hash_file(inbox: Inbox, file: InboxFile, copy_to: Path | None = None) -> str:
    """Return the hex SHA-256 of a file and, on the way, make the copy that is decoded.

    Raises NotRead where it cannot be read.
    """
    digest = hashlib.sha256()
    with inbox.open(file) as source:
        try:
            if copy_to is None:
                _feed(source, digest.update)
            else:
                with copy_to.open("wb") as target:
                    _feed(source, digest.update, target.write)
        except OSError as error:
            raise unreadable(file, error) from error
    return digest.hexdigest()


def _feed(source: IO[bytes], *takers: Callable[[bytes], object]) -> None:
    while piece := source.read(_PIECE):
        for take in takers:
            take(piece)


def read_text(inbox: Inbox, file: InboxFile) -> str:
    """Return the beginning of a metadata file as text; what is no UTF-8 is replaced. Empty where it cannot be read."""
    try:
        with inbox.open(file) as handle:
            return str(handle.read(_TEXT_LIMIT).decode("utf-8", "replace"))
    except (BadScene, OSError):
        return ""


def unreadable(file: InboxFile, error: Exception) -> NotRead:
    """Return the error of a file that cannot be read."""
    return NotRead(
        "the file cannot be read",
        subject=file.path,
        found=getattr(error, "strerror", None) or str(error),
        next_step="Check that it is still there and that the service may read it.",
    )
