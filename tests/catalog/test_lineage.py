"""From a mask to the labels and source files of its model's training, in one query."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, event

from cloudseg.catalog import Catalog, model_rows, scene_rows, training_rows
from cloudseg.catalog.lineage import lineage_of_mask
from cloudseg.errors import NotInCatalog
from cloudseg.records import Label, Mask, Run, Scene, Snapshot, Weights

DAY = datetime(2024, 5, 1, tzinfo=UTC)


def stored(name: str) -> dict[str, Any]:
    return {"key": f"k/{name}", "sha256": f"sha-{name}", "size": 1}


def add_scene(db: Connection, name: str) -> str:
    scene = Scene(
        scene_id=f"sc-{name}",
        name=f"Scene {name}",
        layout="l",
        sensor="sentinel-2-l1c",
        radiometry="r",
        acquired_at=DAY,
        place=f"mgrs:{name}",
        crs="EPSG:32631",
        transform=[10, 0, 0, 0, -10, 0],
        height=1,
        width=1,
        resolution_m=10,
        bands=["red"],
        footprint_wkb=None,
        min_lon=None,
        min_lat=None,
        max_lon=None,
        max_lat=None,
        valid_fraction=1,
        publishable=True,
        source_uri=f"file:///{name}",
        source_sha256=f"source-{name}",
        tags={},
        created_at=DAY,
        **stored(name),
    )
    scene_rows.add_scene(db, scene)
    return scene.scene_id


def add_label(db: Connection, scene_id: str, name: str) -> str:
    label = Label(
        label_id=f"lb-{name}",
        scene_id=scene_id,
        version=0,
        source="analyst:eva",
        class_mapping={"1": 1},
        cloud_fraction=0.5,
        labelled_fraction=1,
        source_uri=f"file:///label-{name}",
        source_sha256=f"source-label-{name}",
        created_at=DAY,
        **stored(f"label-{name}"),
    )
    scene_rows.add_label(db, label)
    return label.label_id


def add_model(db: Connection, name: str, labels: dict[str, Any], parent: str | None = None) -> str:
    snapshot = Snapshot(
        snapshot_id=f"sn-{name}",
        manifest_key="m",
        manifest_sha256="ms",
        chip_size=64,
        bands=["red"],
        working_resolution_m=None,
        counts={},
        created_at=DAY,
    )
    training_rows.add_snapshot(db, snapshot, labels)
    run = Run(
        run_id=f"run-{name}",
        snapshot_id=snapshot.snapshot_id,
        recipe_name="nightly",
        recipe_hash="rh",
        recipe={},
        parent_weights_id=parent,
        seed=0,
        status="finished",
        device="cpu",
        device_reason="no GPU",
        error=None,
        created_at=DAY,
        finished_at=DAY,
    )
    training_rows.add_run(db, run)
    return add_weights(db, name, run.run_id, snapshot.snapshot_id)


def add_weights(db: Connection, name: str, run_id: str | None, snapshot_id: str | None) -> str:
    weights = Weights(
        weights_id=f"w-{name}",
        version=0,
        run_id=run_id,
        snapshot_id=snapshot_id,
        architecture="SimpleUNet",
        companions={},
        metadata={},
        created_at=DAY,
        **stored(f"w-{name}"),
    )
    model_rows.add_weights(db, weights)
    return weights.weights_id


def add_mask(db: Connection, scene_id: str, weights_id: str) -> str:
    mask = Mask(
        mask_id=f"mk-{weights_id}",
        scene_id=scene_id,
        weights_id=weights_id,
        threshold=0.5,
        cloud_fraction=0.3,
        valid_fraction=1,
        companions={},
        created_at=DAY,
        **stored("mask"),
    )
    model_rows.add_mask(db, mask)
    return mask.mask_id


@pytest.fixture
def world(catalog: Catalog) -> dict[str, str]:
    with catalog.begin() as db:
        target = add_scene(db, "target")
        first = {
            add_label(db, add_scene(db, name), name): split
            for name, split in (("a", "train"), ("b", "held_out"), ("c", "validation"))
        }
        second = first | {add_label(db, add_scene(db, "d"), "d"): "train"}
        old = add_model(db, "old", first)
        new = add_model(db, "new", second, parent=old)
        newest = add_model(db, "newest", second | {add_label(db, "sc-d", "d2"): "train"}, parent=new)
        imported = add_weights(db, "imported", None, None)
        return {
            "old": add_mask(db, target, old),
            "newest": add_mask(db, target, newest),
            "imported": add_mask(db, target, imported),
        }


def queries_of(catalog: Catalog, mask_id: str) -> tuple[dict[str, Any], int]:
    statements: list[str] = []
    event.listen(catalog.engine, "before_cursor_execute", lambda c, cur, statement, *rest: statements.append(statement))
    with catalog.read() as db:
        found = lineage_of_mask(db, mask_id)
    return found, sum(statement.lstrip().upper().startswith(("SELECT", "WITH")) for statement in statements)


def test_one_query_from_the_mask_to_the_source_files(catalog: Catalog, world: dict[str, str]) -> None:
    found, queries = queries_of(catalog, world["old"])
    assert queries == 1
    assert found["mask"]["mask_id"] == "mk-w-old"
    assert found["scene"]["source_sha256"] == "source-target"
    assert found["weights"] | {"weights_id": "w-old", "version": 1, "sha256": "sha-w-old"} == found["weights"]
    assert (
        found["run"] | {"recipe_name": "nightly", "recipe_hash": "rh", "device": "cpu", "device_reason": "no GPU"}
        == found["run"]
    )
    assert found["snapshot"]["snapshot_id"] == "sn-old"
    labels = {
        label["label_id"]: (label["split"], label["source_sha256"], label["scene"]["source_sha256"])
        for label in found["labels"]
    }
    assert labels == {
        "lb-a": ("train", "source-label-a", "source-a"),
        "lb-b": ("held_out", "source-label-b", "source-b"),
        "lb-c": ("validation", "source-label-c", "source-c"),
    }
    assert found["labels"][0]["scene"]["place"] == "mgrs:b"
    assert found["ancestors"] == []
    assert json.loads(json.dumps(found)) == found


def test_a_warm_start_has_its_ancestors(catalog: Catalog, world: dict[str, str]) -> None:
    found, queries = queries_of(catalog, world["newest"])
    assert queries == 2
    assert [(parent["weights_id"], parent["snapshot_id"]) for parent in found["ancestors"]] == [
        ("w-new", "sn-new"),
        ("w-old", "sn-old"),
    ]
    versions = {label["label_id"]: label["version"] for label in found["labels"]}
    assert versions == {"lb-a": 1, "lb-b": 1, "lb-c": 1, "lb-d": 1, "lb-d2": 2}


def test_imported_weights_have_no_run(catalog: Catalog, world: dict[str, str]) -> None:
    found, _ = queries_of(catalog, world["imported"])
    assert (found["run"], found["snapshot"], found["labels"], found["ancestors"]) == (None, None, [], [])
    assert found["weights"]["weights_id"] == "w-imported"


def test_unknown_mask(catalog: Catalog) -> None:
    with catalog.read() as db, pytest.raises(NotInCatalog, match="mk-nothing"):
        lineage_of_mask(db, "mk-nothing")
