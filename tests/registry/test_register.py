"""Bytes first, row last; the same weights once; versions in order."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pystac
import pystac.validation
import pytest
from markdown_it import MarkdownIt

from cloudseg import keys
from cloudseg.catalog import Catalog, model_rows
from cloudseg.catalog.extent import training_extent
from cloudseg.catalog.scene_rows import add_label, add_scene
from cloudseg.catalog.training_rows import add_run
from cloudseg.catalog.training_rows import add_snapshot as insert_snapshot
from cloudseg.errors import InputError, StateError
from cloudseg.records import Label, Run, Scene, Snapshot, StoredObject, Weights
from cloudseg.registry import register
from cloudseg.registry.card import model_card
from cloudseg.stac.model import weights_item
from cloudseg.storage import LocalStore
from tests.stac_schemas import validate_extensions

DAY = datetime(2018, 7, 1, 10, 30, tzinfo=UTC)
METADATA = {
    "architecture": "SimpleUNet",
    "bands": ["red", "green", "blue"],
    "widths": [8, 16],
    "clip": 0.6,
    "mean": [0.2],
    "std": [0.1, 0.2, 0.3],
    "threshold": 0.45,
    "total_parameters": 1234,
    "recipe_hash": "ab" * 32,
    "metrics": {"validation_iou": 0.71234567},
}


def publish(
    store: LocalStore,
    catalog: Catalog,
    data: bytes = b"weights",
    *,
    run_id: str | None = None,
    snapshot_id: str | None = None,
    companions: Mapping[str, tuple[str, bytes]] | None = None,
    **changes: object,
) -> Weights:
    return register(
        store,
        catalog,
        weights=data,
        metadata=METADATA | changes,
        companions=companions or {},
        run_id=run_id,
        snapshot_id=snapshot_id,
        architecture="SimpleUNet",
    )


def add_snapshot(catalog: Catalog, bounds: list[tuple[float, float, float, float]]) -> str:
    """A snapshot that trains on scenes with these bounds; the first is held out."""
    snapshot = Snapshot(
        snapshot_id="sn-1",
        manifest_key="k",
        manifest_sha256="0",
        chip_size=32,
        bands=["red"],
        working_resolution_m=None,
        counts={},
        created_at=DAY,
    )
    with catalog.begin() as db:
        for n, (west, south, east, north) in enumerate(bounds):
            stored = {"key": "k", "sha256": "0", "size": 1}
            add_scene(
                db,
                Scene(
                    scene_id=f"sc-{n}",
                    name="n",
                    layout="l",
                    sensor="s",
                    radiometry="r",
                    acquired_at=DAY.replace(day=n + 1),
                    place="p",
                    crs=None,
                    transform=[1, 0, 0, 0, 1, 0],
                    height=1,
                    width=1,
                    resolution_m=None,
                    bands=["red"],
                    footprint_wkb=None,
                    min_lon=west,
                    min_lat=south,
                    max_lon=east,
                    max_lat=north,
                    valid_fraction=1,
                    publishable=True,
                    source_uri="u",
                    source_sha256=str(n),
                    tags={},
                    created_at=DAY,
                    **stored,
                ),
            )
            add_label(
                db,
                Label(
                    label_id=f"lb-{n}",
                    scene_id=f"sc-{n}",
                    version=1,
                    source="s",
                    class_mapping={},
                    cloud_fraction=0.5,
                    labelled_fraction=1,
                    source_uri="u",
                    source_sha256=str(n),
                    created_at=DAY,
                    **stored,
                ),
            )
        insert_snapshot(db, snapshot, {f"lb-{n}": "train" if n else "held_out" for n in range(len(bounds))})
    return snapshot.snapshot_id


def add_training(catalog: Catalog, run_id: str, snapshot_id: str) -> None:
    run = Run(
        run_id=run_id,
        snapshot_id=snapshot_id,
        recipe_name="smoke",
        recipe_hash="h",
        recipe={},
        parent_weights_id=None,
        seed=0,
        status="running",
        device="cpu",
        device_reason="test",
        error=None,
        created_at=DAY,
        finished_at=None,
    )
    with catalog.begin() as db:
        add_run(db, run)


def test_versions_count_up_and_the_same_bytes_are_one_row(store: LocalStore, catalog: Catalog) -> None:
    one, two = publish(store, catalog), publish(store, catalog, b"other")
    assert (one.version, two.version) == (1, 2)
    assert publish(store, catalog) == one
    assert one.weights_id == keys.id_from_hash("w", one.sha256)
    assert store.get(one.key, one.sha256) == b"weights"


def test_companions_are_stored_beside_the_weights(store: LocalStore, catalog: Catalog) -> None:
    row = publish(
        store, catalog, companions={"onnx": ("model.onnx", b"onnx bytes"), "golden": ("golden.safetensors", b"sample")}
    )
    assert sorted(row.companions) == ["card", "golden", "item", "onnx"]
    for entry in row.companions.values():
        stored = StoredObject.model_validate(entry)
        assert len(store.get(stored.key, stored.sha256)) == stored.size
        assert Path(stored.key).parent == Path(row.key).parent


def test_the_callers_own_card_is_kept(store: LocalStore, catalog: Catalog) -> None:
    row = publish(store, catalog, companions={"card": ("card.md", b"# mine")})
    assert store.get(row.companions["card"]["key"]) == b"# mine"


@pytest.mark.parametrize("threshold", [None, "0.5", -0.1, 1.5, float("nan")])
def test_a_threshold_is_needed(store: LocalStore, catalog: Catalog, threshold: object) -> None:
    with pytest.raises(InputError, match="threshold"):
        publish(store, catalog, threshold=threshold)
    assert list(store.list_keys()) == []


def test_a_run_has_one_result(store: LocalStore, catalog: Catalog) -> None:
    add_training(catalog, "run-1", add_snapshot(catalog, [(0, 0, 1, 1), (2, 2, 3, 3)]))
    first = publish(store, catalog, run_id="run-1", snapshot_id="sn-1")
    assert publish(store, catalog, run_id="run-1", snapshot_id="sn-1") == first
    with pytest.raises(StateError, match=first.weights_id):
        publish(store, catalog, b"other", run_id="run-1", snapshot_id="sn-1")
    with catalog.read() as db:
        assert model_rows.list_weights(db) == [first]


def test_killed_before_the_row_it_recovers(store: LocalStore, catalog: Catalog, tmp_path: Path) -> None:
    there = publish(store, catalog)
    other = Catalog(f"sqlite:///{tmp_path / 'other.db'}")
    other.upgrade()
    again = publish(store, other)
    assert (again.weights_id, again.companions) == (there.weights_id, there.companions)


def test_extent_covers_the_training_scenes_only(catalog: Catalog) -> None:
    add_snapshot(catalog, [(-50, -50, 60, 60), (2, 2, 3, 3), (5, -4, 6, -3)])
    with catalog.read() as db:
        extent = training_extent(db, "sn-1")
    assert extent.bounds == (2, -4, 6, 3)
    assert (extent.begins_at, extent.ends_at, extent.scenes) == (DAY.replace(day=2), DAY.replace(day=3), 2)


def test_extent_across_the_antimeridian_spans_the_world(catalog: Catalog) -> None:
    add_snapshot(catalog, [(0, 0, 1, 1), (2, 2, 3, 3), (179, -4, -179, -3)])
    with catalog.read() as db:
        assert training_extent(db, "sn-1").bounds == (-180, -4, 180, 3)


@pytest.mark.parametrize("trained", [True, False])
def test_the_item_is_valid_stac_with_the_mlm_fields(store: LocalStore, catalog: Catalog, trained: bool) -> None:
    snapshot_id = add_snapshot(catalog, [(0, 0, 1, 1), (2, 2, 3, 3)]) if trained else None
    row = publish(store, catalog, snapshot_id=snapshot_id, companions={"onnx": ("model.onnx", b"onnx")})
    item = json.loads(store.get(row.companions["item"]["key"]))
    core = {key: value for key, value in item.items() if key != "stac_extensions"}
    pystac.validation.validate_dict(core, extensions=[])
    assert item["id"] == row.weights_id
    assert item.get("bbox") == ([2, 2, 3, 3] if trained else None)
    found = item["properties"]
    assert found["mlm:total_parameters"] == 1234
    assert found["mlm:input"][0]["bands"] == ["red", "green", "blue"]
    assert [scaling["stddev"] for scaling in found["mlm:input"][0]["value_scaling"]] == [0.1, 0.2, 0.3]
    assert [scaling["mean"] for scaling in found["mlm:input"][0]["value_scaling"]] == [0.2, 0.2, 0.2]
    assert item["assets"]["weights"]["href"] == "./weights.safetensors"
    assert item["assets"]["weights"]["file:checksum"] == f"1220{row.sha256}"
    assert store.exists(str(Path(row.key).parent / item["assets"]["onnx"]["href"]))


def test_the_item_follows_the_schema_of_its_files(store: LocalStore, catalog: Catalog, shared_data: Path) -> None:
    row = publish(store, catalog, companions={"onnx": ("model.onnx", b"onnx")})
    item = json.loads(store.get(row.companions["item"]["key"]))
    # The schema of classification at hand is 1.1.0: what the two versions share.
    used = validate_extensions(item, shared_data / "stac_schemas", classification="2.0.0")
    assert used == {"classification", "file", "mlm"}


def test_every_asset_describes_input_and_output() -> None:
    def stored(name: str) -> StoredObject:
        return StoredObject(key=f"models/{'a' * 64}/{name}", sha256="a" * 64, size=3)

    metadata = METADATA | {"widths": [8, 16, 32]}
    assets = weights_item(
        weights=stored("weights.safetensors"), companions={"onnx": stored("model.onnx")}, metadata=metadata
    ).to_dict()["assets"]
    assert "logits out" in assets["weights"]["description"]
    assert "multiples of 4" in assets["weights"]["description"]
    for word in ("`dn` uint16", "red, green, blue", "`probability`", "sigmoid"):
        assert word in assets["onnx"]["description"]
    assert "golden" not in assets


def test_pystac_reads_the_mlm_extension_back() -> None:
    stored = StoredObject(key=f"models/{'a' * 64}/weights.safetensors", sha256="a" * 64, size=3)
    item = weights_item(weights=stored, companions={}, metadata=METADATA)
    assert item.ext.has("mlm")
    assert item.ext.mlm.architecture == "SimpleUNet"
    assert item.ext.mlm.input[0].bands == ["red", "green", "blue"]


def test_the_card_says_what_matters_and_escapes() -> None:
    stored = StoredObject(key="k", sha256="a" * 64, size=3)
    card = model_card(
        METADATA | {"recipe_name": "a|b\n<i>", "sources": ["![x](http://tracker) [y](javascript:z)"]},
        {"validation_iou": 0.71234567, "history": [1, 2]},
        weights=stored,
    )
    assert "# Cloud mask weights `w-aaaaaaaaaaaaaaaaaaaa`" in card
    assert "| validation_iou | 0.7123 |" in card
    assert "| Recipe | a\\|b &lt;i> |" in card
    assert "| Labels from | !\\[x\\](http://tracker) \\[y\\](javascript:z) |" in card
    assert "history" not in card
    sources = [r"\[x\](https://evil.example/)", r"a \| b \\[y](https://evil.example/)"]
    hostile = model_card(METADATA | {"sources": sources}, {})
    drawn = MarkdownIt("commonmark").enable("table").render(hostile)
    assert "<a " not in drawn
    assert r"\[x\](https://evil.example/)" in drawn, "a reader sees what was written"
    assert "red, green, blue" in card
