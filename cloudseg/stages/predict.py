"""Stages: plan which scenes need a mask, and predict masks."""

import math
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypedDict

from sqlalchemy import Connection

from cloudseg.bands import BAND_NAMES
from cloudseg.catalog import model_rows, reader_rows, scene_rows
from cloudseg.errors import BadWeights, CloudsegError, InputError, Interrupted, NotInCatalog
from cloudseg.records import Json, PredictFileRecord, PredictRecord, Weights
from cloudseg.runtime import Runtime, open_runtime, read_settings
from cloudseg.signals import listen_for_stop
from cloudseg.stages import log
from cloudseg.stages.compute import open_device
from cloudseg.stages.stac import publish_stac

if TYPE_CHECKING:
    from cloudseg.raster.cleaning import Cleaning
    from cloudseg.settings import Settings

MOST_BATCHES: Final = 1000
"""Maximum of a plan: Airflow does not map a task over more than 1024 entries (its setting `core.max_map_length`)."""


class PredictBatch(TypedDict):
    """Scenes that one task predicts, with a name that the Airflow UI shows."""

    weights_id: str
    scene_ids: list[str]
    name: str


def plan_predict(
    *,
    weights_id: str | None = None,
    batch_size: int = 8,
    threshold: float | None = None,
    min_area_m2: float | None = None,
    min_hole_m2: float | None = None,
    buffer_m: float | None = None,
) -> list[PredictBatch]:
    """Divide the scenes that lack a mask of the weights into batches, oldest first.

    By default these are the weights whose masks readers see: the champion, unless readers were switched to others. Then
    scenes that are newer than the champion get its mask as well, first, so that the backfill of the older ones ends.

    A new champion may have a million scenes to predict: if there would be more than 1000 batches, they hold more
    scenes instead. The batches name the weights, so tasks that start later use the same ones.

    Args:
        weights_id: by default those whose masks readers see.
        batch_size: scenes in a batch.
        threshold: as in `predict`: with one of these, the scenes that lack a mask that is cleaned just so.
        min_area_m2: the same.
        min_hole_m2: the same.
        buffer_m: the same.

    Returns:
        The batches; none without a champion.

    Raises:
        InputError: `batch_size` is below 1, or a value of the cleaning is out of range.
        NotInCatalog: the weights are unknown.
        BadWeights: the weights need a band that no scene can have.
    """
    if batch_size < 1:
        raise InputError(
            "a batch holds at least one scene", subject="batch_size", found=batch_size, expected="1 or more"
        )
    runtime = open_runtime()
    cleaning, exact = asked_cleaning(runtime, threshold, min_area_m2, min_hole_m2, buffer_m)
    such = cleaning if exact else None
    with runtime.catalog.read() as db:
        wanted = [(model_rows.get_weights(db, weights_id), None)] if weights_id else _list_wanted(db)
        waiting = [(weights, _waiting(db, weights, since, cleaning=such)) for weights, since in wanted]
    scenes = sum(len(found) for _, found in waiting)
    # Each list may end with a batch that is not full.
    size = max(batch_size, math.ceil(scenes / (MOST_BATCHES - len(waiting) + 1)))
    batches = [
        _batch(weights, found[at : at + size]) for weights, found in waiting for at in range(0, len(found), size)
    ]
    ids = [weights.weights_id for weights, _ in waiting]
    log.ended("plan_predict", {"weights_ids": ids, "scenes": scenes, "batches": len(batches)})
    return batches


def _list_wanted(db: Connection) -> list[tuple[Weights, datetime | None]]:
    """List whose masks are made right away, and of which scenes: those ingested since a moment; None: of all."""
    shown, champion = reader_rows.find_shown(db), model_rows.find_champion(db)
    if shown is None or champion is None:
        return []
    wanted: list[tuple[Weights, datetime | None]] = [(model_rows.get_weights(db, shown), None)]
    if champion.weights_id != shown:
        wanted.insert(0, (model_rows.get_weights(db, champion.weights_id), champion.created_at))
    return wanted


def predict(
    scene_ids: Sequence[str] = (),
    *,
    new: bool = False,
    weights_id: str | None = None,
    threshold: float | None = None,
    min_area_m2: float | None = None,
    min_hole_m2: float | None = None,
    buffer_m: float | None = None,
) -> PredictRecord:
    """Predict and publish masks; a mask that exists is returned unchanged.

    A cleaning that is passed makes a mask of its own beside one that is cleaned in another way, under another id; the
    first mask of a scene by these weights stays the one that readers see. Where none is passed, that one counts, and a
    new one is cleaned as the settings say (CLOUDSEG_THRESHOLD, CLOUDSEG_MIN_AREA_M2, CLOUDSEG_MIN_HOLE_M2,
    CLOUDSEG_BUFFER_M).

    A scene that fails is listed under `failed`, and the others are predicted. Errors that a retry can fix (an
    unreachable store or catalog, a full disk, too little memory) are raised. After SIGTERM or SIGINT the current scene
    is completed, then Interrupted is raised; a second signal has its usual effect.

    Args:
        scene_ids: the scenes.
        new: predict all scenes without a mask instead.
        weights_id: by default the champion.
        threshold: probability from which a pixel is cloud, instead of the model's.
        min_area_m2: clouds smaller than this become clear.
        min_hole_m2: clear areas smaller than this become cloud, unless no cloud touches them.
        buffer_m: by how many meters clouds are widened, after that.

    Raises:
        InputError: both or neither of `scene_ids` and `new` are given, or a value of the cleaning is out of range.
        NotInCatalog: the weights are unknown, or there is no champion yet.
        Interrupted: a signal arrived; published masks are kept.
    """
    began = time.monotonic()
    runtime = open_runtime()
    cleaning, exact = asked_cleaning(runtime, threshold, min_area_m2, min_hole_m2, buffer_m)
    such = cleaning if exact else None
    with runtime.catalog.read() as db:
        weights, wanted = resolve_scenes(db, scene_ids, new=new, weights_id=weights_id, cleaning=such)
        before = model_rows.find_masked(db, weights.weights_id, wanted, cleaning=text_of(such, weights))
    cleaned = {"cleaning": cleaning.text} if cleaning.text else {}
    log.started("predict", weights_id=weights.weights_id, scenes=len(wanted), new=new, **cleaned)
    masks: dict[str, str] = {}
    failed: Json = {}
    try:
        if wanted:
            _mask_all(runtime, weights, wanted, masks, failed, cleaning=cleaning, exact=exact)
    finally:
        publish_stac(runtime, scene_ids=list(masks))
    record = PredictRecord(
        weights_id=weights.weights_id,
        masks=list(masks.values()),
        created=len(set(masks) - before),
        failed=failed,
        seconds=round(time.monotonic() - began, 3),
    )
    log.ended("predict", record)
    return record


def predict_file(
    path: str,
    out: str,
    *,
    weights: str | None = None,
    bands: Sequence[str] | None = None,
    resolution_m: float | None = None,
    probability: str | None = None,
    threshold: float | None = None,
    min_area_m2: float | None = None,
    min_hole_m2: float | None = None,
    buffer_m: float | None = None,
) -> PredictFileRecord:
    """Mask a file of the user and write the mask beside the service: nothing is published, no catalog is needed.

    The file is opened in this process, as a file of the user who runs it (docs/concepts/security.md).

    Args:
        path: a GeoTIFF or JPEG 2000 file.
        out: path of the mask, a cloud-optimized GeoTIFF.
        weights: an id, a version (`v31`), a weights file or its address; by default the champion of this home.
        bands: names in file order, `-` for one that is not wanted; by default from the file.
        resolution_m: ground size of a pixel in meters; by default from the georeference.
        probability: path of the probability; by default it is not written.
        threshold: as in `predict`; by default of the settings, as there.
        min_area_m2: the same.
        min_hole_m2: the same.
        buffer_m: the same.

    Raises:
        NotInCatalog: there is no champion here, or no such weights.
        InputError: a file cannot be used; the message says what to type.
    """
    from cloudseg.api import load

    cleaning = _cleaning(read_settings(), threshold, min_area_m2, min_hole_m2, buffer_m)
    log.started("predict", path=path, out=out, weights=weights)
    report_progress = log.progress("predict")
    record = load(weights).predict_file(
        path,
        out,
        bands=bands,
        resolution_m=resolution_m,
        probability=probability,
        threshold=cleaning.threshold,
        min_area_m2=cleaning.min_area_m2,
        min_hole_m2=cleaning.min_hole_m2,
        buffer_m=cleaning.buffer_m,
        progress=lambda done, total: report_progress(done, total, "windows"),
    )
    log.ended("predict", record)
    return record


def asked_cleaning(
    runtime: Runtime,
    threshold: float | None,
    min_area_m2: float | None,
    min_hole_m2: float | None,
    buffer_m: float | None,
) -> tuple["Cleaning", bool]:
    """Return the cleaning of new masks, and whether somebody asked for just that one: not the settings alone.

    Raises:
        InputError: a value is out of range.
    """
    asked = (threshold, min_area_m2, min_hole_m2, buffer_m)
    return _cleaning(runtime.settings, *asked), any(value is not None for value in asked)


def _cleaning(
    settings: "Settings",
    threshold: float | None,
    min_area_m2: float | None,
    min_hole_m2: float | None,
    buffer_m: float | None,
) -> "Cleaning":
    from cloudseg.raster.cleaning import Cleaning

    cleaning = Cleaning(
        settings.threshold if threshold is None else threshold,
        settings.min_area_m2 if min_area_m2 is None else min_area_m2,
        settings.min_hole_m2 if min_hole_m2 is None else min_hole_m2,
        settings.buffer_m if buffer_m is None else buffer_m,
    )
    cleaning.check()
    return cleaning


def text_of(cleaning: "Cleaning | None", weights: Weights) -> str | None:
    """Return how the rows of masks by these weights hold a cleaning (`Mask.cleaning`); None for any."""
    return None if cleaning is None else cleaning.of_model(weights.metadata["threshold"]).text


def resolve_scenes(
    db: Connection,
    scene_ids: Sequence[str],
    *,
    new: bool,
    weights_id: str | None,
    cleaning: "Cleaning | None" = None,
) -> tuple[Weights, list[str]]:
    """Return the weights and the ids of the scenes to predict.

    Args:
        db: the catalog.
        scene_ids: the scenes.
        new: all scenes without a mask instead.
        weights_id: by default the champion.
        cleaning: only masks that are cleaned just so count; None: any.

    Raises:
        InputError: both or neither of `scene_ids` and `new` are given.
        NotInCatalog: the weights are unknown, or there is no champion yet.
    """
    if bool(scene_ids) == new:
        raise InputError(
            "pass either scene ids or --new", found="both" if new else "neither", expected="scene ids or --new"
        )
    weights = _find_weights(db, weights_id)
    if weights is None:
        raise NotInCatalog(
            "there is no champion yet",
            subject="champion",
            next_step="Run `cloudseg retrain`, or name weights with --weights.",
        )
    if not new:
        return weights, list(dict.fromkeys(scene_ids))
    return weights, [scene.scene_id for scene in _waiting(db, weights, cleaning=cleaning)]


def _mask_all(
    runtime: Runtime,
    weights: Weights,
    scene_ids: Sequence[str],
    masks: dict[str, str],
    failed: Json,
    *,
    cleaning: "Cleaning",
    exact: bool,
) -> None:
    """Add to `masks` the mask id by scene id, and to `failed` the error record by id of each scene that failed."""
    device = open_device(runtime)
    from cloudseg.model.predictor import open_predictor
    from cloudseg.predict import predict_scene

    predictor = open_predictor(runtime.store, weights, device)
    report_progress = log.progress("predict")
    with listen_for_stop() as request:
        for number, scene_id in enumerate(scene_ids, start=1):
            _raise_if_interrupted(request.signal_name, number - 1, len(scene_ids))
            try:
                mask = predict_scene(
                    runtime.store,
                    runtime.catalog,
                    scene_id=scene_id,
                    weights_id=weights.weights_id,
                    predictor=predictor,
                    cleaning=cleaning,
                    exact=exact,
                )
                masks[scene_id] = mask.mask_id
            except CloudsegError as error:
                if error.retry_helps:
                    raise
                log.log.warning("no mask of scene %s: %s", scene_id, error)
                failed[scene_id] = error.as_record()
            except (OSError, MemoryError):
                raise  # a problem of the machine, not of this scene: the next one would fail too
            except Exception as error:  # unforeseen, in one scene: record it and continue with the others
                log.log.exception("no mask of scene %s", scene_id)
                failed[scene_id] = CloudsegError(
                    f"unexpected {type(error).__name__}: {error}", subject=scene_id
                ).as_record()
            report_progress(number, len(scene_ids), "scenes")


def _raise_if_interrupted(signal_name: str | None, done: int, total: int) -> None:
    if signal_name is not None:
        raise Interrupted(
            f"stopped by {signal_name}",
            subject="predict",
            found=f"{done} of {total} scenes are done",
            next_step="Run it again: masks that exist are kept.",
        )


def _find_weights(db: Connection, weights_id: str | None) -> Weights | None:
    if weights_id is not None:
        return model_rows.get_weights(db, weights_id)
    champion = model_rows.find_champion(db)
    return model_rows.get_weights(db, champion.weights_id) if champion else None


def _waiting(
    db: Connection, weights: Weights, since: datetime | None = None, *, cleaning: "Cleaning | None" = None
) -> list[scene_rows.WaitingScene]:
    """List scenes without a mask that have all bands that these weights need.

    Raises:
        BadWeights: a band is none that a scene can have, so that the list would always be empty.
    """
    check_bands(weights)
    return scene_rows.list_scenes_without_mask(
        db,
        weights.weights_id,
        bands=weights.metadata["bands"],
        since=since,
        cleaning=text_of(cleaning, weights),
    )


def check_bands(weights: Weights) -> None:
    """Check that a scene can have all bands that these weights need.

    Raises:
        BadWeights: a band is none that a scene can have, so that no scene would ever be masked.
    """
    if unknown := [band for band in weights.metadata["bands"] if band not in BAND_NAMES]:
        raise BadWeights(
            "the weights need a band that no scene can have",
            subject=weights.weights_id,
            found=", ".join(unknown),
            expected=", ".join(BAND_NAMES),
            next_step="Use other weights: --weights, or `cloudseg rollback` if these are the champion.",
        )


def _batch(weights: Weights, part: Sequence[scene_rows.WaitingScene]) -> PredictBatch:
    name = part[0].name if len(part) == 1 else f"{part[0].name} and {len(part) - 1} more"
    return PredictBatch(weights_id=weights.weights_id, scene_ids=[scene.scene_id for scene in part], name=name)
