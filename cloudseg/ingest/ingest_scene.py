"""Ingest of one scene: look up by hash, copy, decode, store the canonical raster, add the row."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection

from cloudseg import keys
from cloudseg.bands import SENTINEL2, Radiometry
from cloudseg.catalog.removal_rows import find_standing
from cloudseg.catalog.scene_rows import add_scene, find_quarantined, find_scene_by_source, release_source
from cloudseg.catalog.session import now
from cloudseg.grid import mgrs_place
from cloudseg.ingest.acquisition import choose_time
from cloudseg.ingest.candidate import Candidate, SourceFile
from cloudseg.ingest.context import IngestContext, Outcome
from cloudseg.ingest.inbox_file import InboxFile, copy_file, escape_name
from cloudseg.ingest.ingest_label import ingest_label
from cloudseg.ingest.job import QualityJob, RasterJob, SceneFacts, SceneJob
from cloudseg.ingest.pool import Decoder
from cloudseg.ingest.quarantine import quarantine_id, release_known_file
from cloudseg.publish import publish, stage_object
from cloudseg.records import Removal, Scene, StoredObject

_DEFAULT_SCALE = (SENTINEL2.scale, SENTINEL2.offset)


Hashes = dict[str, str]
"""Hex SHA-256 of the files of `Candidate.pixel_files` by path."""


def source_hash(candidate: Candidate, hashes: Hashes) -> str:
    """Return the hash that determines the scene's id: the files' bytes in band order, and how they are read.

    File names, place and time are not part of it: the same bytes under another name are the same scene. The default
    scale of Sentinel-2 hashes like no product id, because the resulting digital numbers are the same. Sidecars and
    quality layers are part of it where there are any.
    """
    reading = [_reading(source, hashes) for source in candidate.files]
    quality = [[layer.kind, hashes[layer.file.path]] for layer in candidate.quality]
    return keys.sha256_of(keys.canonical_json(["scene", 1, reading, *([quality] if quality else [])]))


def _reading(source: SourceFile, hashes: Hashes) -> list[object]:
    sidecars = [[file.suffix, hashes[file.path]] for file in source.sidecars]
    return [hashes[source.file.path], source.bands, _scale(source.radiometry), *([sidecars] if sidecars else [])]


def _scale(radiometry: Radiometry | None) -> list[str] | None:
    if radiometry is None or (radiometry.scale, radiometry.offset) == _DEFAULT_SCALE:
        return None
    return [repr(radiometry.scale), repr(radiometry.offset)]


def ingest_scene(
    context: IngestContext, candidate: Candidate, hashes: Hashes, source_sha256: str, outcome: Outcome
) -> None:
    """Add a scene and its label to the catalog, and record the result in `outcome`.

    A known scene is not decoded again, but its label may be new. A scene that is in quarantine is only counted, one
    that was removed (`cloudseg remove scene`) is passed over with a note. A bad label does not affect its scene.

    Args:
        context: What the ingest shares.
        candidate: The files of the scene.
        hashes: Files that changed since are rejected.
        source_sha256: `source_hash` of the candidate.
        outcome: Filled in.

    Raises:
        BadScene: The files do not make a scene.
    """
    entry_id = quarantine_id(candidate.files[0].file.uri, source_sha256, *candidate.read_as())
    with context.catalog.read() as db:
        known = find_scene_by_source(db, source_sha256)
        removal = None if known is not None else find_standing(db, source_sha256)
        bad = known is None and find_quarantined(db, entry_id) is not None
    if removal is not None:
        pass_over_removed(removal, outcome)
        return
    if bad:
        outcome.still_quarantined += 1
        return
    with tempfile.TemporaryDirectory(dir=context.folder) as name, context.decoders.acquire() as decoder:
        folder, scene_file = Path(name), None
        if known is not None:
            scene = known
            outcome.scene, outcome.scene_id = "known", known.scene_id
            for file in candidate.pixel_files():
                release_known_file(context, file.uri)
        else:
            scene_file = folder / "scene.tif"
            scene = _decode_and_add(context, decoder, candidate, hashes, source_sha256, scene_file, outcome)
        if candidate.label is not None:
            ingest_label(context, decoder, candidate.label, scene, scene_file, folder, outcome)


def pass_over_removed(removal: Removal, outcome: Outcome) -> None:
    """Record that a scene was removed and stays out, and how to change that."""
    outcome.scene, outcome.scene_id = "removed", removal.scene_id
    outcome.notes.append(
        f"{outcome.name}: removed on {removal.created_at:%Y-%m-%d} ({removal.reason}), passed over; delete the file, "
        f"or allow it again: cloudseg remove lift {removal.scene_id} --reason …"
    )


def _decode_and_add(
    context: IngestContext,
    decoder: Decoder,
    candidate: Candidate,
    hashes: Hashes,
    source_sha256: str,
    scene_file: Path,
    outcome: Outcome,
) -> Scene:
    """Decode a scene to `scene_file`, publish it unless this is a dry run, and return its row."""
    facts = decoder.decode_scene(_scene_job(context, candidate, hashes, scene_file))
    out = stage_object(scene_file, keys.scene)
    scene = scene_row(candidate, facts, source_sha256, out.stored)
    added = context.dry_run or publish(
        context.store, context.catalog, {"cog": out}, lambda db, _: _add_scene(db, scene, candidate)
    )
    outcome.scene, outcome.scene_id = ("added" if added else "known"), scene.scene_id
    return scene


def _add_scene(db: Connection, scene: Scene, candidate: Candidate) -> bool:
    for file in candidate.pixel_files():
        release_source(db, file.uri)
    return add_scene(db, scene)


def _scene_job(context: IngestContext, candidate: Candidate, hashes: Hashes, scene_file: Path) -> SceneJob:
    """Copy the files and return the decoder's job.

    The decoder works on copies: they cannot change or vanish meanwhile, and no untrusted name reaches GDAL.
    """
    folder = scene_file.parent
    files, quality = [], []
    copies: dict[str, Path] = {}  # a file whose bands have several scales occurs once for each
    for index, source in enumerate(candidate.files):
        if source.file.path not in copies:
            copy = _copy(context, source.file, hashes, folder / f"source{index}")
            for sidecar in source.sidecars:
                _copy(context, sidecar, hashes, folder / f"{copy.name}.{_sidecar_suffix(sidecar)}")
            copies[source.file.path] = copy
        files.append(_raster_job(source, copies[source.file.path]))
    for index, layer in enumerate(candidate.quality):
        copy = _copy(context, layer.file, hashes, folder / f"quality{index}")
        quality.append(QualityJob(path=str(copy), display_name=layer.file.path, kind=layer.kind))
    return SceneJob(
        name=candidate.name,
        files=files,
        quality=quality,
        needs_georeference=candidate.needs_georeference,
        time_in_tags=candidate.time_in_tags,
        is_product=candidate.sensor != "unknown",
        sensor=candidate.sensor,
        out=str(scene_file),
        folder=str(folder),
        max_pixels=context.limits.max_pixels,
        memory_mb=context.limits.memory_mb,
    )


def _copy(context: IngestContext, file: InboxFile, hashes: Hashes, to: Path) -> Path:
    copy_file(context.inbox, file, hashes[file.path], to, max_bytes=context.limits.max_bytes)
    return to


def _sidecar_suffix(sidecar: InboxFile) -> str:
    """Return `msk` or `aux.xml`."""
    return "aux.xml" if sidecar.name.lower().endswith(".aux.xml") else sidecar.suffix


def _raster_job(source: SourceFile, copy: Path) -> RasterJob:
    known = source.radiometry
    return RasterJob(
        path=str(copy),
        display_name=source.file.path,
        bands=list(source.bands) if source.bands is not None else None,
        other_bands=[list(names) for names in source.other_bands],
        georeference_beside=[escape_name(name) for name in source.georeference_beside],
        radiometry=(known.scale, known.offset, known.fill, known.source, known.guessed) if known else None,
    )


def scene_row(candidate: Candidate, facts: SceneFacts, source_sha256: str, stored: StoredObject) -> Scene:
    """Return the catalog row of a decoded scene.

    Args:
        candidate: Facts from the file names.
        facts: Facts from the decoder.
        source_sha256: `source_hash` of the candidate.
        stored: The canonical raster in the store.
    """
    received_at = now()
    acquired_at, ignored = choose_time((candidate.acquired_at, facts.acquired_at), received_at, candidate.name)
    bounds: Sequence[float | None] = facts.bounds or [None] * 4
    place = candidate.place or (mgrs_place(*facts.center) if facts.center else f"block:{candidate.name}")
    return Scene(
        scene_id=keys.id_from_hash("sc", source_sha256),
        name=candidate.name,
        layout=candidate.layout,
        sensor=candidate.sensor,
        radiometry=facts.radiometry,
        acquired_at=acquired_at,
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
        tags=facts.tags | dict(candidate.tags) | ignored,
        created_at=received_at,
    )
