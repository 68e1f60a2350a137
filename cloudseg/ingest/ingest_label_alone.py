"""Ingest of a label without its image beside it: find its scene in the catalog, or quarantine it with the reason."""

import tempfile
from pathlib import Path

from cloudseg import keys
from cloudseg.catalog.scene_rows import find_label, release_source
from cloudseg.errors import InputError
from cloudseg.ingest.candidate import LabelFile, UnmatchedFile
from cloudseg.ingest.context import IngestContext, Outcome
from cloudseg.ingest.inbox_file import NotRead
from cloudseg.ingest.ingest_label import ingest_label
from cloudseg.ingest.job import LabelTags, LabelTagsJob
from cloudseg.ingest.label_errors import NothingDrawn
from cloudseg.ingest.label_files import Hashes, copy_label, hash_label, label_hash
from cloudseg.ingest.label_scene import FoundScene, SceneAmbiguous, find_label_scene, scenes_by_file_name
from cloudseg.ingest.pool import Decoder
from cloudseg.ingest.quarantine import as_label_error, is_quarantined, quarantine, quarantine_id, unread_hash
from cloudseg.scratch import check_room

_TAGS = "tags"


def ingest_label_alone(context: IngestContext, item: UnmatchedFile, label: LabelFile, outcome: Outcome) -> None:
    """Add a label to the scene that it belongs to, or quarantine it, and record the result in `outcome`."""
    sha256, read_as = unread_hash(label.file), [_TAGS]
    with tempfile.TemporaryDirectory(dir=context.folder) as name, context.decoders.acquire() as decoder:
        folder = Path(name)
        try:
            hashes = hash_label(context.inbox, label, max_bytes=context.limits.max_bytes)
            sha256 = label_hash(label, hashes)
            found = _find_known(context, label, sha256)
            if found is None:
                if is_quarantined(context, quarantine_id(label.file.uri, sha256, _TAGS)):
                    outcome.still_quarantined += 1
                    return
                tags = _read_tags(context, decoder, label, hashes, folder)
                with context.catalog.read() as db:
                    found = find_label_scene(db, label.file, tags)
        except NothingDrawn:
            outcome.empty_layer = label.file.path
            return
        except InputError as error:
            check_room(context.folder, error)
            if isinstance(error, SceneAmbiguous):
                read_as = error.read_as
            _quarantine(context, item, sha256, as_label_error(error), read_as, outcome)
            return
        if found is None:
            _quarantine(context, item, sha256, item.reason(), [], outcome)
            return
        ingest_label(context, decoder, label, found.scene, None, folder, outcome, needs_georeference=not found.by_id)


def _find_known(context: IngestContext, label: LabelFile, sha256: str) -> FoundScene | None:
    """Return the scene that has this very label already, among those that the file's name suggests.

    A known label is not opened again.
    """
    with context.catalog.read() as db:
        for scene in scenes_by_file_name(db, label.file):
            if find_label(db, keys.make_id("lb", scene.scene_id, label.source, sha256)) is not None:
                return FoundScene(scene, by_id=True)
    return None


def _read_tags(context: IngestContext, decoder: Decoder, label: LabelFile, hashes: Hashes, folder: Path) -> LabelTags:
    job = LabelTagsJob(
        path=str(copy_label(context.inbox, label, hashes, folder, max_bytes=context.limits.max_bytes)),
        display_name=label.file.path,
        folder=str(folder),
        max_pixels=context.limits.max_pixels,
        memory_mb=context.limits.memory_mb,
    )
    return decoder.read_label_tags(job)


def _quarantine(
    context: IngestContext, item: UnmatchedFile, sha256: str, error: InputError, read_as: list[str], outcome: Outcome
) -> None:
    """Quarantine a label whose scene is not found. A new reason replaces the former: the catalog has changed."""
    if isinstance(error, NotRead):
        sha256 = unread_hash(item.file)
    uri = item.file.uri
    entry_id = quarantine_id(uri, sha256, *read_as)
    if not context.dry_run and not is_quarantined(context, entry_id):
        with context.catalog.begin() as db:
            release_source(db, uri)
    quarantine(context, entry_id, item.file.name, uri, sha256, error, outcome)
