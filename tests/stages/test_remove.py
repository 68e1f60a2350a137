"""After the removal of a scene no object and no row holds it, and the same bytes stay out until that is lifted."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import rasterio
from safetensors.numpy import load
from sqlalchemy import delete, select

from cloudseg import stages
from cloudseg.catalog import model_rows, scene_rows, tables
from cloudseg.catalog.session import insert, now
from cloudseg.errors import InputError, NotInCatalog, StateError
from cloudseg.evaluate.clean_process import run_smoke_test
from cloudseg.keys import PREFIXES, canonical_json
from cloudseg.raster.synthetic import make_tiles
from cloudseg.records import Json, Removal
from cloudseg.runtime import open_runtime
from cloudseg.stages import remove as remove_module
from cloudseg.stages.verification import Verification, load_verification, save_verification

_LEFT = ("removal", "retired_snapshot")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An embedded home after one run of the pipeline: scenes, a champion, masks of all scenes."""
    folder = tmp_path_factory.mktemp("remove")
    make_tiles(folder / "tiles", count=12, size=128)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("CLOUDSEG_")]:
            patch.delenv(name)
        patch.setenv("CLOUDSEG_HOME", str(folder / "home"))
        patch.setenv("CLOUDSEG_THREADS", "1")
        stages.ingest(str(folder / "tiles"))
        verdict = stages.retrain("smoke").promote
        if not verdict.promoted:
            stages.promote(verdict.challenger_id, force=True, reason="test", actor="test")
        stages.predict(new=True)
        yield folder


def _labeled(split: str) -> str:
    """Return the id of a labeled scene of a split."""
    with open_runtime().catalog.read() as db:
        t = tables
        joined = t.label.join(t.snapshot_label, t.snapshot_label.c.label_id == t.label.c.label_id)
        found = select(t.label.c.scene_id).select_from(joined).where(t.snapshot_label.c.split == split)
        return str(db.execute(found.order_by(t.label.c.scene_id).limit(1)).scalar_one())


def _words(scene_id: str) -> tuple[set[str], list[bytes]]:
    """Return every id and checksum of a scene, and two rows of its pixels as chips hold them."""
    with open_runtime().catalog.read() as db:
        held = remove_module.removal_rows.find_holdings(db, scene_id)
    assert held is not None
    rows = [held.scene, *held.labels, *held.masks]
    words = {held.scene.scene_id, held.scene.name, *(row.sha256 for row in rows)}
    words |= {label.label_id for label in held.labels} | {mask.mask_id for mask in held.masks}
    with open_runtime().store.local_file(held.scene.key) as path, rasterio.open(path) as raster:
        bands = list(raster.descriptions)
        red = raster.read(bands.index("red") + 1)
    return words, [red[row, :100].astype("<u2").tobytes() for row in (5, 60)]


def _holders(words: set[str], pixels: list[bytes]) -> list[str]:
    """Return the keys and the tables that hold one of the words, or the pixels."""
    runtime, found = open_runtime(), []
    for key in (key for prefix in PREFIXES for key in runtime.store.list_keys(prefix)):
        data = runtime.store.get(key)
        if any(word in key or word.encode() in data for word in words) or any(row in data for row in pixels):
            found.append(key)
    with runtime.catalog.read() as db:
        for name, table in tables.metadata.tables.items():
            text = "".join(str(row) for row in db.execute(select(table)))
            if name not in _LEFT and any(word in text for word in words):
                found.append(name)
    return found


def _everything() -> Json:
    runtime = open_runtime()
    with runtime.catalog.read() as db:
        rows = {name: sorted(map(str, db.execute(select(table)))) for name, table in tables.metadata.tables.items()}
    return {"rows": rows, "keys": sorted(key for prefix in PREFIXES for key in runtime.store.list_keys(prefix))}


def test_a_dry_run_says_what_goes_and_changes_nothing(home: Path) -> None:
    scene_id, before = _labeled("validation"), _everything()
    record = stages.remove_scene(scene_id, reason="license", dry_run=True)
    assert record.dry_run
    assert (len(record.labels), len(record.masks), len(record.snapshots)) == (1, 1, 1)
    assert len(record.golden) == len(record.weights) == 1
    assert record.objects > 8
    assert record.bytes > 100_000
    assert all(source.startswith("file://") for source in record.sources)
    assert _everything() == before


def test_a_name_and_the_beginning_of_an_id_mean_the_scene(home: Path) -> None:
    scene = stages.scenes(limit=1)[0]
    for name in (scene["name"], scene["scene_id"][:14]):
        record = stages.remove_scene(name, reason="license", dry_run=True)
        assert (record.scene_id, record.name) == (scene["scene_id"], scene["name"])
    with pytest.raises(InputError, match="several scenes begin like this"):
        stages.remove_scene("sc-", reason="license", dry_run=True)
    with pytest.raises(NotInCatalog, match=f"none of this id was removed. Did you mean .*{scene['name']}"):
        stages.remove_scene(scene["name"] + "x", reason="license", dry_run=True)


def test_the_beginning_of_a_removed_scene_s_id_means_no_other_scene(home: Path) -> None:
    """A person who completes an interrupted removal by the beginning of its id must not remove another scene."""
    scene_id = stages.scenes(limit=1)[0]["scene_id"]
    gone = scene_id[:12] + "0" * 11
    row = Removal(
        removal_id="rm-1",
        scene_id=gone,
        source_sha256="0" * 64,
        actor="ann",
        reason="license",
        pending=None,
        finished_at=now(),
        lifted_at=None,
        lifted_by=None,
        lift_reason=None,
        created_at=now(),
    )
    with open_runtime().catalog.begin() as db:
        insert(db, tables.removal, row)
    try:
        with pytest.raises(InputError, match="removed ones among them") as raised:
            stages.remove_scene(scene_id[:12], reason="license")
        assert {scene_id, gone} == set(str(raised.value.found).split(", "))
        assert stages.remove_scene(gone[:20], reason="license").already
        with pytest.raises(NotInCatalog, match=f"no such removed scene. Did you mean {gone}"):
            stages.lift_removal(gone[:-1] + "f", reason="bought")
    finally:
        with open_runtime().catalog.begin() as db:
            db.execute(delete(tables.removal))
    assert scene_id in {row["scene_id"] for row in stages.scenes(limit=None)}


def test_a_removed_scene_is_nowhere(home: Path) -> None:
    scene_id = _labeled("validation")
    announced = stages.remove_scene(scene_id, reason="license", dry_run=True)
    words, pixels = _words(scene_id)
    before = _holders(words, pixels)
    assert any(key.startswith("shards/") for key in before), "the pixels are looked for in the right form"
    assert any(key.startswith("models/") for key in before), "the golden sample shows it"
    assert any(key.startswith("evaluations/") for key in _everything()["keys"])

    with open_runtime().catalog.read() as db:
        damaged = scene_rows.get_scene(db, scene_id).key
    save_verification(open_runtime().store, Verification(damaged={damaged: None, "scenes/00/other.tif": None}))
    record = stages.remove_scene(scene_id, reason="license", actor="ann")
    assert load_verification(open_runtime().store).damaged == {"scenes/00/other.tif": None}
    same = ("labels", "masks", "snapshots", "golden", "objects", "bytes", "kept", "weights")
    assert {name: getattr(record, name) for name in same} == {name: getattr(announced, name) for name in same}
    assert _holders(words, pixels) == []
    checked = stages.maintain(dry_run=False, orphan_hours=0, verify=True)
    assert (checked.missing, checked.orphans, checked.stac, checked.removals) == ([], [], 0, 0)
    (row,) = stages.list_removals()
    assert (row["scene_id"], row["actor"], row["reason"]) == (scene_id, "ann", "license")
    assert row["finished_at"] is not None
    assert row["weights"] == record.weights

    # The weights stay, reproduce their golden sample, and predict.
    with open_runtime().catalog.read() as db:
        weights = model_rows.get_weights(db, record.weights[0])

    assert run_smoke_test(open_runtime().store, weights).passed
    assert load(open_runtime().store.get(weights.companions["golden"]["key"]))["dn"].shape[-1] == 192

    again = stages.remove_scene(scene_id[:16], reason="license")
    assert (again.already, again.objects) == (True, 0)


def test_the_same_bytes_stay_out_until_the_removal_is_lifted(home: Path) -> None:
    (row,) = stages.list_removals()
    record = stages.ingest(str(home / "tiles"))
    assert (record.added, record.removed) == ([], 1)
    (note,) = [note for note in record.notes if "removed on" in note]
    assert "license" in note
    assert f"cloudseg remove lift {row['scene_id']}" in note
    stages.lift_removal(row["scene_id"][:16], reason="the license was bought", actor="ann")
    record = stages.ingest(str(home / "tiles"))
    assert (record.added, record.removed) == ([row["scene_id"]], 0)


def test_a_training_is_due_on_a_snapshot_without_the_scene(home: Path) -> None:
    scene_id = _labeled("train")
    first = stages.runs(limit=None)[0]["snapshot_id"]
    removed = stages.remove_scene(scene_id, reason="take-down")
    with pytest.raises(StateError, match="this snapshot is retired"):
        stages.train(first, recipe="smoke")
    plan = stages.plan_retrain("smoke")
    # The label of each removed scene, and that of the first one, which was ingested again.
    assert (plan["skip"], plan["new_labels"]) == (None, 3)
    assert stages.list_removals()[0]["weights"] == removed.weights
    snapshot = stages.snapshot("smoke").snapshot_id
    assert snapshot != first
    # Weights of the retired snapshot are evaluated on the newest one.
    assert stages.evaluate(removed.weights[0]).snapshot_id == snapshot
    assert stages.maintain(verify=True).missing == []


def test_a_removal_needs_a_reason_and_a_scene(home: Path) -> None:
    with pytest.raises(InputError, match="for a reason"):
        stages.remove_scene("sc-1", reason=" ")
    with pytest.raises(NotInCatalog, match="none of this id was removed"):
        stages.remove_scene("sc-none", reason="license")


def test_a_short_beginning_of_an_id_removes_nothing(home: Path) -> None:
    scene_ids = [row["scene_id"] for row in stages.scenes(limit=None)]
    length = next(n for n in range(4, 11) if sum(one.startswith(scene_ids[0][:n]) for one in scene_ids) == 1)
    with pytest.raises(InputError, match="too short a beginning") as raised:
        stages.remove_scene(scene_ids[0][:length], reason="license")
    assert scene_ids[0] in str(raised.value.found)
    assert [row["scene_id"] for row in stages.scenes(limit=None)] == scene_ids


def test_an_interrupted_removal_is_completed_by_maintenance(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene_id = stages.scenes(limit=None)[0]["scene_id"]
    words, pixels = _words(scene_id)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(remove_module, "_finish", killed)
        with pytest.raises(KeyboardInterrupt):
            stages.remove_scene(scene_id, reason="license")
    assert stages.maintain().removals == 1
    assert stages.maintain(dry_run=False).removals == 1
    assert _holders(words, pixels) == []
    assert canonical_json(stages.list_removals()[0]["finished_at"]) != b"null"
