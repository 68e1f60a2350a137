"""Stages: predict the masks of scenes, or of a file. Many workers at a time: `cloudseg.stages.drain`."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from cloudseg.bands import BAND_NAMES
from cloudseg.catalog import model_rows, names, reader_rows, scene_rows
from cloudseg.errors import BadWeights, CloudsegError, InputError, Interrupted
from cloudseg.records import Json, Mask, PredictFileRecord, PredictRecord, Weights
from cloudseg.runtime import Runtime, open_runtime, read_settings
from cloudseg.signals import listen_for_stop
from cloudseg.stages import log
from cloudseg.stages.compute import open_device
from cloudseg.stages.stac import publish_stac
from cloudseg.stages.thresholds import named_threshold, outside_notes

if TYPE_CHECKING:
    from cloudseg.model.predictor import Predictor
    from cloudseg.predict.draw import OnProgress
    from cloudseg.raster.cleaning import Cleaning
    from cloudseg.raster.thresholds import Threshold
    from cloudseg.settings import Settings


def list_wanted(
    db: Connection, weights_id: str | None = None, *, needed: bool = False
) -> list[tuple[Weights, datetime | None]]:
    """List whose masks are made right away, and of which scenes: those ingested since a moment; None: of all.

    By default these are the weights whose masks readers see: the champion, unless readers were switched to others. Then
    scenes that are newer than the champion get its mask as well, first, so that the backfill of the older ones ends.

    Args:
        db: the catalog.
        weights_id: an id or a version instead.
        needed: raise an error, instead of returning nothing, as long as there is no champion.

    Raises:
        NotInCatalog: the weights are unknown, or there is no champion.
    """
    if weights_id or needed:
        named = names.get_weights(db, weights_id or names.CHAMPION)
        if weights_id:
            return [(named, None)]
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
    threshold: "Threshold | None" = None,
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
        scene_ids: the scenes, by id or name.
        new: predict all scenes without a mask instead.
        weights_id: by default the champion; an id or a version (`v31`).
        threshold: probability from which a pixel is cloud, instead of the model's; or `careful` or `generous`, where
            these weights have such a threshold (docs/how-to/thresholds.md).
        min_area_m2: clouds smaller than this become clear.
        min_hole_m2: clear areas smaller than this become cloud, unless no cloud touches them.
        buffer_m: by how many meters clouds are widened, after that.

    Raises:
        InputError: both or neither of `scene_ids` and `new` are given, or a value of the cleaning is out of range.
        NotInCatalog: the weights or a scene are unknown, or there is no champion yet.
        Interrupted: a signal arrived; published masks are kept.
    """
    began = time.monotonic()
    runtime = open_runtime()
    threshold = named_threshold(runtime, threshold, weights_id)
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
        outside=outside_notes(runtime, weights, list(masks.values())),
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
    threshold: "Threshold | None" = None,
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

    number = None if isinstance(threshold, str) else threshold
    cleaning = _cleaning(read_settings(), number, min_area_m2, min_hole_m2, buffer_m)
    log.started("predict", path=path, out=out, weights=weights)
    report_progress = log.progress("predict")
    record = load(weights).predict_file(
        path,
        out,
        bands=bands,
        resolution_m=resolution_m,
        probability=probability,
        threshold=threshold if isinstance(threshold, str) else cleaning.threshold,
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
    weights = names.get_weights(db, weights_id or names.CHAMPION)
    if not new:
        return weights, _known_scenes(db, scene_ids)
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
    device = open_device(runtime, predicts=True)
    from cloudseg.model.predictor import open_predictor

    predictor = open_predictor(runtime.store, weights, device)
    report_progress = log.progress("predict")
    with listen_for_stop() as request:
        for number, scene_id in enumerate(scene_ids, start=1):
            raise_if_interrupted(request.signal_name, f"{number - 1} of {len(scene_ids)} scenes are done")
            made = mask_scene(runtime, predictor, scene_id, cleaning=cleaning, exact=exact)
            if isinstance(made, Mask):
                masks[scene_id] = made.mask_id
            else:
                failed[scene_id] = made
            report_progress(number, len(scene_ids), "scenes")


def mask_scene(
    runtime: Runtime,
    predictor: "Predictor",
    scene_id: str,
    *,
    cleaning: "Cleaning",
    exact: bool,
    on_progress: "OnProgress | None" = None,
) -> Mask | Json:
    """Return the mask of a scene by the predictor's weights, made if it is missing; or why there is none.

    Errors that a retry can fix, and those of the machine, are raised.
    """
    from cloudseg.predict import predict_scene

    try:
        return predict_scene(
            runtime.store,
            runtime.catalog,
            scene_id=scene_id,
            weights_id=str(predictor.weights_id),  # of a registered model it is never None
            predictor=predictor,
            cleaning=cleaning,
            exact=exact,
            on_progress=on_progress,
        )
    except CloudsegError as error:
        if error.retry_helps:
            raise
        log.log.warning("no mask of scene %s: %s", scene_id, error)
        return error.as_record()
    except (OSError, MemoryError):
        raise  # a problem of the machine, not of this scene: the next one would fail too
    except Exception as error:  # unforeseen, in one scene: record it and continue with the others
        log.log.exception("no mask of scene %s", scene_id)
        return CloudsegError(f"unexpected {type(error).__name__}: {error}", subject=scene_id).as_record()


def raise_if_interrupted(signal_name: str | None, done: str) -> None:
    """Raise Interrupted if a signal arrived; `done` says how far the work is."""
    if signal_name is not None:
        raise Interrupted(
            f"stopped by {signal_name}",
            subject="predict",
            found=done,
            next_step="Run it again: masks that exist are kept.",
        )


def _known_scenes(db: Connection, asked: Sequence[str]) -> list[str]:
    """Return the ids of scenes, each once, before anything is loaded.

    A whole id that is unknown is kept beside one that is known: a scene of a plan may have been removed, and the others
    of its batch are predicted.
    """
    ids = [name for name in asked if names.is_whole_id(name)]
    known = scene_rows.find_known(db, ids)
    found: list[str] = []
    for name in asked:
        found += [name] if name in known or (known and names.is_whole_id(name)) else names.list_ids(db, "scene", name)
    return list(dict.fromkeys(found))


def _waiting(db: Connection, weights: Weights, *, cleaning: "Cleaning | None" = None) -> list[scene_rows.WaitingScene]:
    """List scenes without a mask that have all bands that these weights need.

    Raises:
        BadWeights: a band is none that a scene can have, so that the list would always be empty.
    """
    check_bands(weights)
    return scene_rows.list_scenes_without_mask(
        db, weights.weights_id, bands=weights.required_bands, cleaning=text_of(cleaning, weights)
    )


def check_bands(weights: Weights) -> None:
    """Check that a scene can have all bands that these weights need.

    Raises:
        BadWeights: a band is none that a scene can have, so that no scene would ever be masked.
    """
    if unknown := [band for band in weights.required_bands if band not in BAND_NAMES]:
        raise BadWeights(
            "the weights need a band that no scene can have",
            subject=weights.weights_id,
            found=", ".join(unknown),
            expected=", ".join(BAND_NAMES),
            next_step="Use other weights: --weights, or `cloudseg rollback` if these are the champion.",
        )
