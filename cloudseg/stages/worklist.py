"""Stage: list what to label next."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection

from cloudseg.catalog import model_rows, names, worklist_rows
from cloudseg.errors import InputError, NotInCatalog
from cloudseg.records import WorklistRecord
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import log
from cloudseg.stages.predict import predict as predict_masks

if TYPE_CHECKING:
    from cloudseg.teacher import Teacher
    from cloudseg.worklist import Worklist

_MOST_SCENES: Final = 1000
_MOST_MEGAPIXELS: Final = 1_000_000


def worklist(
    *,
    count: int = 20,
    scene_ids: Sequence[str] = (),
    out: str | None = None,
    weights_id: str | None = None,
    predict: int = 0,
    megapixels: int = 2000,
    second_opinion: bool = False,
) -> WorklistRecord:
    """Return the scenes and windows whose label would teach the model most, and write them as a folder for QGIS.

    Published rasters are read and, unless `predict` is given, nothing is changed. The same catalog gives the same list.

    Args:
        count: scenes on the list, at most.
        scene_ids: these scenes instead, by id or name, whole: their masks are known to be wrong.
        out: a new folder for QGIS; None: none is written.
        weights_id: whose masks are examined; by default the champion's.
        predict: scenes to mask with the challenger first, at most, so that there is something to compare with. The
            challenger is the newest other weights that were evaluated; this needs torch.
        megapixels: millions of pixels to examine; scenes beyond that are left out.
        second_opinion: also mask every labeled scene with ukis-csmask (the extra `teacher`), and list where it and the
            mask agree against the label.

    Returns:
        The list, empty if there is no champion yet or no mask.

    Raises:
        InputError: `count` or `megapixels` is out of range, or the folder is not empty.
        NotInCatalog: the weights or a scene are unknown, a scene has no mask by the weights, or there is no
            champion whose mask of a scene could be meant.
        SettingsError: the extra `teacher` is not installed.
    """
    began = time.monotonic()
    _check_range("count", count, 1, _MOST_SCENES)
    _check_range("predict", predict, 0, _MOST_SCENES)
    _check_range("megapixels", megapixels, 1, _MOST_MEGAPIXELS)
    facts = {"count": count, "scenes": list(scene_ids), "predict": predict, "megapixels": megapixels}
    facts["second_opinion"] = second_opinion
    log.started("worklist", out=out, weights_id=weights_id, **facts)
    runtime = open_runtime()
    teacher = _open_teacher(runtime) if second_opinion else None
    with runtime.catalog.read() as db:
        examined_id = _resolve_weights(db, weights_id)
        challenger = worklist_rows.find_challenger(db, examined_id) if examined_id else None
    if predict and examined_id and challenger:
        with runtime.catalog.read() as db:
            lacking = worklist_rows.list_unmasked(db, examined_id, by=challenger.weights_id, limit=predict)
        if lacking:
            predict_masks(lacking, weights_id=challenger.weights_id)
    made = _make(runtime, examined_id, scene_ids, count, megapixels, teacher)
    if out is not None:
        from cloudseg.worklist import write_folder

        write_folder(runtime.store, runtime.catalog, made, Path(out))
    record = WorklistRecord(
        worklist_id=made.worklist_id,
        weights_id=examined_id,
        challenger_id=challenger.weights_id if challenger else None,
        masked=made.masked,
        examined=made.examined,
        items=made.items,
        failed=made.failed,
        second_opinion=made.second_opinion,
        folder=str(Path(out).absolute()) if out is not None else None,
        seconds=round(time.monotonic() - began, 3),
    )
    log.ended("worklist", record)
    return record


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InputError("out of range", subject=name, found=value, expected=f"{least} to {most}")


def _open_teacher(runtime: Runtime) -> "Teacher":
    from cloudseg.teacher import open_teacher

    return open_teacher(runtime.threads)


def _resolve_weights(db: Connection, weights_id: str | None) -> str | None:
    if weights_id is not None:
        return names.get_id(db, "weights", weights_id)
    champion = model_rows.find_champion(db)
    return champion.weights_id if champion else None


def _make(
    runtime: Runtime,
    weights_id: str | None,
    scene_ids: Sequence[str],
    count: int,
    megapixels: int,
    teacher: "Teacher | None",
) -> "Worklist":
    from cloudseg.worklist import Worklist, build_worklist, list_requested

    if weights_id is None and scene_ids:
        raise NotInCatalog(
            "there is no champion whose masks could be corrected",
            subject=", ".join(scene_ids),
            next_step="Run `cloudseg retrain`, or name the weights of the masks: `cloudseg worklist --weights ID`.",
        )
    if weights_id is None:
        return Worklist.empty()
    if scene_ids:
        with runtime.catalog.read() as db:
            scene_ids = [scene_id for name in scene_ids for scene_id in names.list_ids(db, "scene", name)]
        return list_requested(runtime.catalog, weights_id=weights_id, scene_ids=scene_ids)
    return build_worklist(
        runtime.store,
        runtime.catalog,
        weights_id=weights_id,
        count=count,
        megapixels=megapixels,
        teacher=teacher,
        on_progress=log.progress("worklist"),
    )
