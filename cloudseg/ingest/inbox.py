"""Inboxes: a folder, a prefix of the object store, or a prefix of any bucket on S3.

A folder is untrusted: links that leave it, named pipes and devices are listed but never opened.
"""

import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote, unquote

from cloudseg.errors import InputError, ObjectMissing
from cloudseg.ingest.inbox_file import (
    S3_SCHEME,
    Inbox,
    InboxFile,
    NotRead,
    escape_name,
    is_skipped,
    same_names_apart,
    unreadable_file,
)
from cloudseg.keys import is_key
from cloudseg.storage import LocalStore, S3Options, Store

STORE_SCHEME: Final = "store://"


def open_inbox(source: str, store: Store, s3: S3Options) -> Inbox:
    """Open a folder (a path or `file:///…`), `store://prefix` of the configured store, or `s3://bucket/prefix`.

    Raises:
        InputError: There is no such folder, or the scheme is not supported.
        SettingsError: The name is not a valid bucket.
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
            "unsupported URL scheme",
            subject=escape_name(source),
            found=scheme,
            expected="a folder, store://prefix or s3://bucket/prefix",
        )
    return FolderInbox(Path(unquote(rest) if separator and scheme == "file" else source))


def _open_prefix(store: Store, prefix: str) -> "FolderInbox | StoreInbox":
    """Open a prefix of the store.

    In a local store the prefix is a folder, whose files may have names that are not valid keys (`S2A_….tif`).
    """
    if not is_key(prefix):
        raise InputError(
            "not a valid prefix of the store",
            subject=escape_name(f"{STORE_SCHEME}{prefix}"),
            expected="lower-case parts joined by /",
            next_step="Use a prefix such as store://inbox.",
        )
    if isinstance(store, LocalStore) and (store.root / prefix).is_dir():
        return FolderInbox(store.root / prefix, uri=f"{STORE_SCHEME}{prefix}")
    return StoreInbox(store, prefix)


class NoInbox:
    """No file: stands for a source whose files are made one by one, as those of a STAC catalog are."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def list_files(self) -> list[InboxFile]:
        """Return nothing."""
        return []

    @contextmanager
    def open(self, file: InboxFile) -> Iterator[IO[bytes]]:
        """Raise; see `Inbox.open`."""
        raise NotRead("no such file", subject=file.path)
        yield  # a generator, which contextmanager needs


class FolderInbox:
    """A folder with everything below it, or a single file."""

    def __init__(self, folder: Path, *, uri: str | None = None) -> None:
        """Resolve the folder.

        Args:
            folder: The folder, or a single file.
            uri: The address to show instead of `file:///…`.

        Raises:
            InputError: There is no such folder or file.
        """
        self._uri = uri
        self._single = folder.name if folder.is_file() else None
        try:
            self.root = (folder.parent if self._single else folder).resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:  # ValueError: a NUL in the name
            raise InputError(
                "no such folder",
                subject=escape_name(str(folder)),
                found=getattr(error, "strerror", None) or error,
                next_step="Pass a folder that holds tiles.",
            ) from error
        if not self.root.is_dir():
            raise InputError(
                "neither a folder nor a file", subject=str(folder), next_step="Pass a folder that holds tiles."
            )

    @property
    def uri(self) -> str:
        """`file:///…`, or the address that was passed to the constructor."""
        return self._uri or self.root.as_uri()

    def list_files(self) -> list[InboxFile]:
        """Return the files; see `Inbox.list_files`. Skip hidden files and folders, and uploads in progress."""
        if self._single:
            return [self._entry(self.root / self._single)]
        found: list[InboxFile] = []

        def reject_folder(error: OSError) -> None:
            entry = self._entry(Path(error.filename))
            found.append(replace(entry, reject_reason=f"the folder cannot be listed: {error.strerror}"))

        for folder, folders, names in os.walk(self.root, followlinks=False, onerror=reject_folder):
            here = Path(folder)
            linked = [name for name in folders if (here / name).is_symlink()]
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in linked)
            found += [self._entry(here / name) for name in [*names, *linked] if not is_skipped(name)]
        return same_names_apart(found)

    @contextmanager
    def open(self, file: InboxFile) -> Iterator[IO[bytes]]:
        """Yield an open binary file; see `Inbox.open`."""
        if file.reject_reason:
            raise NotRead(
                file.reject_reason, subject=file.path, next_step="Put a regular file with a plain name into the inbox."
            )
        try:
            path = (self.root / file.location).resolve(strict=True)
            # O_NONBLOCK: opening a named pipe must not wait for a writer that never comes. O_NOFOLLOW: the path was
            # resolved just now.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (OSError, RuntimeError, ValueError) as error:
            raise unreadable_file(file, error) from error
        with os.fdopen(descriptor, "rb") as handle:
            if not path.is_relative_to(self.root) or not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise NotRead(
                    "not a regular file inside the inbox",
                    subject=file.path,
                    next_step="Put the file itself into the inbox, not a link to it.",
                )
            yield handle

    def _entry(self, path: Path) -> InboxFile:
        relative = path.relative_to(self.root).as_posix()
        shown = unicodedata.normalize("NFC", relative)
        name = escape_name(shown)
        # quote() keeps the bytes of a name that is not valid UTF-8.
        uri = f"{self.uri.rstrip('/')}/{quote(os.fsencode(relative))}"
        stored_path = relative if shown != relative else ""
        return InboxFile(name, uri, self._reject_reason(path, escaped=name != shown), stored_path)

    def _reject_reason(self, path: Path, *, escaped: bool) -> str | None:
        """Return why a path must not be opened, or None.

        A file that has vanished or cannot be examined has no reason here; opening it raises the error.
        """
        if escaped:
            return "the file name has control or invisible characters, or is not valid UTF-8"
        try:
            real = path.resolve(strict=True)
            mode = real.stat().st_mode
        except (OSError, RuntimeError):
            return "a broken symbolic link" if path.is_symlink() else None
        if not real.is_relative_to(self.root):
            return "a symbolic link that points outside the inbox"
        return None if stat.S_ISREG(mode) else "not a regular file (a link to a folder, a named pipe, socket or device)"


class StoreInbox:
    """A prefix of an object store. The store does not list objects whose names are not valid keys."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._prefix = store, f"{prefix}/"

    @property
    def uri(self) -> str:
        """`store://prefix`."""
        return f"{STORE_SCHEME}{self._prefix.rstrip('/')}"

    def list_files(self) -> list[InboxFile]:
        """Return the files; see `Inbox.list_files`."""
        keys = [key for key in self._store.list_keys(self._prefix) if not is_skipped(key.rpartition("/")[2])]
        return sorted(InboxFile(key.removeprefix(self._prefix), f"{STORE_SCHEME}{key}") for key in keys)

    @contextmanager
    def open(self, file: InboxFile) -> Iterator[IO[bytes]]:
        """Yield an open binary file; see `Inbox.open`."""
        try:
            with self._store.local_file(self._prefix + file.path) as path, path.open("rb") as handle:
                yield handle
        except (ObjectMissing, ValueError) as error:
            raise unreadable_file(file, error) from error
