"""Evaluate weights on one split of a snapshot: counts, metrics and report, stored once."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cloudseg import keys
from cloudseg.bands import REFLECTANCE_SCALE
from cloudseg.catalog import Catalog, label_rows, model_rows, scene_rows, training_rows
from cloudseg.catalog.session import now
from cloudseg.dataset.chips import open_chips
from cloudseg.evaluate.pictures import choose, draw_panels
from cloudseg.evaluate.report import Picture, Subject, citations, report_html, report_json
from cloudseg.evaluate.risk import promise_of
from cloudseg.evaluate.scene import (
    Evaluator,
    Facts,
    OnProgress,
    SplitCounts,
    chips_by_scene,
    evaluate_scenes,
)
from cloudseg.evaluate.scene_result import LabelUse
from cloudseg.evaluate.second_opinion import ask
from cloudseg.evaluate.small_masks import ASSET, pack_small
from cloudseg.evaluate.table import CountsTable, headline
from cloudseg.model.device import Device
from cloudseg.model.predictor import open_predictor
from cloudseg.publish import StagedObject, publish, stage_object
from cloudseg.raster.brightness import STEP
from cloudseg.records import Chip, Evaluation, Label, Scene, Snapshot, Split, Weights
from cloudseg.storage import Store
from cloudseg.teacher import Teacher

log = logging.getLogger(__name__)


def evaluate_weights(
    store: Store,
    catalog: Catalog,
    *,
    weights_id: str,
    snapshot_id: str,
    split: Split = "held_out",
    device: Device,
    teacher: Teacher | None = None,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Evaluate weights and store the report; the same weights on the same split are evaluated once.

    Memory: one forward pass and a few chips at a time, whatever the size of the scenes.

    Args:
        store: holds weights and chips; the report is written to it.
        catalog: the evaluation's row is written to it, after the bytes.
        weights_id: the weights.
        snapshot_id: the snapshot whose chips are predicted.
        split: the split of its chips.
        device: where to predict.
        teacher: a model of others whose agreement the report states; nothing is decided by it.
        on_progress: called with scenes done and the total number of scenes.

    Returns:
        The row of the evaluation, new or existing.

    Raises:
        NotInCatalog: the weights or the snapshot are unknown.
        DataError: the snapshot lacks a band that the weights need.
        EmptySplit: the split has no chips.
        SnapshotChanged: stored chips do not match the manifest.
        ObjectMissing: the store lacks the weights or a shard.
        ObjectCorrupt: the bytes of one do not match their checksum.
    """
    with catalog.read() as db:
        weights, snapshot = model_rows.get_weights(db, weights_id), training_rows.get_snapshot(db, snapshot_id)
        known = model_rows.find_evaluation(db, weights_id, snapshot_id, split)
    if known is not None:
        return known
    predictor = open_predictor(store, weights, device)
    log.info("evaluate: %s on %s of %s, %s", weights_id, split, snapshot_id, device.reason)
    with open_chips(store, snapshot) as chips:
        evaluator = Evaluator(
            chips, predictor, snapshot_id=snapshot_id, snapshot_resolution_m=snapshot.working_resolution_m
        )
        scenes = chips_by_scene(chips, split, snapshot_id)
        facts = _facts(catalog, snapshot_id, scenes)
        counted = evaluate_scenes(evaluator, scenes, facts, on_progress)
        subject = _subject(catalog, weights, snapshot, split, counted, list(facts.values()))
        if teacher is not None:
            opinion = ask(evaluator, scenes, facts, teacher, snapshot.working_resolution_m)
            subject = replace(subject, second_opinion=opinion)
        pictures = _pictures(evaluator, scenes, facts, counted, subject.evaluation_id)
    return _publish(store, catalog, subject, pictures, pack_small(counted.small))


def _facts(catalog: Catalog, snapshot_id: str, scenes: Mapping[str, list[Chip]]) -> dict[str, Facts]:
    """Return what is known about the scenes, with the labels that the snapshot has, whatever their state is today."""
    with catalog.read() as db:
        frozen = label_rows.list_of_snapshot(db, snapshot_id)
        return {scene_id: _facts_of(scene_rows.get_scene(db, scene_id), frozen[scene_id]) for scene_id in scenes}


def _facts_of(scene: Scene, labels: Sequence[Label]) -> Facts:
    used = tuple(LabelUse(label_id=label.label_id, version=label.version) for label in labels)
    return Facts(scene, labels[-1].source, " ".join(label.source_uri for label in labels), used)


def _subject(
    catalog: Catalog, weights: Weights, snapshot: Snapshot, split: Split, counted: SplitCounts, facts: Sequence[Facts]
) -> Subject:
    with catalog.read() as db:
        run = training_rows.find_run(db, weights.run_id) if weights.run_id else None
        epochs = training_rows.list_epochs(db, weights.run_id) if weights.run_id else []
    table = CountsTable(
        weights_id=weights.weights_id,
        snapshot_id=snapshot.snapshot_id,
        split=split,
        threshold=weights.metadata["threshold"],
        bright_from_reflectance=None if counted.bright_from is None else counted.bright_from * STEP / REFLECTANCE_SCALE,
        scenes=counted.scenes,
        curve=(counted.curve[0].tolist(), counted.curve[1].tolist()),
    )
    evaluation_id = keys.make_id("ev", weights.weights_id, snapshot.snapshot_id, split)
    metrics = headline(counted.scenes)
    # Nothing of the weights was chosen on these places, the threshold neither. Without an optional band the net errs
    # more, and the promise is one for masks that were made with all of them.
    if split == "held_out" and not weights.missing_bands(snapshot.bands):
        promise = promise_of(counted.places, threshold=table.threshold, evaluation_id=evaluation_id)
        metrics["promise"] = promise.as_json()
    return Subject(evaluation_id, weights, run, epochs, table, metrics, citations(facts))


def _pictures(
    evaluator: Evaluator,
    scenes: Mapping[str, list[Chip]],
    facts: Mapping[str, Facts],
    counted: SplitCounts,
    evaluation_id: str,
) -> list[Picture]:
    chosen = choose(counted.scenes, evaluation_id)
    return [
        Picture(c, draw_panels(evaluator, scenes[c.result.scene_id], facts[c.result.scene_id].scene)) for c in chosen
    ]


def _publish(store: Store, catalog: Catalog, subject: Subject, pictures: Sequence[Picture], small: bytes) -> Evaluation:
    def part(name: str, data: bytes) -> StagedObject:
        return stage_object(data, lambda sha256: keys.evaluation(subject.evaluation_id, name, sha256))

    named = {f"{picture.choice.why}-{n}": picture.png for n, picture in enumerate(pictures, start=1)}
    objects = {name: part(f"{name}.png", png) for name, png in named.items()}
    objects[ASSET] = part("masks.zip", small)
    objects["counts"] = part("counts.json", keys.canonical_json(subject.table.as_json()))
    objects["json"] = part("report.json", keys.canonical_json(report_json(subject)))
    objects["html"] = part("report.html", report_html(subject, pictures).encode())
    return publish(
        store,
        catalog,
        objects,
        lambda db, stored: model_rows.add_evaluation(
            db,
            Evaluation(
                evaluation_id=subject.evaluation_id,
                weights_id=subject.table.weights_id,
                snapshot_id=subject.table.snapshot_id,
                split=subject.table.split,
                threshold=subject.table.threshold,
                metrics=subject.metrics,
                report={name: entry.as_json() for name, entry in stored.items()},
                created_at=now(),
            ),
        ),
    )
