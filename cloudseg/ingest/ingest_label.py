"""Ingest of one label: look up by hash, copy, decode onto the scene's grid, store, add the row as the next version."""

import logging
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection

from cloudseg import keys
from cloudseg.catalog.label_rows import lock_labels
from cloudseg.catalog.scene_rows import add_label, find_label, find_quarantined, release_source
from cloudseg.catalog.scene_search import list_masks_of_scene
from cloudseg.catalog.session import now
from cloudseg.errors import CloudsegError, InputError, ObjectCorrupt, ObjectMissing
from cloudseg.ingest.candidate import LabelFile
from cloudseg.ingest.context import IngestContext, Outcome
from cloudseg.ingest.inbox_file import NotRead
from cloudseg.ingest.job import LabelFacts, LabelJob, PublishedMask, SceneGrid
from cloudseg.ingest.label_errors import NothingDrawn
from cloudseg.ingest.label_files import copy_label, hash_label, label_hash
from cloudseg.ingest.label_life import (
    find_corrected_mask,
    find_first_state,
    is_trusted,
    note_added,
    note_known,
)
from cloudseg.ingest.pool import Decoder
from cloudseg.ingest.quarantine import (
    as_label_error,
    quarantine,
    quarantine_id,
    release_known_file,
    unread_hash,
)
from cloudseg.publish import publish, stage_object
from cloudseg.records import Label, Mask, Scene
from cloudseg.scratch import check_room, copy_file
from cloudseg.storage import whole_object

log = logging.getLogger(__name__)
_COMPARED_MASKS = 20
"""Published masks of its scene with which a label is compared, the newest ones; a mask has a few kilobytes."""
_VERSION_ATTEMPTS = 5
"""Two ingests may claim the same next version of a label; the second one uses the version after it."""


def ingest_label(
    context: IngestContext,
    decoder: Decoder,
    label: LabelFile,
    scene: Scene,
    scene_file: Path | None,
    folder: Path,
    outcome: Outcome,
    *,
    needs_georeference: bool = False,
) -> None:
    """Add a label to its scene, or quarantine it, and record the result in `outcome`.

    A label may be good for one scene and bad for another of the same name, so the scene's id is part of its quarantine
    id.

    Args:
        context: What the ingest shares.
        decoder: An acquired decoder.
        label: The label's file.
        scene: The label's scene; in a dry run it may not be in the catalog.
        scene_file: The scene's canonical raster inside `folder`; None: it is copied from the store.
        folder: Scratch directory of this candidate.
        outcome: Filled in.
        needs_georeference: Whether the file must have a CRS, because only its name connects it to the scene.
    """
    sha256 = unread_hash(label.file)
    try:
        hashes = hash_label(context.inbox, label, max_bytes=context.limits.max_bytes)
        sha256 = label_hash(label, hashes)
        label_id = keys.make_id("lb", scene.scene_id, label.source, sha256)
        with context.catalog.read() as db:
            known = find_label(db, label_id) is not None
            note = note_known(db, label_id, scene.scene_id, scene.name) if known else None
            entry_id = quarantine_id(label.file.uri, sha256, scene.scene_id)
            bad = not known and find_quarantined(db, entry_id) is not None
            masks = [] if known or bad else list_masks_of_scene(db, scene.scene_id, limit=_COMPARED_MASKS)
        if known:
            release_known_file(context, label.file.uri)
            outcome.notes += [note] if note else []
        elif bad:
            outcome.still_quarantined += 1
        else:
            job = _label_job(
                context,
                label,
                copy_label(context.inbox, label, hashes, folder, max_bytes=context.limits.max_bytes),
                scene,
                scene_file or _copy_scene(context, scene, folder),
                _copy_masks(context, masks, folder),
                needs_georeference=needs_georeference,
            )
            facts = decoder.decode_label(job)
            if context.dry_run:
                _preview(context, label, scene, facts, outcome)
            if context.dry_run or _add_label(context, Path(job.out), label, label_id, scene, sha256, facts, outcome):
                outcome.label_id = label_id
    except NothingDrawn:
        outcome.empty_layer = label.file.path
    except InputError as error:
        check_room(context.folder, error)
        if isinstance(error, NotRead):
            sha256 = unread_hash(label.file)
        entry_id = quarantine_id(label.file.uri, sha256, scene.scene_id)
        name = f"{scene.name} (label)"
        quarantine(context, entry_id, name, label.file.uri, sha256, as_label_error(error), outcome)


def _copy_scene(context: IngestContext, scene: Scene, folder: Path) -> Path:
    """Copy a scene's canonical raster from the store to `folder`: the decoder can open nothing else.

    Raises:
        NotRead: The object is missing or damaged; this concerns the labels of this scene only.
        StoreUnreachable: The disk of the temporary directory is full.
    """
    try:
        with whole_object(context.store, scene, f"scene {scene.scene_id}") as path:
            return copy_file(path, folder / "scene")
    except (ObjectCorrupt, ObjectMissing) as error:
        raise NotRead(
            error.what, subject=error.subject, found=error.found, expected=error.expected, next_step=error.next_step
        ) from error


def _copy_masks(context: IngestContext, masks: Sequence[Mask], folder: Path) -> list[PublishedMask]:
    """Copy published masks to `folder`; a missing or damaged one cannot be compared."""
    copies = []
    for mask in masks:
        copy = folder / f"{mask.mask_id}.tif"
        try:
            with whole_object(context.store, mask, f"mask {mask.mask_id}") as path:
                copy_file(path, copy)
        except (ObjectCorrupt, ObjectMissing) as error:
            log.warning("a label of scene %s is not compared with a mask: %s", mask.scene_id, error)
            continue
        copies.append(PublishedMask(mask_id=mask.mask_id, path=str(copy)))
    return copies


def _label_job(
    context: IngestContext,
    label: LabelFile,
    copy: Path,
    scene: Scene,
    scene_file: Path,
    masks: list[PublishedMask],
    *,
    needs_georeference: bool,
) -> LabelJob:
    """Return the decoder's job for the copy of a label next to `scene_file`."""
    folder = scene_file.parent
    return LabelJob(
        path=str(copy),
        display_name=label.file.path,
        scene_id=scene.scene_id,
        source=label.source,
        scene=str(scene_file),
        grid=SceneGrid(crs=scene.crs, transform=scene.transform, height=scene.height, width=scene.width),
        masks=masks,
        out=str(folder / "label.tif"),
        folder=str(folder),
        mappings=[list(mapping.values) for mapping in label.mappings],
        max_pixels=context.limits.max_pixels,
        memory_mb=context.limits.memory_mb,
        needs_georeference=needs_georeference,
    )


def _preview(context: IngestContext, label: LabelFile, scene: Scene, facts: LabelFacts, outcome: Outcome) -> None:
    """Record whether a label would wait, for a dry run."""
    with context.catalog.read() as db:
        corrected = find_corrected_mask(db, scene.scene_id, facts.corrects_mask_id)
        trusted = is_trusted(label.file.uri, context.trusted_inboxes)
        first = find_first_state(db, scene.scene_id, corrected, trusted=trusted)
    outcome.proposed = first.state == "proposed"
    outcome.notes += [f"the label of {scene.name} would wait: {first.reason}"] if outcome.proposed else []


def _add_label(
    context: IngestContext,
    label_file: Path,
    label: LabelFile,
    label_id: str,
    scene: Scene,
    sha256: str,
    facts: LabelFacts,
    outcome: Outcome,
) -> bool:
    """Publish a decoded label as the next version; return False where another ingest has added the same label.

    The bytes come first; the row and the first event of its life are one transaction.

    Raises:
        CloudsegError: Other ingests claimed the next version `_VERSION_ATTEMPTS` times.
    """
    out = stage_object(label_file, keys.label)
    row = Label(
        label_id=label_id,
        scene_id=scene.scene_id,
        version=1,
        source=facts.source,
        class_mapping=facts.mapping,
        cloud_fraction=facts.cloud_fraction,
        labelled_fraction=facts.labelled_fraction,
        source_uri=label.file.uri,
        source_sha256=sha256,
        key=out.stored.key,
        sha256=out.stored.sha256,
        size=out.stored.size,
        created_at=now(),
    )

    trusted = context.trusted_inboxes

    def write(db: Connection, _: object) -> bool | None:
        release_source(db, label.file.uri)
        lock_labels(db, scene.scene_id)
        corrected = find_corrected_mask(db, scene.scene_id, facts.corrects_mask_id)
        wanted = row.model_copy(update={"corrects_mask_id": corrected, "created_at": now()})
        first = find_first_state(db, scene.scene_id, corrected, trusted=is_trusted(label.file.uri, trusted))
        added = add_label(db, wanted, state=first.state, actor=f"ingest {context.inbox.uri}", reason=first.reason)
        if added is None:
            return False if find_label(db, label_id) else None
        outcome.proposed = first.state == "proposed"
        outcome.notes += [note_added(added, scene.name, first.reason)] if outcome.proposed else []
        return True

    for _ in range(_VERSION_ATTEMPTS):
        added = publish(context.store, context.catalog, {"cog": out}, write)
        if added is not None:
            return added
    raise CloudsegError(
        "other ingests keep adding labels to the same scene", subject=label_id, next_step="Run the ingest again."
    )
