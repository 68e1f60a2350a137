"""Stages: list the quarantine, and release files from it so that the next ingest tries them again."""

from collections.abc import Sequence

from cloudseg.catalog import names, quarantine_rows, scene_rows
from cloudseg.errors import InputError
from cloudseg.records import Json, QuarantineReleaseRecord
from cloudseg.runtime import open_runtime
from cloudseg.stages import log


def quarantine(*, limit: int | None = 20) -> list[Json]:
    """List the quarantine, newest first.

    Args:
        limit: maximum number of rows.
    """
    with open_runtime().catalog.read() as db:
        return [entry.as_json() for entry in scene_rows.list_quarantined(db, limit=limit)]


def release_from_quarantine(
    quarantine_ids: Sequence[str],
    *,
    same_reason: bool = False,
    actor: str = "cli",
    reason: str = "",
    dry_run: bool = False,
) -> QuarantineReleaseRecord:
    """Release files from quarantine: the next ingest that finds them tries them again.

    All entries are released in one transaction, each with who decided and why. Running it again releases nothing, even
    if a file has ended in quarantine again in between under another id. A file that is still bad comes back under the
    same id, and can then be released again.

    Args:
        quarantine_ids: ids of entries, how one begins, or names of files: then every entry of that name.
        same_reason: release also every other entry with the same reason (error and what went wrong).
        actor: who decides, for the record.
        reason: why, for the record.
        dry_run: check everything, change nothing.

    Raises:
        InputError: no id is given.
        NotInCatalog: an id is neither in quarantine nor was it ever released.
    """
    log.started(
        "release_from_quarantine",
        quarantine_ids=list(quarantine_ids),
        same_reason=same_reason,
        actor=actor,
        reason=reason,
        dry_run=dry_run,
    )
    if not quarantine_ids:
        raise InputError(
            "no entry was named",
            subject="quarantine",
            expected="ids of entries",
            next_step="`cloudseg quarantine` lists the entries.",
        )
    catalog = open_runtime().catalog
    with catalog.read() if dry_run else catalog.begin() as db:
        ids = names.list_quarantine_ids(db, quarantine_ids)
        entries = quarantine_rows.resolve_release(db, ids, same_reason=same_reason)
        released = [
            entry.quarantine_id
            for entry in entries
            if dry_run or quarantine_rows.release(db, entry, actor=actor, reason=reason.strip())
        ]
        left = quarantine_rows.count_quarantined(db)
    record = QuarantineReleaseRecord(
        released=released, unchanged=[entry_id for entry_id in ids if entry_id not in released], left=left
    )
    log.ended("release_from_quarantine", record)
    return record
