"""Ingest of one candidate or unmatched file: into the catalog, or into quarantine with the reason."""

from cloudseg.errors import InputError
from cloudseg.ingest.candidate import Candidate, UnmatchedFile
from cloudseg.ingest.context import IngestContext, Outcome
from cloudseg.ingest.inbox_file import NotRead, hash_file
from cloudseg.ingest.ingest_label_alone import ingest_label_alone
from cloudseg.ingest.ingest_scene import ingest_scene, source_hash
from cloudseg.ingest.quarantine import quarantine, quarantine_id, unread_hash
from cloudseg.scratch import check_room


def ingest_candidate(context: IngestContext, item: Candidate | UnmatchedFile) -> Outcome:
    """Add one candidate to the catalog, or quarantine it. Running it again changes nothing.

    Raises:
        StoreError: The store is not available; this concerns every candidate.
        CatalogUnreachable: The catalog is not available; this concerns every candidate.
    """
    if isinstance(item, UnmatchedFile):
        return _ingest_unmatched(context, item)
    outcome = Outcome(item.name)
    first = item.files[0].file
    source_sha256 = unread_hash(first)
    try:
        hashes = {
            file.path: hash_file(context.inbox, file, max_bytes=context.limits.max_bytes) for file in item.pixel_files()
        }
        source_sha256 = source_hash(item, hashes)
        ingest_scene(context, item, hashes, source_sha256, outcome)
    except InputError as error:
        check_room(context.folder, error)
        if isinstance(error, NotRead):
            source_sha256 = unread_hash(first)
        entry_id = quarantine_id(first.uri, source_sha256, *item.read_as())
        quarantine(context, entry_id, item.name, first.uri, source_sha256, error, outcome)
    return outcome


def _ingest_unmatched(context: IngestContext, item: UnmatchedFile) -> Outcome:
    """Add a label without its scene to the scene in the catalog that it belongs to; quarantine every other file."""
    outcome = Outcome(item.file.name)
    if item.label is not None:
        ingest_label_alone(context, item, item.label, outcome)
        return outcome
    try:
        sha256 = hash_file(context.inbox, item.file, max_bytes=context.limits.max_bytes)
    except NotRead:
        sha256 = unread_hash(item.file)
    entry_id = quarantine_id(item.file.uri, sha256, *(file.path for file in item.extra_files))
    quarantine(context, entry_id, item.file.name, item.file.uri, sha256, item.reason(), outcome)
    return outcome
