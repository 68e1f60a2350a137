"""Stages: make the masks of a new champion for older scenes, a budget each night, and then switch readers to them.

A night has one plan for each model: rows that name the scenes. `plan_backfill` writes it or finds it,
`predict_backfill` masks a part of it, `finish_backfill` says how far the masks are and switches readers if none is
missing. `backfill` does all three. Killed anywhere and called again, each continues: the plan is the same, masks that
exist are kept.
"""

import math
import re
import time
from collections.abc import Iterable, Sequence
from typing import Final, TypedDict

from sqlalchemy import Connection

from cloudseg.catalog import backfill_rows, model_rows, names, reader_rows, scene_rows
from cloudseg.catalog.session import advisory_lock, now
from cloudseg.errors import InputError, NotInCatalog
from cloudseg.keys import make_id
from cloudseg.records import (
    Backfill,
    BackfillPlanRecord,
    BackfillRecord,
    Month,
    PredictRecord,
    Weights,
)
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import log
from cloudseg.stages.predict import check_bands
from cloudseg.stages.predict import predict as predict_masks
from cloudseg.stages.stac import publish_stac

MOST_BATCHES: Final = 1000
"""Maximum of a plan: Airflow does not map a task over more than 1024 entries (its setting `core.max_map_length`)."""
_NIGHT: Final = re.compile(r"[\w:+.-]{1,100}", re.ASCII)
_MOST_MEGAPIXELS: Final = 1_000_000_000
_MEGAPIXEL: Final = 1_000_000


class BackfillBatch(TypedDict):
    """A part of a plan that one task masks, with a name that the Airflow UI shows."""

    backfill_id: str
    first: int
    count: int
    name: str


def plan_backfill(
    night: str | None = None,
    *,
    megapixels: int | None = None,
    weights_id: str | None = None,
    dry_run: bool = False,
) -> BackfillPlanRecord:
    """Write which scenes get a mask in a night, or return the plan that the night has.

    Args:
        night: name of the night, usually its date; None: today's date, in UTC.
        megapixels: budget in millions of scene pixels, one scene at least; None: CLOUDSEG_BACKFILL_MEGAPIXELS. A night
            that has a plan keeps it.
        weights_id: whose masks to make; by default the champion's.
        dry_run: write nothing.

    Raises:
        InputError: `night` or `megapixels` is out of range.
        NotInCatalog: the weights are unknown.
        BadWeights: the weights need a band that no scene can have.
    """
    runtime = open_runtime()
    night, budget = _check_night(night), _check_budget(runtime, megapixels)
    log.started("plan_backfill", night=night, megapixels=budget, weights_id=weights_id, dry_run=dry_run)
    with runtime.catalog.read() as db:
        weights = _find_weights(db, weights_id)
    if weights is None:
        return _planned(night, budget, skip="there is no champion yet")
    with runtime.catalog.read() if dry_run else runtime.catalog.begin() as db:
        if not dry_run:
            advisory_lock(db, f"backfill of {weights.weights_id}")
        plan = backfill_rows.find_plan(db, weights.weights_id, night)
        waiting = scene_rows.count_scenes_without_mask(db, weights.weights_id)
        if plan is not None:
            scenes = len(backfill_rows.list_planned(db, plan.backfill_id))
            return _planned(night, plan.megapixels, plan=plan, scenes=scenes, waiting=waiting)
        if budget == 0:
            return _planned(night, 0, weights=weights, waiting=waiting, skip="the budget is 0: the backfill is paused")
        chosen = _choose(backfill_rows.iter_waiting(db, weights.weights_id, bands=weights.required_bands), budget)
        if not chosen:
            return _planned(night, budget, weights=weights, waiting=waiting, skip="every scene has its mask")
        plan = Backfill(
            backfill_id=make_id("bf", weights.weights_id, night),
            weights_id=weights.weights_id,
            night=night,
            megapixels=budget,
            created_at=now(),
        )
        if not dry_run:
            backfill_rows.add_plan(db, plan, chosen)
    return _planned(night, budget, plan=plan, scenes=len(chosen), waiting=waiting)


def list_backfill(backfill_id: str | None, *, batch_size: int = 8) -> list[BackfillBatch]:
    """Divide a plan into batches; at most 1000, so they hold more scenes if the plan is long.

    Args:
        backfill_id: the plan; None: there is none, and so no batch.
        batch_size: scenes in a batch.

    Raises:
        InputError: `batch_size` is below 1.
        NotInCatalog: there is no such plan.
    """
    if batch_size < 1:
        raise InputError(
            "a batch holds at least one scene", subject="batch_size", found=batch_size, expected="1 or more"
        )
    if backfill_id is None:
        return []
    with open_runtime().catalog.read() as db:
        _, scene_ids = _get_plan(db, backfill_id)
        size = max(batch_size, math.ceil(len(scene_ids) / MOST_BATCHES))
        return [
            BackfillBatch(backfill_id=backfill_id, first=at, count=len(part), name=_name(db, part))
            for at in range(0, len(scene_ids), size)
            if (part := scene_ids[at : at + size])
        ]


def predict_backfill(backfill_id: str, first: int, count: int) -> PredictRecord:
    """Mask a part of a plan with the weights that it names; masks that exist are kept.

    Args:
        backfill_id: the plan.
        first: position of the first scene.
        count: scenes.

    Raises:
        NotInCatalog: there is no such plan, or no such scene of it.
        Interrupted: a signal arrived; published masks are kept.
    """
    with open_runtime().catalog.read() as db:
        plan, scene_ids = _get_plan(db, backfill_id)
    part = scene_ids[first : first + count]
    if len(part) != count or count < 1:
        raise NotInCatalog(
            "the plan has no such scenes",
            subject=backfill_id,
            found=f"{len(scene_ids)} scenes",
            expected=f"{count} from {first} on",
        )
    return predict_masks(part, weights_id=plan.weights_id)


def finish_backfill(weights_id: str | None, *, backfill_id: str | None = None) -> BackfillRecord:
    """Return how far the masks of weights are, and switch readers to them if they wait for that and lose no scene.

    Args:
        weights_id: whose masks; only the champion's are shown. None: there is no champion, so nothing to finish.
        backfill_id: the plan of the night, whose months the record names.

    Raises:
        NotInCatalog: the weights are unknown.
    """
    from cloudseg.registry.readers import switch_when_complete

    began = time.monotonic()
    runtime = open_runtime()
    switched = (
        weights_id is not None and switch_when_complete(runtime.catalog, weights_id, actor="backfill") is not None
    )
    if switched:
        publish_stac(runtime, everything=True)
    record = _progress(runtime, weights_id, backfill_id=backfill_id, switched=switched, began=began)
    log.ended("finish_backfill", record)
    return record


def backfill(
    *,
    megapixels: int | None = None,
    night: str | None = None,
    weights_id: str | None = None,
    dry_run: bool = False,
) -> BackfillRecord:
    """Plan a night, mask its scenes, and switch readers if no mask is missing then.

    Args:
        megapixels: as in `plan_backfill`.
        night: as in `plan_backfill`.
        weights_id: as in `plan_backfill`.
        dry_run: write nothing; `planned` says how many scenes would be masked.

    Raises:
        InputError: `night` or `megapixels` is out of range.
        NotInCatalog: the weights are unknown.
        Interrupted: a signal arrived; published masks are kept, and the same call goes on.
    """
    began = time.monotonic()
    plan = plan_backfill(night, megapixels=megapixels, weights_id=weights_id, dry_run=dry_run)
    made: PredictRecord | None = None
    if plan.backfill_id and not dry_run:
        made = predict_backfill(plan.backfill_id, 0, plan.scenes)
    if dry_run:
        finished = _progress(open_runtime(), plan.weights_id, began=began)
    else:
        finished = finish_backfill(plan.weights_id, backfill_id=plan.backfill_id)
    return finished.model_copy(
        update={
            "skip": plan.skip,
            "backfill_id": plan.backfill_id,
            "night": plan.night,
            "planned": plan.scenes,
            "created": made.created if made else 0,
            "failed": made.failed if made else {},
            "seconds": round(time.monotonic() - began, 3),
        }
    )


def _choose(waiting: Iterable[backfill_rows.BackfillCandidate], megapixels: int) -> list[str]:
    """Return the first scenes that fit the budget, at least one."""
    chosen: list[str] = []
    pixels = 0
    for scene in waiting:
        pixels += scene.pixels
        if chosen and pixels > megapixels * _MEGAPIXEL:
            break
        chosen.append(scene.scene_id)
    return chosen


def _check_night(night: str | None) -> str:
    night = now().date().isoformat() if night is None else night
    if not _NIGHT.fullmatch(night):
        raise InputError(
            "not a name of a night",
            subject="night",
            found=night,
            expected="at most 100 letters, digits and . : + - _, such as 2026-11-29",
        )
    return night


def _check_budget(runtime: Runtime, megapixels: int | None) -> int:
    budget = runtime.settings.backfill_megapixels if megapixels is None else megapixels
    if not 0 <= budget <= _MOST_MEGAPIXELS:
        raise InputError("out of range", subject="megapixels", found=budget, expected=f"0 to {_MOST_MEGAPIXELS}")
    return budget


def _find_weights(db: Connection, weights_id: str | None) -> Weights | None:
    if weights_id is None and model_rows.find_champion(db) is None:
        return None
    weights = names.get_weights(db, weights_id or names.CHAMPION)
    check_bands(weights)
    return weights


def _get_plan(db: Connection, backfill_id: str) -> tuple[Backfill, list[str]]:
    plan = backfill_rows.find_plan_by_id(db, backfill_id)
    if plan is None:
        raise NotInCatalog("no such backfill", subject=backfill_id, next_step="`cloudseg backfill` plans one.")
    return plan, backfill_rows.list_planned(db, backfill_id)


def _name(db: Connection, scene_ids: Sequence[str]) -> str:
    first = scene_rows.get_scene(db, scene_ids[0]).name
    return first if len(scene_ids) == 1 else f"{first} and {len(scene_ids) - 1} more"


def _planned(
    night: str,
    megapixels: int,
    *,
    weights: Weights | None = None,
    plan: Backfill | None = None,
    scenes: int = 0,
    waiting: int = 0,
    skip: str | None = None,
) -> BackfillPlanRecord:
    record = BackfillPlanRecord(
        skip=skip,
        backfill_id=plan.backfill_id if plan else None,
        weights_id=plan.weights_id if plan else weights.weights_id if weights else None,
        night=night,
        megapixels=megapixels,
        scenes=scenes,
        waiting=waiting,
    )
    log.ended("plan_backfill", record)
    return record


def _progress(
    runtime: Runtime,
    weights_id: str | None,
    *,
    began: float,
    backfill_id: str | None = None,
    switched: bool = False,
) -> BackfillRecord:
    months: list[Month] = []
    with runtime.catalog.read() as db:
        if weights_id is not None:
            weights = model_rows.get_weights(db, weights_id)
            months = backfill_rows.list_months(db, weights_id, bands=weights.required_bands)
        touched = backfill_rows.list_touched(db, backfill_id) if backfill_id else []
        readers_see = reader_rows.find_shown(db)
    return BackfillRecord(
        weights_id=weights_id,
        backfill_id=backfill_id,
        touched=touched,
        done=sum(month.done for month in months),
        total=sum(month.total for month in months),
        months=months,
        switched=switched,
        readers_see=readers_see,
        seconds=round(time.monotonic() - began, 3),
    )
