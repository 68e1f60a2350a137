"""Maintenance: what it removes, what it must never remove, and that a dry run changes nothing."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from cloudseg import keys
from cloudseg.catalog import Catalog, model_rows, scene_rows, training_rows
from cloudseg.dataset.manifest import Manifest, Shard, snapshot_id_of
from cloudseg.errors import InputError
from cloudseg.publish import publish, stage_object
from cloudseg.recipe import load_recipe
from cloudseg.records import Checkpoint, Evaluation, Run, Scene, Snapshot, StoredObject, Weights
from cloudseg.registry import promote
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import doctor, maintain
from cloudseg.stages.doctor import Check
from cloudseg.stages.listing import Listing
from cloudseg.stages.maintain import _collect_orphans
from cloudseg.stages.verification import load_verification, part_of

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LATER = (NOW + timedelta(days=1000)).isoformat()


@pytest.fixture
def runtime(runtime_env: Path) -> Runtime:
    return open_runtime()


def put(runtime: Runtime, make_key, data: bytes) -> StoredObject:
    stored = runtime.store.put(make_key(keys.sha256_of(data)), data)
    make_old(runtime, stored.key)
    return stored


def make_old(runtime: Runtime, key: str) -> None:
    """Objects get the time of NOW; ages are counted from `as_of`."""
    os.utime(Path(runtime.store.gdal_path(key)), (NOW.timestamp(), NOW.timestamp()))


def add_scene(runtime: Runtime, data: bytes = b"scene") -> Scene:
    scene = scene_row(put(runtime, keys.scene, data))
    with runtime.catalog.begin() as db:
        scene_rows.add_scene(db, scene)
    return scene


def scene_row(stored: StoredObject) -> Scene:
    return Scene(
        scene_id=keys.id_from_hash("sc", stored.sha256),
        name="a scene",
        layout="pairs",
        sensor="unknown",
        radiometry="plain",
        acquired_at=None,
        place="block:a",
        crs=None,
        transform=[1, 0, 0, 0, -1, 0],
        height=1,
        width=1,
        resolution_m=None,
        bands=["red"],
        footprint_wkb=None,
        min_lon=None,
        min_lat=None,
        max_lon=None,
        max_lat=None,
        valid_fraction=1.0,
        publishable=False,
        source_uri="file:///a",
        tags={},
        source_sha256=stored.sha256,
        created_at=NOW,
        **stored.model_dump(),
    )


def add_snapshot(runtime: Runtime) -> tuple[Snapshot, StoredObject]:
    shard = put(runtime, keys.snapshot_shard, b"chips")
    manifest = Manifest(
        chip_size=32,
        bands=["red"],
        working_resolution_m=None,
        counts={},
        shards=[Shard(object=shard, chips=1)],
        chips=[],
    )
    packed = manifest.pack()
    snapshot_id = snapshot_id_of(packed)
    stored = put(runtime, lambda _: keys.snapshot_manifest(snapshot_id), packed)
    snapshot = Snapshot(
        snapshot_id=snapshot_id,
        manifest_key=stored.key,
        manifest_sha256=stored.sha256,
        chip_size=32,
        bands=["red"],
        working_resolution_m=None,
        counts={},
        created_at=NOW,
    )
    with runtime.catalog.begin() as db:
        training_rows.add_snapshot(db, snapshot, {})
    return snapshot, shard


def add_run(runtime: Runtime, run_id: str, snapshot: Snapshot, *, finished: bool) -> Checkpoint:
    recipe = load_recipe("smoke")
    stored = put(runtime, lambda sha: keys.checkpoint(run_id, 10, sha), f"state of {run_id}".encode())
    checkpoint = Checkpoint(run_id=run_id, step=10, created_at=NOW, **stored.model_dump())
    with runtime.catalog.begin() as db:
        training_rows.add_run(
            db,
            Run(
                run_id=run_id,
                snapshot_id=snapshot.snapshot_id,
                recipe_name="smoke",
                recipe_hash=recipe.recipe_hash,
                recipe={},
                parent_weights_id=None,
                seed=0,
                status="finished" if finished else "running",
                device="cpu",
                device_reason="test",
                error=None,
                created_at=NOW,
                finished_at=NOW if finished else None,
            ),
        )
        training_rows.add_checkpoint(db, checkpoint)
    return checkpoint


def add_weights(runtime: Runtime, data: bytes) -> Weights:
    stored, card = (
        put(runtime, keys.weights, data),
        put(runtime, lambda sha: keys.weights_asset("0" * 64, "card.md", sha), data),
    )
    weights = Weights(
        weights_id=keys.id_from_hash("w", stored.sha256),
        version=0,
        run_id=None,
        snapshot_id=None,
        architecture="SimpleUNet",
        companions={"card": card.as_json()},
        metadata={"threshold": 0.5, "bands": ["red"]},
        created_at=NOW,
        **stored.model_dump(),
    )
    with runtime.catalog.begin() as db:
        return model_rows.add_weights(db, weights)


def add_evaluation(runtime: Runtime, weights: Weights, snapshot: Snapshot) -> Evaluation:
    evaluation_id = keys.make_id("ev", weights.weights_id)
    report = put(runtime, lambda sha: keys.evaluation(evaluation_id, "report.html", sha), weights.weights_id.encode())
    with runtime.catalog.begin() as db:
        return model_rows.add_evaluation(
            db,
            Evaluation(
                evaluation_id=evaluation_id,
                weights_id=weights.weights_id,
                snapshot_id=snapshot.snapshot_id,
                split="held_out",
                threshold=0.5,
                metrics={},
                report={"html": report.as_json()},
                created_at=NOW,
            ),
        )


def test_only_old_orphans_go_and_everything_named_stays(runtime: Runtime):
    scene, (snapshot, shard) = add_scene(runtime), add_snapshot(runtime)
    checkpoint, weights = add_run(runtime, "run-a", snapshot, finished=False), add_weights(runtime, b"weights")
    report = add_evaluation(runtime, weights, snapshot).report["html"]["key"]
    orphan = put(runtime, keys.scene, b"no row names me")
    young = runtime.store.put(keys.scene(keys.sha256_of(b"young")), b"young")
    as_of = (NOW + timedelta(hours=25)).isoformat()

    planned = maintain(as_of=as_of)
    assert (planned.dry_run, planned.orphans, planned.orphan_bytes) == (True, [orphan.key], orphan.size)
    assert runtime.store.exists(orphan.key)

    done = maintain(dry_run=False, as_of=as_of)
    assert (done.orphans, done.missing, done.repaired) == ([orphan.key], [], [])
    assert not runtime.store.exists(orphan.key)
    kept = [
        scene.key,
        snapshot.manifest_key,
        shard.key,
        checkpoint.key,
        weights.key,
        weights.companions["card"]["key"],
        report,
        young.key,
    ]
    assert [key for key in kept if not runtime.store.exists(key)] == []
    assert maintain(dry_run=False, as_of=as_of).orphans == []


class Interrupted(Catalog):
    """Something else happens in the moment before a transaction that writes."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        self.meanwhile()
        with super().begin() as db:
            yield db


def _interrupted(runtime: Runtime, meanwhile: Callable[[], object]) -> Runtime:
    catalog = Interrupted(runtime.catalog.engine.url)
    catalog.meanwhile = meanwhile
    return replace(runtime, catalog=catalog)


def test_an_orphan_collected_while_it_is_published_again_is_put_back(runtime: Runtime):
    orphan = put(runtime, keys.scene, b"the same scene once more")
    busy = _interrupted(runtime, lambda: maintain(dry_run=False, as_of=LATER))
    out = stage_object(b"the same scene once more", keys.scene)
    publish(busy.store, busy.catalog, {"cog": out}, lambda db, _: scene_rows.add_scene(db, scene_row(out.stored)))
    assert runtime.store.get(orphan.key, orphan.sha256)
    assert maintain().missing == []


def test_an_orphan_published_while_it_is_checked_stays(runtime: Runtime):
    orphan = put(runtime, keys.scene, b"scene")
    busy = _interrupted(runtime, lambda: add_scene(runtime))
    with Listing() as listing:
        found, _ = _collect_orphans(busy, listing, NOW + timedelta(days=1), dry_run=False)
    assert found == [orphan.key], "it was one at the first check"
    assert runtime.store.exists(orphan.key)
    assert maintain().missing == []


def test_other_files_in_the_store_are_no_orphans(runtime: Runtime):
    tile = put(runtime, lambda _: "inbox/tiles/a.tif", b"a tile that waits for ingest")
    assert maintain(dry_run=False, as_of=LATER).orphans == []
    assert runtime.store.exists(tile.key)


def test_every_key_that_cloudseg_makes_lies_under_a_prefix_of_its_own():
    sample = "0" * 64
    made = [
        keys.scene(sample),
        keys.label(sample),
        keys.snapshot_manifest("sn-1"),
        keys.snapshot_shard(sample),
        keys.checkpoint("run-1", 1, sample),
        keys.weights(sample),
        keys.weights_asset(sample, "card.md", sample),
        keys.evaluation("ev-1", "report.html", sample),
        keys.verdict("ve-1"),
        keys.mask("w-1", "sc-1", "mask.tif", sample),
    ]
    assert [key for key in made if not key.startswith(keys.PREFIXES)] == []


def test_an_orphan_inside_the_grace_period_stays(runtime: Runtime):
    put(runtime, keys.scene, b"its row is on the way")
    assert maintain(dry_run=False, as_of=(NOW + timedelta(hours=23)).isoformat()).orphans == []


def test_checkpoints_of_finished_runs_expire_and_those_of_others_stay(runtime: Runtime):
    snapshot, _ = add_snapshot(runtime)
    finished, running = (
        add_run(runtime, "run-done", snapshot, finished=True),
        add_run(runtime, "run-open", snapshot, finished=False),
    )
    assert maintain(as_of=(NOW + timedelta(days=6)).isoformat()).expired_checkpoints == 0
    assert maintain(as_of=LATER).expired_checkpoints == 1
    assert runtime.store.exists(finished.key)
    assert maintain(dry_run=False, as_of=LATER).expired_checkpoints == 1
    assert (runtime.store.exists(finished.key), runtime.store.exists(running.key)) == (False, True)
    assert maintain(dry_run=False, as_of=LATER).expired_checkpoints == 0


def test_evaluations_of_champions_past_and_present_are_kept(runtime: Runtime):
    snapshot, _ = add_snapshot(runtime)
    first, second, loser = (add_weights(runtime, data) for data in (b"first", b"second", b"loser"))
    reports = {
        weights.weights_id: add_evaluation(runtime, weights, snapshot).report["html"]["key"]
        for weights in (first, second, loser)
    }
    promote(
        runtime.store,
        runtime.catalog,
        first.weights_id,
        expected_champion=None,
        verdict_id=None,
        actor="test",
        reason="test",
    )
    promote(
        runtime.store,
        runtime.catalog,
        second.weights_id,
        expected_champion=first.weights_id,
        verdict_id=None,
        actor="test",
        reason="test",
    )
    assert maintain(dry_run=False, as_of=LATER).expired_evaluations == 1
    assert [weights_id for weights_id, key in reports.items() if not runtime.store.exists(key)] == [loser.weights_id]
    with runtime.catalog.read() as db:
        assert model_rows.list_evaluations(db, loser.weights_id) == []


@pytest.mark.parametrize("damage", ["gone", "wrong"])
def test_the_pointer_is_repaired(runtime: Runtime, damage: str):
    weights = add_weights(runtime, b"weights")
    promote(
        runtime.store,
        runtime.catalog,
        weights.weights_id,
        expected_champion=None,
        verdict_id=None,
        actor="test",
        reason="test",
    )
    right = runtime.store.get(keys.CHAMPION_POINTER)
    runtime.store.delete(keys.CHAMPION_POINTER) if damage == "gone" else runtime.store.replace(
        keys.CHAMPION_POINTER, b"[]"
    )
    assert maintain().repaired == [keys.CHAMPION_POINTER]
    assert maintain(dry_run=False).repaired == [keys.CHAMPION_POINTER]
    assert runtime.store.get(keys.CHAMPION_POINTER) == right
    assert maintain(dry_run=False).repaired == []


def test_missing_and_damaged_objects_are_named(runtime: Runtime):
    lost, spoilt = add_scene(runtime, b"lost"), add_scene(runtime, b"spoilt")
    runtime.store.delete(lost.key)
    Path(runtime.store.gdal_path(spoilt.key)).chmod(0o644)
    Path(runtime.store.gdal_path(spoilt.key)).write_bytes(b"spoilT")
    assert maintain().missing == [lost.key]
    assert maintain(verify=True).missing == sorted([lost.key, spoilt.key])


def test_no_shard_is_collected_while_a_manifest_is_lost(runtime: Runtime):
    snapshot, shard = add_snapshot(runtime)
    runtime.store.delete(snapshot.manifest_key)
    record = maintain(dry_run=False, as_of=LATER)
    assert (record.orphans, record.missing) == ([], [snapshot.manifest_key])
    assert runtime.store.exists(shard.key)


def test_ages_are_checked(runtime: Runtime):
    with pytest.raises(InputError, match="not an age"):
        maintain(orphan_hours=-1)
    with pytest.raises(InputError, match="not an age"):
        maintain(checkpoint_days=float("nan"))


def _night(number: int) -> str:
    return (NOW + timedelta(days=number)).isoformat()


def _integrity() -> Check:
    return next(check for check in doctor(device=False).checks if check.name == "integrity")


def test_every_object_is_read_once_in_as_many_nights_as_there_are_parts(runtime: Runtime):
    count, parts = 40, 5
    for number in range(count):
        add_scene(runtime, f"scene {number}".encode())
    read = [maintain(dry_run=False, verify_parts=parts, as_of=_night(night)).verified for night in range(parts)]
    assert sum(read) == count
    assert min(read) > 0
    known = load_verification(runtime.store)
    assert sorted(known.read_on) == list(range(parts))
    assert known.read_on[0] == NOW.date()
    # A repeated night reads the same part, and the next round begins with the oldest one.
    assert maintain(dry_run=False, verify_parts=parts, as_of=_night(2)).verified == read[2]
    assert maintain(dry_run=False, verify_parts=parts, as_of=_night(9)).verified == read[0]
    assert load_verification(runtime.store).read_on[0] == (NOW + timedelta(days=9)).date()


def test_a_dry_run_remembers_nothing(runtime: Runtime):
    add_scene(runtime)
    maintain(verify=True)
    maintain(verify_parts=3)
    assert not runtime.store.exists(keys.VERIFICATION)


def test_damage_that_a_night_finds_is_reported_every_night_until_it_is_repaired(runtime: Runtime):
    scene, parts = add_scene(runtime, b"one of many"), 4
    path = Path(runtime.store.gdal_path(scene.key))
    path.write_bytes(b"one of manx")
    found = [maintain(dry_run=False, verify_parts=parts, as_of=_night(night)).missing for night in range(2 * parts)]
    first = part_of(scene.key, parts)
    assert found == [[]] * first + [[scene.key]] * (2 * parts - first)
    told = _integrity()
    assert (told.ok, told.warning) == (True, True)
    assert f"1 objects were missing or damaged when they were last read: {scene.key}" in told.detail
    path.write_bytes(b"one of many")
    assert maintain(dry_run=False, verify_parts=parts, as_of=_night(2 * parts)).missing == []
    assert "damaged" not in _integrity().detail


def test_doctor_says_when_the_store_was_last_read(runtime: Runtime):
    assert (_integrity().warning, "not read as a whole yet" in _integrity().detail) == (False, True)
    add_scene(runtime)  # its row is of NOW, long ago
    with runtime.catalog.begin() as db:
        db.exec_driver_sql("UPDATE scene SET created_at = '2020-01-01 00:00:00.000000'")
    told = _integrity()
    assert told.warning
    assert "never read as a whole although it has objects since 2020-01-01; overdue" in told.detail
    maintain(dry_run=False, verify=True)
    told = _integrity()
    assert not told.warning
    assert f"every object was read and compared with its checksum on {datetime.now(UTC):%Y-}" in told.detail
    maintain(dry_run=False, verify=True, as_of="2020-02-01T00:00:00Z")
    assert "2020-02-01 or later; overdue" in _integrity().detail


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"parts": 0}', b'{"read_on": {"x": "yesterday"}}', b"\xff"])
def test_a_damaged_memory_counts_as_none(runtime: Runtime, damage: bytes):
    add_scene(runtime)
    runtime.store.replace(keys.VERIFICATION, damage)
    assert maintain(dry_run=False, verify_parts=1, as_of=_night(0)).verified == 1
    assert load_verification(runtime.store).read_on == {0: NOW.date()}


def test_the_number_of_parts_is_checked(runtime: Runtime):
    with pytest.raises(InputError, match="not a number of parts"):
        maintain(verify_parts=367)
