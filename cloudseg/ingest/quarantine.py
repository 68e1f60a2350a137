"""Quarantine: files that could not be used, each with the reason, so that they are not decoded again and again.

An entry's id is the hash of the file's URI, its bytes and how they were read: the same bytes at the same place, read in
the same way, are recorded once.
"""

from cloudseg import keys
from cloudseg.catalog.scene_rows import add_quarantined, find_quarantined, is_source_quarantined, release_source
from cloudseg.catalog.session import now
from cloudseg.errors import BadLabel, CloudsegError, InputError
from cloudseg.ingest.context import IngestContext, Outcome
from cloudseg.ingest.inbox_file import InboxFile
from cloudseg.records import Quarantined


def quarantine_id(uri: str, sha256: str, *read_as: str) -> str:
    """Return the id of a quarantine entry.

    Args:
        uri: The file's URI.
        sha256: Hash of the file's bytes, or `unread_hash`.
        read_as: The layout of a scene, or the id of a label's scene: read in another way, the file is tried again.
    """
    return keys.make_id("qu", uri, sha256, *read_as)


def unread_hash(file: InboxFile) -> str:
    """Return a placeholder for the hash of bytes that could not be read.

    It differs from the hash of any content, so the file is tried again as soon as it can be read.
    """
    return keys.sha256_of(f"unread:{file.path}".encode())


def is_quarantined(context: IngestContext, entry_id: str) -> bool:
    """Return whether the catalog has this quarantine entry."""
    with context.catalog.read() as db:
        return find_quarantined(db, entry_id) is not None


def quarantine(
    context: IngestContext, entry_id: str, name: str, uri: str, sha256: str, error: CloudsegError, outcome: Outcome
) -> None:
    """Record why a file was rejected, unless the same entry exists; a dry run records nothing.

    Args:
        context: What the ingest shares.
        entry_id: From `quarantine_id`.
        name: The scene's or file's name, for users.
        uri: The file's URI.
        sha256: Hash of the file's bytes, or `unread_hash`.
        error: The reason.
        outcome: Gets the id of a new entry, or counts an existing one.
    """
    entry = Quarantined(
        quarantine_id=entry_id,
        name=name,
        source_uri=uri,
        source_sha256=sha256,
        error=_public_class(error),
        what=error.what,
        found=error.found,
        expected=error.expected,
        next_step=error.next_step,
        created_at=now(),
    )
    if context.dry_run:
        added = not is_quarantined(context, entry_id)
    else:
        with context.catalog.begin() as db:
            added = add_quarantined(db, entry)
    if added:
        outcome.quarantined.append(entry_id)
    else:
        outcome.still_quarantined += 1


def release_known_file(context: IngestContext, uri: str) -> None:
    """Remove a file from quarantine whose bytes are now those of a known scene or label."""
    with context.catalog.read() as db:
        listed = is_source_quarantined(db, uri)
    if listed and not context.dry_run:
        with context.catalog.begin() as db:
            release_source(db, uri)


def as_label_error(error: InputError) -> InputError:
    """Return the same error as a BadLabel."""
    if isinstance(error, BadLabel):
        return error
    return BadLabel(
        error.what, subject=error.subject, found=error.found, expected=error.expected, next_step=error.next_step
    )


def _public_class(error: CloudsegError) -> str:
    """Return the name of the error's nearest class in `cloudseg.errors`."""
    return next(cls.__name__ for cls in type(error).__mro__ if cls.__module__ == CloudsegError.__module__)
