"""The figures that say how the service is: one read of the catalog, for `cloudseg metrics`, alerts and pages.

Every figure has its unit and its source in its description, from which docs/reference/figures.md is written. A figure
that cannot be known is None; nothing is invented. With a million scenes and masks the whole read takes less than a
second (docs/how-to/monitoring.md has the times).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydantic import AwareDatetime, Field
from sqlalchemy import Connection

from cloudseg.catalog import Catalog, figure_rows, label_rows, model_rows, reader_rows, scene_rows
from cloudseg.catalog import tables as t
from cloudseg.catalog.session import now
from cloudseg.monitor.alerts import ALERTS
from cloudseg.records import Evaluation, Record, Weights

DAY: Final = timedelta(days=1)
WEEK: Final = timedelta(days=7)
MOST_NEW_SCENES: Final = 10_000
"""Scenes of the last seven days that are read, the newest; a figure from more of them is about these only."""
_OBJECTS: Final = (t.scene, t.label, t.mask, t.weights, t.evaluation, t.checkpoint)


@dataclass(frozen=True)
class Prices:
    """What an hour of computing costs; None: not known, so no cost is reported."""

    gpu_hour: float | None = None
    cpu_hour: float | None = None


class ModelFigures(Record):
    """A model and how good it is."""

    weights_id: str
    version: int = Field(description="version of the weights. Source: weights.version")
    iou: float | None = Field(
        description="held-out IoU of cloud, pooled over all pixels, 0 to 1. Source: the evaluation on the held-out "
        "split of the newest verdict's snapshot, else the newest one on any; None without an evaluation"
    )
    iou_lower: float | None = Field(
        description="5 % quantile of the same IoU over bootstrap draws of places, so that the true value is above it "
        "with 95 % confidence. Source: evaluation.metrics.iou_bounds; None with a single place"
    )
    iou_upper: float | None = Field(description="95 % quantile of the same draws. Source: as iou_lower")


class MaskFigures(Record):
    """Masks that were made and that are missing."""

    total: int = Field(description="masks published, by all models. Source: rows of mask")
    last_day: int = Field(
        description="masks published in the last 24 hours, those of the backfill too. Source: mask.created_at"
    )
    last_week: int = Field(description="masks published in the last 7 days. Source: mask.created_at")
    outside_last_week: int = Field(
        description="masks of the last 7 days whose scene is not as bright as any training scene. Source: "
        "mask.radiometry, mask.created_at"
    )
    compared_last_week: int = Field(
        description="masks of the last 7 days whose scene was compared with the training scenes: not those of weights "
        "without a range, and not older masks. Source: as outside_last_week"
    )
    waiting: int = Field(
        description="publishable scenes of the last 7 days that no model has masked and that have the champion's "
        "bands; a backfill does not change it. Source: scene.created_at, mask.created_at; of the newest 10 000 scenes"
    )
    oldest_waiting_at: AwareDatetime | None = Field(
        description="when the first of the scenes that wait was ingested. Source: scene.created_at; None if none waits"
    )
    without_champion: int | None = Field(
        description="publishable scenes of any age without a mask of the champion: after a promotion, what is left for "
        "the backfill. Source: rows of scene minus rows of mask; scenes that lack a band of the model count too; None "
        "without a champion"
    )


class Latency(Record):
    """How long scenes took to their first mask.

    Ingested is scene.created_at, masked is the smallest mask.created_at of the scene. Only scenes that were ingested in
    the window count, so masks that a backfill makes of older scenes are not in it; scenes that still wait are not
    either (`masks.oldest_waiting_at` tells about those).
    """

    scenes: int = Field(description="scenes of the window that have a mask")
    p50_s: float | None = Field(description="seconds within which half of them had it; nearest rank")
    p95_s: float | None = Field(description="seconds within which 95 % of them had it; nearest rank")


class IngestFigures(Record):
    """What came in."""

    newest_at: AwareDatetime | None = Field(
        description="when ingest last took something in. Source: the newest created_at of scene, label and quarantine. "
        "An ingest that found an empty inbox leaves no row: whether it runs is known to Airflow"
    )
    quarantine: int = Field(description="files in quarantine now. Source: rows of quarantine")
    quarantine_last_day: int = Field(
        description="files in quarantine that were added in the last 24 hours. Source: quarantine.created_at"
    )
    scenes_last_day: int = Field(
        description="scenes that were ingested in the last 24 hours, publishable or not. Source: scene.created_at"
    )


class NightFigures(Record):
    """Whether retraining keeps up."""

    newest_at: AwareDatetime | None = Field(
        description="the last good night: when weights that were trained here last got a verdict, whatever it was. "
        "Source: verdict.created_at. A night that skips because no label is new leaves no row"
    )
    due_since: AwareDatetime | None = Field(
        description="since when a retraining is due and none came to a verdict: the later of newest_at and of when "
        "the first of the labels in labels.new was accepted or withdrawn; None while no label is new, which is as good "
        "as a good night. New labels that add no chip keep it due"
    )


class LabelFigures(Record):
    """Labels that wait."""

    proposed: int = Field(description="labels that wait for a person. Source: label_event, newest state proposed")
    new: int = Field(
        description="accepted labels that the snapshot of the newest compared run lacks, and labels of it that were "
        "withdrawn: what the next night would learn. Source: label_event, snapshot_label, verdict"
    )


class ApprovalFigures(Record):
    """Requests that wait for a person."""

    waiting: int = Field(
        description="challengers with a request for approval that can be granted: not rejected, never promoted, "
        "compared with the current champion. Source: decision, verdict, promotion"
    )
    oldest_at: AwareDatetime | None = Field(
        description="when the first of them was requested. Source: decision.created_at"
    )


class ByteFigures(Record):
    """Bytes that are kept."""

    store: int = Field(
        description="bytes of scenes, labels, masks with their assets, weights, reports and checkpoints in the store, "
        "as their rows say; without shards of snapshots, the STAC catalog and orphans. Source: size, companions, report"
    )
    store_is_exact: bool = Field(
        description="whether every row was read. Of a table with more than 1000 rows 1000 are read, and their mean is "
        "multiplied by the number of rows"
    )
    catalog: int | None = Field(
        description="bytes of the catalog: pg_database_size, or the SQLite file with its write-ahead log"
    )


class ComputeFigures(Record):
    """What training costs. Evaluation and prediction are in Airflow's durations of tasks, not in the catalog."""

    gpu_s: float = Field(
        description="seconds of training on a GPU by runs that began in the last 24 hours, all tries, without pauses; "
        "a run on several GPUs counts once. Source: seconds in the newest epoch.metrics; run.device"
    )
    cpu_s: float = Field(description="the same for runs without a GPU, in seconds of the machine, not of a core")
    gpu_week_s: float = Field(description="seconds of training on a GPU by runs that began in the last 7 days")
    cpu_week_s: float = Field(description="the same for runs without a GPU")
    night_cost: float | None = Field(
        description="gpu_s and cpu_s at CLOUDSEG_GPU_HOUR_PRICE and CLOUDSEG_CPU_HOUR_PRICE, in the currency of the "
        "prices; None if a price that it needs is not set"
    )
    mask_cost: float | None = Field(
        description="gpu_week_s and cpu_week_s at these prices, divided by the masks of the last 7 days; None without "
        "a price or a mask"
    )


class Figures(Record):
    """Everything that is measured, at one moment."""

    at: AwareDatetime = Field(description="when the catalog was read")
    champion: ModelFigures | None
    champion_since: AwareDatetime | None = Field(
        description="when the champion was promoted or rolled back to. Source: promotion.created_at"
    )
    challenger: ModelFigures | None = Field(
        description="the weights of the newest verdict; they are the champion if it promoted them"
    )
    masks: MaskFigures
    latency_day: Latency = Field(description="scenes that were ingested in the last 24 hours")
    latency_week: Latency = Field(description="scenes that were ingested in the last 7 days")
    ingest: IngestFigures
    night: NightFigures
    labels: LabelFigures
    approvals: ApprovalFigures
    alerts: dict[str, int] = Field(
        description="alerts that are open, by name; 0 where none is. Source: alert, as of the newest run of the DAG "
        "cloudseg_watch"
    )
    bytes: ByteFigures
    compute: ComputeFigures


def read_figures(catalog: Catalog, *, prices: Prices | None = None, at: datetime | None = None) -> Figures:
    """Read every figure in one transaction.

    Args:
        catalog: its rows; nothing else is read but the size of a SQLite file.
        prices: of an hour of computing; None: none is known.
        at: the moment to which "the last 24 hours" refers; None: now.
    """
    moment = at or now()
    with catalog.read() as db:
        latest = figure_rows.find_newest_trained_verdict(db)
        newest = figure_rows.find_newest_verdict(db)
        snapshot_id = str(newest.body.get("snapshot_id")) if newest else None
        promotion = model_rows.find_champion(db)
        champion = model_rows.get_weights(db, promotion.weights_id) if promotion else None
        scenes = figure_rows.list_new_scenes(db, moment - WEEK, limit=MOST_NEW_SCENES)
        masks = _masks(db, champion, scenes, moment)
        learned = latest.snapshot_id if latest else None
        return Figures(
            at=moment,
            champion=_model(db, champion, snapshot_id) if champion else None,
            champion_since=promotion.created_at if promotion else None,
            challenger=_model(db, model_rows.get_weights(db, newest.challenger_id), snapshot_id) if newest else None,
            masks=masks,
            latency_day=_latency([scene for scene in scenes if scene.ingested_at >= moment - DAY]),
            latency_week=_latency(scenes),
            ingest=measure_ingest(db, moment),
            night=measure_night(db, learned, latest.created_at if latest else None),
            labels=measure_labels(db, learned),
            approvals=_approvals(db),
            alerts={kind.name: 0 for kind in ALERTS.values() if kind.lasts} | figure_rows.count_open_alerts(db),
            bytes=_bytes(db, catalog, masks.total),
            compute=_compute(db, prices or Prices(), moment, masks.last_week),
        )


def _model(db: Connection, weights: Weights, snapshot_id: str | None) -> ModelFigures:
    """Return figures of a model from its evaluation on a snapshot, else from its newest one."""
    found = [entry for entry in model_rows.list_evaluations(db, weights.weights_id) if entry.split == "held_out"]
    chosen: Evaluation | None = next((e for e in found if e.snapshot_id == snapshot_id), found[0] if found else None)
    metrics = chosen.metrics if chosen else {}
    lower, upper = metrics.get("iou_bounds") or (None, None)
    return ModelFigures(
        weights_id=weights.weights_id,
        version=weights.version,
        iou=metrics.get("iou"),
        iou_lower=lower,
        iou_upper=upper,
    )


def _masks(
    db: Connection, champion: Weights | None, scenes: Sequence[figure_rows.NewScene], moment: datetime
) -> MaskFigures:
    needed = set(champion.required_bands) if champion else set()
    waiting = [scene.ingested_at for scene in scenes if scene.masked_at is None and needed <= set(scene.bands)]
    radiometry = figure_rows.count_radiometry(db, moment - WEEK)
    return MaskFigures(
        total=figure_rows.count_rows(db, t.mask),
        last_day=figure_rows.count_masks_since(db, moment - DAY),
        last_week=figure_rows.count_masks_since(db, moment - WEEK),
        outside_last_week=radiometry.outside,
        compared_last_week=radiometry.compared,
        waiting=len(waiting),
        oldest_waiting_at=min(waiting, default=None),
        without_champion=figure_rows.count_unmasked(db, champion.weights_id) if champion else None,
    )


def _latency(scenes: Sequence[figure_rows.NewScene]) -> Latency:
    took = sorted((s.masked_at - s.ingested_at).total_seconds() for s in scenes if s.masked_at is not None)
    return Latency(scenes=len(took), p50_s=_quantile(took, 0.5), p95_s=_quantile(took, 0.95))


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least this share of the values does not exceed (nearest rank)."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None


def measure_ingest(db: Connection, moment: datetime) -> IngestFigures:
    """Return what came in until a moment."""
    quarantine = figure_rows.count_quarantine(db, moment - DAY)
    times = (figure_rows.find_newest_scene_at(db), figure_rows.find_newest_label_at(db), quarantine.newest_at)
    return IngestFigures(
        newest_at=max((found for found in times if found is not None), default=None),
        quarantine=quarantine.files,
        quarantine_last_day=quarantine.since,
        scenes_last_day=figure_rows.count_scenes_since(db, moment - DAY),
    )


def measure_night(db: Connection, learned: str | None, newest_at: datetime | None) -> NightFigures:
    """Return whether retraining keeps up.

    Args:
        db: a transaction.
        learned: the snapshot that the last good night used; None: there was none.
        newest_at: when that night ended.
    """
    due = label_rows.find_oldest_change(db, learned)
    return NightFigures(newest_at=newest_at, due_since=None if due is None else max(due, newest_at or due))


def measure_labels(db: Connection, learned: str | None) -> LabelFigures:
    """Return the labels that wait.

    Args:
        db: a transaction.
        learned: the snapshot that the last good night used; None: there was none.
    """
    return LabelFigures(proposed=label_rows.count_in_state(db, "proposed"), new=label_rows.count_changes(db, learned))


def list_late(db: Connection, until: datetime) -> list[scene_rows.WaitingScene]:
    """List the scenes of any age that should have a mask and have none of any model, oldest first.

    Those count that have the bands of the model whose masks readers see. Masks of a new champion for older scenes are
    not late: readers see the earlier ones meanwhile. `MaskFigures.waiting` counts the young ones only, to stay fast.

    Args:
        db: a transaction.
        until: when they were ingested and the first champion was promoted, at the latest.
    """
    shown, history = reader_rows.find_shown(db), model_rows.list_promotions(db)
    if shown is None or not history or history[-1].created_at > until:
        return []
    return scene_rows.list_never_masked(db, model_rows.get_weights(db, shown).required_bands, until)


def _approvals(db: Connection) -> ApprovalFigures:
    waiting, oldest_at = figure_rows.count_open_requests(db)
    return ApprovalFigures(waiting=waiting, oldest_at=oldest_at)


def _bytes(db: Connection, catalog: Catalog, masks: int) -> ByteFigures:
    rows = {table.name: masks if table is t.mask else figure_rows.count_rows(db, table) for table in _OBJECTS}
    sizes = [figure_rows.measure_objects(db, table, rows[table.name]) for table in _OBJECTS]
    return ByteFigures(
        store=round(sum(found.size for found in sizes)),
        store_is_exact=all(found.is_exact for found in sizes),
        catalog=figure_rows.database_bytes(db) or _file_bytes(catalog),
    )


def _file_bytes(catalog: Catalog) -> int | None:
    """Return the bytes of a SQLite catalog with its write-ahead log, None for one in memory."""
    path = catalog.file
    if path is None or not path.is_file():
        return None
    log = path.with_name(f"{path.name}-wal")
    return path.stat().st_size + (log.stat().st_size if log.is_file() else 0)


def _compute(db: Connection, prices: Prices, moment: datetime, masks: int) -> ComputeFigures:
    week = figure_rows.list_run_seconds(db, moment - WEEK)
    night = [run for run in week if run.began_at >= moment - DAY]
    cost = _cost(week, prices)
    return ComputeFigures(
        gpu_s=_seconds(night, gpu=True),
        cpu_s=_seconds(night, gpu=False),
        gpu_week_s=_seconds(week, gpu=True),
        cpu_week_s=_seconds(week, gpu=False),
        night_cost=_cost(night, prices),
        mask_cost=None if cost is None or not masks else cost / masks,
    )


def _seconds(runs: Sequence[figure_rows.RunSeconds], *, gpu: bool) -> float:
    return sum(run.seconds for run in runs if (run.device == "cuda") == gpu)


def _cost(runs: Sequence[figure_rows.RunSeconds], prices: Prices) -> float | None:
    """Return what runs cost, None if a price is missing, also where no run needs it: no price, no figure."""
    total, known = 0.0, False
    for gpu, price in ((True, prices.gpu_hour), (False, prices.cpu_hour)):
        seconds = _seconds(runs, gpu=gpu)
        if price is None and seconds:
            return None
        known = known or price is not None
        total += (price or 0.0) * seconds / 3600
    return total if known else None
