"""What is done with one candidate of an inbox: hash, look up, copy, decode, store, name in a row.

Or quarantine with the reason.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection

from cloudseg import keys
from cloudseg.bands import SENTINEL2, Radiometry
from cloudseg.catalog import Catalog
from cloudseg.catalog.scene_rows import (
    add_label,
    add_quarantined,
    add_scene,
    find_label,
    find_newest_scene,
    find_quarantined,
    find_scene_by_source,
    is_source_quarantined,
    release_source,
)
from cloudseg.catalog.session import now
from cloudseg.errors import BadLabel, BadScene, CloudsegError, InputError, LayoutUnknown
from cloudseg.grid import mgrs_place
from cloudseg.ingest.candidate import Candidate, InboxFile, LabelFile, SourceFile, Stray
from cloudseg.ingest.inbox import Inbox, NotRead, hash_file
from cloudseg.ingest.job import DecodeLimits, LabelFacts, LabelJob, RasterJob, SceneFacts, SceneJob
from cloudseg.ingest.pool import Decoder, DecoderPool
from cloudseg.publish import publish, stage_object
from cloudseg.records import Label, Quarantined, Scene, StoredObject
from cloudseg.scratch import check_room
from cloudseg.storage import Store

_PLAIN = (SENTINEL2.scale, SENTINEL2.offset)
_LABEL_TRIES = 5
"""Two ingests may want the same next version of a label; the loser takes the one after it."""


@dataclass(frozen=True)
class Work:
    """What every candidate needs. Safe to share between threads."""

    store: Store
    catalog: Catalog
    inbox: Inbox
    decoders: DecoderPool
    limits: DecodeLimits
    folder: Path
    """Private folder for copies and unfinished files."""
    dry_run: bool


@dataclass
class Outcome:
    """What became of one candidate or stray."""

    name: str
    scene: Literal["added", "known", "none"] = "none"
    """'none' too for a label that came without its scene."""
    scene_id: str | None = None
    label_id: str | None = None
    """Of a label that is new."""
    quarantined: list[str] = field(default_factory=list)
    still_quarantined: int = 0

    @property
    def word(self) -> str:
        """For the progress line."""
        if self.quarantined or self.still_quarantined:
            return "quarantined"
        return self.scene if self.scene != "none" else "labelled" if self.label_id else "known"


def take(work: Work, item: Candidate | Stray) -> Outcome:
    """Bring one candidate into the catalog, or into quarantine. Running it again changes nothing.

    Raises only what concerns every candidate alike: the store or the catalog does not answer.
    """
    if isinstance(item, Stray):
        return _take_stray(work, item)
    outcome = Outcome(item.name)
    source_sha256 = _unread_hash(item.files[0].file)
    try:
        hashes = [hash_file(work.inbox, source.file) for source in item.files]
        source_sha256 = source_hash(item, hashes)
        _take_scene(work, item, hashes, source_sha256, outcome)
    except InputError as error:
        check_room(work.folder, error)
        if isinstance(error, NotRead):
            source_sha256 = _unread_hash(item.files[0].file)
        entry_id = _quarantine_id(item.files[0].file.uri, source_sha256, item.layout)
        _quarantine(work, entry_id, item.name, item.files[0].file.uri, source_sha256, error, outcome)
    return outcome


def source_hash(candidate: Candidate, hashes: list[str]) -> str:
    """Return the hash that makes the scene's id: the files' bytes in band order, and how they are read.

    File names, place and time are no part of it: the same bytes under another name are the same scene. Reading with
    the plain scale of Sentinel-2 counts as reading without a product id, because the numbers come out the same.
    """
    reading = [
        [sha256, source.bands, _scale(source.radiometry)]
        for sha256, source in zip(hashes, candidate.files, strict=True)
    ]
    return keys.sha256_of(keys.canonical_json(["scene", 1, reading]))


def _scale(radiometry: Radiometry | None) -> list[str] | None:
    plain = radiometry is None or (radiometry.scale, radiometry.offset) == _PLAIN
    return None if plain or radiometry is None else [repr(radiometry.scale), repr(radiometry.offset)]


def _take_scene(work: Work, candidate: Candidate, hashes: list[str], source_sha256: str, outcome: Outcome) -> None:
    with work.catalog.read() as db:
        known = find_scene_by_source(db, source_sha256)
        refused = find_quarantined(db, _quarantine_id(candidate.files[0].file.uri, source_sha256, candidate.layout))
    if known is None and refused is not None:
        outcome.still_quarantined += 1
        return
    with tempfile.TemporaryDirectory(dir=work.folder) as name, work.decoders.lend() as decoder:
        if known is not None:
            outcome.scene, outcome.scene_id = "known", known.scene_id
            _forget(work, candidate.files[0].file.uri)
            _take_label(work, decoder, candidate.label, known, None, Path(name), outcome)
            return
        folder = Path(name)
        facts = decoder.decode_scene(_scene_job(work, candidate, hashes, folder))
        out = stage_object(_made(folder / "scene.tif", candidate.name), keys.scene)
        scene = _scene_row(candidate, facts, source_sha256, out.stored)
        added = work.dry_run or publish(work.store, work.catalog, {"cog": out}, lambda db, _: _add_scene(db, scene))
        outcome.scene, outcome.scene_id = ("added" if added else "known"), scene.scene_id
        _take_label(work, decoder, candidate.label, scene, folder / "scene.tif", folder, outcome)


def _add_scene(db: Connection, scene: Scene) -> bool:
    release_source(db, scene.source_uri)
    return add_scene(db, scene)


def _scene_job(work: Work, candidate: Candidate, hashes: list[str], folder: Path) -> SceneJob:
    """Copy the files, so that nothing can change or vanish under the decoder, and no name from outside reaches GDAL."""
    files = []
    for index, (source, sha256) in enumerate(zip(candidate.files, hashes, strict=True)):
        copy = folder / f"source{index}"
        _copy(work, source.file, sha256, copy)
        files.append(_raster_job(source, copy))
    return SceneJob(
        name=candidate.name,
        files=files,
        needs_georeference=candidate.needs_georeference,
        time_in_tags=candidate.time_in_tags,
        is_product=candidate.sensor != "unknown",
        out=str(folder / "scene.tif"),
        folder=str(folder),
        max_pixels=work.limits.max_pixels,
        memory_mb=work.limits.memory_mb,
    )


def _made(path: Path, shown: str) -> Path:
    """Return the file that the decoder wrote.

    A link or a pipe, which only one makes that was taken over, is never followed.
    """
    if not path.is_file() or path.is_symlink():
        raise BadScene(
            "the decoder left no plain file",
            subject=shown,
            next_step="Look at the file before trying again: it may be an attack.",
        )
    return path


def _raster_job(source: SourceFile, copy: Path) -> RasterJob:
    known = source.radiometry
    return RasterJob(
        path=str(copy),
        shown=source.file.path,
        bands=list(source.bands) if source.bands is not None else None,
        other_bands=[list(names) for names in source.other_bands],
        radiometry=(known.scale, known.offset, known.fill, known.source) if known else None,
    )


def _copy(work: Work, file: InboxFile, sha256: str, to: Path) -> None:
    found = hash_file(work.inbox, file, copy_to=to)
    if found != sha256:
        raise NotRead(
            "the file changed while it was read",
            subject=file.path,
            found=found[:12],
            expected=sha256[:12],
            next_step="Upload under another name and rename when done; the next ingest takes the finished file.",
        )


def _scene_row(candidate: Candidate, facts: SceneFacts, source_sha256: str, stored: StoredObject) -> Scene:
    bounds: Sequence[float | None] = facts.bounds or [None] * 4
    place = candidate.place or (mgrs_place(*facts.centre) if facts.centre else f"block:{candidate.name}")
    return Scene(
        scene_id=keys.id_from_hash("sc", source_sha256),
        name=candidate.name,
        layout=candidate.layout,
        sensor=candidate.sensor,
        radiometry=facts.radiometry,
        acquired_at=candidate.acquired_at or facts.acquired_at,
        place=place,
        crs=facts.crs,
        transform=facts.transform,
        height=facts.height,
        width=facts.width,
        resolution_m=facts.resolution_m,
        bands=facts.bands,
        footprint_wkb=bytes.fromhex(facts.footprint_wkb_hex) if facts.footprint_wkb_hex else None,
        min_lon=bounds[0],
        min_lat=bounds[1],
        max_lon=bounds[2],
        max_lat=bounds[3],
        valid_fraction=facts.valid_fraction,
        publishable=candidate.needs_georeference and facts.crs is not None,
        source_uri=candidate.files[0].file.uri,
        source_sha256=source_sha256,
        key=stored.key,
        sha256=stored.sha256,
        size=stored.size,
        tags=facts.tags | dict(candidate.tags),
        created_at=now(),
    )


def _forget(work: Work, uri: str) -> None:
    """Take a file out of quarantine whose bytes have become those of a known scene or label."""
    with work.catalog.read() as db:
        stands = is_source_quarantined(db, uri)
    if stands and not work.dry_run:
        with work.catalog.begin() as db:
            release_source(db, uri)


def _take_label(
    work: Work,
    decoder: Decoder,
    label: LabelFile | None,
    scene: Scene,
    scene_file: Path | None,
    folder: Path,
    outcome: Outcome,
    *,
    alone: bool = False,
) -> None:
    """Add a label to its scene; a bad label is quarantined by itself and the scene stays.

    A label may be good for one scene and bad for another of the same name, so the scene is part of its quarantine id.
    """
    if label is None:
        return
    sha256 = _unread_hash(label.file)
    try:
        sha256 = hash_file(work.inbox, label.file)
        label_id = keys.make_id("lb", scene.scene_id, label.source, sha256)
        with work.catalog.read() as db:
            known, refused = (
                find_label(db, label_id),
                find_quarantined(db, _quarantine_id(label.file.uri, sha256, scene.scene_id)),
            )
        if known:
            _forget(work, label.file.uri)
            return
        if refused:
            outcome.still_quarantined += 1
            return
        _copy(work, label.file, sha256, folder / "label")
        job = _label_job(work, label, folder, alone=alone)
        if scene_file is not None:
            facts = decoder.decode_label(job(scene_file))
        else:
            with work.store.local_file(scene.key) as path:  # copied: the decoder can open nothing outside of its folder
                facts = decoder.decode_label(job(Path(shutil.copyfile(path, folder / "scene"))))
        if work.dry_run or _add_label(work, folder, label, label_id, scene, sha256, facts):
            outcome.label_id = label_id
    except InputError as error:
        check_room(work.folder, error)
        if isinstance(error, NotRead):
            sha256 = _unread_hash(label.file)
        entry_id = _quarantine_id(label.file.uri, sha256, scene.scene_id)
        _quarantine(work, entry_id, f"{scene.name} (label)", label.file.uri, sha256, _as_label_fault(error), outcome)


def _label_job(work: Work, label: LabelFile, folder: Path, *, alone: bool) -> Callable[[Path], LabelJob]:
    """Return what makes the job when the scene's file is at hand."""
    return lambda scene: LabelJob(
        path=str(folder / "label"),
        shown=label.file.path,
        source=label.source,
        scene=str(scene),
        out=str(folder / "label.tif"),
        folder=str(folder),
        mappings=[list(mapping.values) for mapping in label.mappings],
        max_pixels=work.limits.max_pixels,
        memory_mb=work.limits.memory_mb,
        needs_georeference=alone,
    )


def _add_label(
    work: Work, folder: Path, label: LabelFile, label_id: str, scene: Scene, sha256: str, facts: LabelFacts
) -> bool:
    out = stage_object(_made(folder / "label.tif", label.file.path), keys.label)
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

    def write(db: Connection, _: object) -> bool | None:
        release_source(db, label.file.uri)
        if add_label(db, row) is not None:
            return True
        return False if find_label(db, label_id) else None

    for _ in range(_LABEL_TRIES):
        added = publish(work.store, work.catalog, {"cog": out}, write)
        if added is not None:
            return added
    raise CloudsegError("the label's version is always taken", subject=label_id, next_step="Run the ingest again.")


def _take_stray(work: Work, stray: Stray) -> Outcome:
    outcome = Outcome(stray.file.name)
    if stray.label is not None:
        with work.catalog.read() as db:
            scene = find_newest_scene(db, stray.scene_name)
        if scene is not None:
            with tempfile.TemporaryDirectory(dir=work.folder) as folder, work.decoders.lend() as decoder:
                _take_label(work, decoder, stray.label, scene, None, Path(folder), outcome, alone=True)
            return outcome
    kind = BadLabel if stray.label else LayoutUnknown if "layout" in stray.what else BadScene
    try:
        sha256 = hash_file(work.inbox, stray.file)
    except NotRead:
        sha256 = _unread_hash(stray.file)
    error = kind(
        stray.what, subject=stray.file.path, found=stray.found, expected=stray.expected, next_step=stray.next_step
    )
    _quarantine(work, _quarantine_id(stray.file.uri, sha256), stray.file.name, stray.file.uri, sha256, error, outcome)
    return outcome


def _quarantine(
    work: Work, entry_id: str, name: str, uri: str, sha256: str, error: CloudsegError, outcome: Outcome
) -> None:
    """Write down why something was refused.

    The same bytes at the same place, read in the same way, are written down once.
    """
    entry = Quarantined(
        quarantine_id=entry_id,
        name=name,
        source_uri=uri,
        source_sha256=sha256,
        error=_public_name(error),
        what=error.what,
        found=error.found,
        expected=error.expected,
        next_step=error.next_step,
        created_at=now(),
    )
    if work.dry_run:
        with work.catalog.read() as db:
            added = find_quarantined(db, entry.quarantine_id) is None
    else:
        with work.catalog.begin() as db:
            added = add_quarantined(db, entry)
    if added:
        outcome.quarantined.append(entry.quarantine_id)
    else:
        outcome.still_quarantined += 1


def _public_name(error: CloudsegError) -> str:
    """Return the name of the error's class in `cloudseg.errors`."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == CloudsegError.__module__)


def _quarantine_id(uri: str, sha256: str, *read_as: str) -> str:
    """Return the entry's id.

    `read_as` is the layout of a scene or the scene of a label: read in another way it is tried again.
    """
    return keys.make_id("qu", uri, sha256, *read_as)


def _unread_hash(file: InboxFile) -> str:
    """Stand in for the checksum of bytes that could not be read.

    Once they can be, the true one differs and it is tried again.
    """
    return keys.sha256_of(f"unread:{file.path}".encode())


def _as_label_fault(error: InputError) -> InputError:
    if isinstance(error, BadLabel):
        return error
    return BadLabel(
        error.what, subject=error.subject, found=error.found, expected=error.expected, next_step=error.next_step
    )
