"""Plausible rows for tests of the catalog, with every field set and ids derived from a number."""

from datetime import UTC, datetime, timedelta

from shapely import box, to_wkb
from sqlalchemy import Connection, select

from cloudseg.catalog import Catalog, model_rows, scene_rows, tables, training_rows
from cloudseg.catalog.session import fetch
from cloudseg.keys import sha256_of
from cloudseg.records import (
    Decision,
    Epoch,
    Evaluation,
    Label,
    Mask,
    Promotion,
    Quarantined,
    ReaderSwitch,
    Run,
    Scene,
    SceneBrightness,
    Snapshot,
    Verdict,
    Weights,
)

START = datetime(2024, 6, 1, 10, 30, tzinfo=UTC)


def _stored(kind: str, number: int) -> dict[str, object]:
    sha256 = sha256_of(f"{kind} {number}".encode())
    return {"key": f"{kind}/{sha256}.bin", "sha256": sha256, "size": 3_000_000_000 + number}


def labels_of(db: Connection, scene_id: str) -> list[Label]:
    """Return every label of a scene, newest version first; the library asks for the newest only."""
    statement = select(tables.label).where(tables.label.c.scene_id == scene_id).order_by(tables.label.c.version.desc())
    return fetch(db, Label, statement)


def scene(number: int, **other: object) -> Scene:
    values = {
        "scene_id": f"sc-{number:020d}",
        "name": f"synthetic_{number}",
        "layout": "pairs",
        "sensor": "unknown",
        "radiometry": "scale tag",
        "acquired_at": START + timedelta(days=number),
        "place": f"mgrs:31U{chr(65 + number % 26)}Q",
        "crs": "EPSG:32631",
        "transform": [30.0, 0.0, 400_000.5, 0.0, -30.0, 5_000_000.25],
        "height": 512,
        "width": 500,
        "resolution_m": 30.0,
        "bands": ["red", "green", "blue"],
        "footprint_wkb": to_wkb(box(1.5, 45.0, 1.7, 45.2)),
        "min_lon": 1.5,
        "min_lat": 45.0,
        "max_lon": 1.7,
        "max_lat": 45.2,
        "valid_fraction": 1.0,
        "publishable": True,
        "source_uri": f"file:///in/{number}.tif",
        "source_sha256": sha256_of(f"source {number}".encode()),
        **_stored("scenes", number),
        "tags": {"synthetic": "yes"},
        "created_at": START + timedelta(hours=number),
    }
    return Scene.model_validate({**values, **other})


def label(number: int, of: int, **other: object) -> Label:
    values = {
        "label_id": f"lb-{number:020d}",
        "scene_id": f"sc-{of:020d}",
        "version": 0,
        "source": "synthetic",
        "class_mapping": {"0": 0, "1": 1},
        "cloud_fraction": 0.25,
        "labelled_fraction": 1.0,
        "source_uri": f"file:///in/l{number}.tif",
        "source_sha256": sha256_of(f"label {number}".encode()),
        **_stored("labels", number),
        "created_at": START,
    }
    return Label.model_validate({**values, **other})


def snapshot(number: int = 1) -> Snapshot:
    return Snapshot(
        snapshot_id=f"sn-{number}",
        manifest_key=f"snapshots/sn-{number}/manifest.json",
        manifest_sha256=sha256_of(b"m"),
        chip_size=384,
        bands=["red", "green", "blue"],
        working_resolution_m=None,
        counts={"chips": 3},
        created_at=START,
    )


def run(number: int = 1) -> Run:
    return Run(
        run_id=f"run-{number}",
        snapshot_id="sn-1",
        recipe_name="seed",
        recipe_hash="h",
        recipe={"name": "seed"},
        parent_weights_id=None,
        seed=2**31 - 1,
        status="running",
        device="cpu",
        device_reason="no GPU",
        error=None,
        created_at=START,
        finished_at=None,
    )


def epoch(number: int) -> Epoch:
    return Epoch(
        run_id="run-1",
        epoch=number,
        step=10 * number,
        metrics={"train_loss": 0.5, "validation_iou": None},
        created_at=START,
    )


def weights(number: int, *, run_id: str | None = None) -> Weights:
    companions = {"onnx": {"key": "models/x/model.onnx", "sha256": "0" * 64, "size": 1}}
    return Weights(
        weights_id=f"w-{number}",
        version=0,
        run_id=run_id,
        snapshot_id="sn-1" if run_id else None,
        architecture="SimpleUNet",
        **_stored("models", number),
        companions=companions,
        metadata={"threshold": 0.5},
        created_at=START + timedelta(hours=number),
    )


def evaluation(number: int, of: int) -> Evaluation:
    return Evaluation(
        evaluation_id=f"ev-{number}",
        weights_id=f"w-{of}",
        snapshot_id="sn-1",
        split="held_out",
        threshold=0.5,
        metrics={"pooled": {"iou": 0.7}},
        report={},
        created_at=START,
    )


def verdict(number: int, challenger: int) -> Verdict:
    return Verdict(
        verdict_id=f"ve-{number}",
        challenger_id=f"w-{challenger}",
        champion_id=None,
        outcome="PROMOTE",
        body={"reasons": []},
        created_at=START,
    )


def decision(number: int, kind: str = "asked", **other: object) -> Decision:
    values = {"verdict_id": f"ve-{number}", "decision": kind, "actor": "test", "reason": "", "created_at": START}
    return Decision.model_validate({**values, **other})


def promotion(generation: int, of: int, previous: int | None = None) -> Promotion:
    return Promotion(
        generation=generation,
        weights_id=f"w-{of}",
        previous_weights_id=None if previous is None else f"w-{previous}",
        action="promote",
        verdict_id=None,
        actor="test",
        reason="because",
        created_at=START + timedelta(days=generation),
    )


def mask(number: int, of: int, by: int) -> Mask:
    companions = {
        name: {"key": f"masks/{number}/{name}", "sha256": "0" * 64, "size": 1}
        for name in ("probability", "thumbnail", "item")
    }
    return Mask(
        mask_id=f"mk-{number}",
        scene_id=f"sc-{of:020d}",
        weights_id=f"w-{by}",
        threshold=0.5,
        cloud_fraction=0.3,
        valid_fraction=1.0,
        **_stored("masks", number),
        companions=companions,
        created_at=START,
    )


def reader_switch(sequence: int, of: int | None) -> ReaderSwitch:
    return ReaderSwitch(
        sequence=sequence,
        action="switch",
        mode="newest" if of is None else "hold",
        weights_id=None if of is None else f"w-{of}",
        effective_at=START + timedelta(days=sequence),
        actor="test",
        reason="because",
        created_at=START + timedelta(days=sequence),
    )


def quarantined(number: int, **other: object) -> Quarantined:
    values = {
        "quarantine_id": f"qu-{number}",
        "name": "bad.tif",
        "source_uri": "file:///in/bad.tif",
        "source_sha256": "0" * 64,
        "error": "BadScene",
        "what": "no CRS",
        "found": "none",
        "expected": None,
        "next_step": "Give it one.",
        "created_at": START,
    }
    return Quarantined.model_validate({**values, **other})


def brightness(of: int, reflectance: float | None = 0.2) -> SceneBrightness:
    return SceneBrightness(scene_id=f"sc-{of:020d}", reflectance=reflectance, created_at=START)


def fill(catalog: Catalog) -> None:
    """Add two scenes (one labeled twice), a snapshot, a run, two weights, two promotions and two masks."""
    with catalog.begin() as db:
        scene_rows.add_scene(db, scene(1))
        scene_rows.add_scene(db, scene(2, min_lon=179.9, max_lon=-179.9, acquired_at=None, crs=None))
        scene_rows.add_label(db, label(1, of=1))
        scene_rows.add_label(db, label(2, of=1))
        scene_rows.decide_places(db, {"mgrs:31UBQ": "train"})
        scene_rows.add_quarantined(db, quarantined(1))
        training_rows.add_snapshot(db, snapshot(), {label(2, of=1).label_id: "train"})
        training_rows.add_run(db, run())
        training_rows.add_epoch(db, epoch(1))
        model_rows.add_weights(db, weights(1, run_id="run-1"))
        model_rows.add_weights(db, weights(2))
        model_rows.add_evaluation(db, evaluation(1, of=1))
        model_rows.add_verdict(db, verdict(1, challenger=1))
        model_rows.add_decision(db, decision(1))
        model_rows.add_promotion(db, promotion(1, of=2))
        model_rows.add_promotion(db, promotion(2, of=1, previous=2))
        model_rows.add_mask(db, mask(1, of=1, by=1))
        model_rows.add_mask(db, mask(2, of=1, by=2))
