"""The app of the pages with a real catalog and store, and rows to show."""

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import Depends, HTTPException, Request
from fastapi.testclient import TestClient
from PIL import Image
from shapely import box, to_wkb

from cloudseg import keys
from cloudseg.catalog import Catalog, model_rows, scene_rows, training_rows
from cloudseg.records import (
    Epoch,
    Evaluation,
    Label,
    Mask,
    Promotion,
    Quarantined,
    Run,
    RunStatus,
    Scene,
    Snapshot,
    StoredObject,
    Verdict,
    Weights,
)
from cloudseg.runtime import Runtime, read_settings
from cloudseg.storage import LocalStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVIL = "<script>alert(1)</script>"


def login(request: Request) -> None:
    """Stand in for Airflow's login; the real one is tested in tests/tools/demo/test_standalone.py."""
    if request.headers.get("Authorization") != "Bearer good":
        raise HTTPException(401, "Not authenticated")


@pytest.fixture
def runtime(store: LocalStore, catalog: Catalog, tmp_path: Path) -> Runtime:
    return Runtime(settings=read_settings(), store=store, catalog=catalog, inbox=str(tmp_path / "inbox"), home=tmp_path)


@pytest.fixture
def client_of() -> Iterator[Callable[[Callable[[], Runtime]], TestClient]]:
    from cloudseg_ui.app import create_app

    opened: list[TestClient] = []

    def make(open_runtime: Callable[[], Runtime]) -> TestClient:
        client = TestClient(create_app(open_runtime, guards=[Depends(login)]), headers={"Authorization": "Bearer good"})
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.close()


@pytest.fixture
def client(runtime: Runtime, client_of: Callable[[Callable[[], Runtime]], TestClient]) -> TestClient:
    return client_of(lambda: runtime)


def _png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.radial_gradient("L").resize((96, 96)).point(lambda value: min(255, value + shade)).save(out, "PNG")
    return out.getvalue()


def _scene(number: int, stored: StoredObject) -> Scene:
    return Scene(
        scene_id=f"sc-{number:020x}",
        name=f"synthetic_{number}" if number else EVIL,
        layout="pairs",
        sensor="synthetic",
        radiometry="x",
        acquired_at=NOON,
        place="mgrs:31UDQ",
        crs="EPSG:32631",
        transform=[10, 0, 0, 0, -10, 0],
        height=64,
        width=64,
        resolution_m=10,
        bands=["red", "green", "blue"],
        footprint_wkb=to_wkb(box(0, 0, 1, 1)),
        min_lon=0,
        min_lat=0,
        max_lon=1,
        max_lat=1,
        valid_fraction=1,
        publishable=True,
        source_uri=f"file:///tiles/{number}.tif",
        source_sha256=f"{number:064x}",
        tags={},
        created_at=NOON,
        **stored.model_dump(),
    )


@pytest.fixture
def filled(runtime: Runtime) -> Runtime:
    """Two models (the first is champion), its masks, a running training, a file in quarantine.

    One name is an attack.
    """
    fill(runtime)
    return runtime


def fill(runtime: Runtime, *, scene_count: int = 3) -> None:
    """Write the rows and bytes."""
    store, blob = runtime.store, runtime.store.put("scenes/aa/scene.tif", b"scene")
    snapshot = Snapshot(
        snapshot_id="sn-1",
        manifest_key="snapshots/sn-1/manifest.json",
        manifest_sha256="0" * 64,
        chip_size=384,
        bands=["red"],
        working_resolution_m=None,
        counts={"chips": 1},
        created_at=NOON,
    )
    with runtime.catalog.begin() as db:
        for number in range(scene_count):
            scene_rows.add_scene(db, _scene(number, blob))
        label = Label(
            label_id="lb-1",
            scene_id=_scene(1, blob).scene_id,
            version=1,
            source="synthetic",
            class_mapping={},
            cloud_fraction=0.5,
            labelled_fraction=1,
            source_uri="file:///tiles/1.tif",
            source_sha256="1" * 64,
            created_at=NOON,
            **blob.model_dump(),
        )
        scene_rows.add_label(db, label)
        training_rows.add_snapshot(db, snapshot, {"lb-1": "train"})
        training_rows.add_run(db, _run("run-old", "finished"))
        training_rows.add_run(db, _run("run-now", "running"))
        for run_id in ("run-old", "run-now"):
            for epoch in range(1, 7):
                metrics = {"train_loss": 0.9 / epoch, "validation_iou": 1 - 1 / (epoch + 1)}
                training_rows.add_epoch(
                    db, Epoch(run_id=run_id, epoch=epoch, step=epoch * 50, metrics=metrics, created_at=NOON)
                )
        for number in (1, 2):
            _add_model(db, store, number)
        model_rows.add_promotion(
            db,
            Promotion(
                generation=1,
                weights_id="w-1",
                previous_weights_id=None,
                action="promote",
                verdict_id="ve-1",
                actor="x",
                reason="y",
                created_at=NOON,
            ),
        )
        for number in range(scene_count - 1):
            model_rows.add_mask(db, _mask(store, number))
        scene_rows.add_quarantined(
            db,
            Quarantined(
                quarantine_id="qu-1",
                name=f"{EVIL}.tif",
                source_uri="file:///inbox/bad.tif",
                source_sha256="2" * 64,
                error="BadScene",
                what="the file is truncated",
                found="1 024 bytes",
                expected=None,
                next_step="Copy it again.",
                created_at=NOON,
            ),
        )


def _run(run_id: str, status: RunStatus) -> Run:
    return Run(
        run_id=run_id,
        snapshot_id="sn-1",
        recipe_name="nightly",
        recipe_hash="0" * 64,
        recipe={},
        parent_weights_id=None,
        seed=0,
        status=status,
        device="cpu",
        device_reason="cpu: no GPU",
        error=None,
        created_at=NOON,
        finished_at=None,
    )


def _add_model(db: object, store: LocalStore, number: int) -> None:
    weights_id = f"w-{number}"
    blob = store.put(keys.weights(f"{number:064x}"), b"weights%d" % number)
    weights = Weights(
        weights_id=weights_id,
        version=0,
        run_id="run-old" if number == 1 else None,
        snapshot_id="sn-1",
        architecture="SimpleUNet",
        companions={},
        metadata={"recipe_name": "nightly", "bands": ["red"], "threshold": 0.5},
        created_at=NOON + timedelta(hours=number),
        **blob.model_dump(),
    )
    model_rows.add_weights(db, weights)
    html = store.put(f"evaluations/ev-{number}/report.abc.html", b"<h1>Report</h1><script>alert(2)</script>")
    report = {"html": html.model_dump()} if number == 1 else {}
    metrics = {"iou": 0.7 + number / 100, "f1": 0.8, "precision": 0.9, "recall": 0.85, "scene_mean": {"iou": 0.6}}
    evaluation = Evaluation(
        evaluation_id=f"ev-{number}",
        weights_id=weights_id,
        snapshot_id="sn-1",
        split="held_out",
        threshold=0.5,
        metrics=metrics,
        report=report,
        created_at=NOON,
    )
    model_rows.add_evaluation(db, evaluation)
    body = {"reasons": ["better than the trivial masks"] if number == 1 else [f"the difference is noise {EVIL}"]}
    verdict = Verdict(
        verdict_id=f"ve-{number}",
        challenger_id=weights_id,
        champion_id=None if number == 1 else "w-1",
        outcome="PROMOTE" if number == 1 else "HOLD",
        body=body,
        created_at=NOON,
    )
    model_rows.add_verdict(db, verdict)


def _mask(store: LocalStore, number: int) -> Mask:
    blob = store.put(f"masks/w-1/{number}.tif", b"mask%d" % number)
    # Masks of earlier releases have a PNG; its content does not matter here.
    picture = store.put(f"masks/w-1/{number}.{'webp' if number == 0 else 'png'}", _png(number * 20))
    return Mask(
        mask_id=f"mk-{number}",
        scene_id=f"sc-{number:020x}",
        weights_id="w-1",
        threshold=0.5,
        cloud_fraction=0.25,
        valid_fraction=1.0,
        companions={"thumbnail": picture.model_dump()},
        created_at=NOON,
        **blob.model_dump(),
    )
