"""Workers that draw scenes: each scene once, whoever is killed; a bad one holds up no other."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from cloudseg.catalog import Catalog, lease_rows, model_rows, reader_rows
from cloudseg.catalog import tables as t
from cloudseg.catalog.lease_rows import Wanted
from cloudseg.catalog.session import now
from cloudseg.errors import InputError, Interrupted, NotInCatalog, StoreUnreachable
from cloudseg.records import Promotion, ReaderSwitch, Weights
from cloudseg.stages import drain, masks, plan_drain, predict
from tests.predict.promised import evaluate_as

SCENES = 4


@pytest.fixture
def catalog(any_catalog: Catalog) -> Catalog:
    """Return a migrated catalog, as the one of `world`, on both databases."""
    return any_catalog


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["cloudseg.stages.drain"], "_POLL_S", 0.05)


sqlite_only = pytest.mark.parametrize("any_catalog", ["sqlite"], indirect=True)


@pytest.fixture
def weights_id(served: Any, make_net: Callable[..., Any]) -> str:
    weights, _ = served.add_weights(make_net((4, 6)))
    return weights.weights_id


@pytest.fixture
def scene_ids(served: Any, make_pixels: Callable[..., Any]) -> list[str]:
    return [add_scene(served, make_pixels, number) for number in range(SCENES)]


def add_scene(served: Any, make_pixels: Callable[..., Any], number: int, **more: Any) -> str:
    """Add a scene; the higher its number, the newer it is."""
    created = {"created_at": now() - timedelta(days=100 - number)}
    scene = served.add_scene(make_pixels(40, 40, seed=number), name=f"scene {number}", **(created | more))
    return scene.scene_id


def leases(served: Any) -> dict[str, Any]:
    with served.catalog.read() as db:
        return {row.scene_id: row for row in db.execute(select(t.prediction_lease))}


def end_leases(served: Any) -> None:
    """Let the time of every lease be over, as if it had passed."""
    with served.catalog.begin() as db:
        db.execute(update(t.prediction_lease).values(until=lease_rows.DatabaseTime(-1)))


def masked(served: Any, weights_id: str) -> set[str]:
    with served.catalog.read() as db:
        return {mask.scene_id for mask in model_rows.list_masks(db, weights_id=weights_id)}


def draw(served: Any, weights_id: str, worker: str) -> str:
    """Draw a scene as a worker that then is gone."""
    wanted = Wanted(weights_id)
    with served.catalog.begin() as db:
        lease_rows.add_waiting(db, wanted, lease_rows.find_waiting(db, wanted))
        drawn = lease_rows.draw(db, wanted, worker)
    assert drawn is not None
    return drawn.scene_id


def start(*arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "cloudseg", "predict", "--drain", "--json", *arguments]
    return subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_draw_at_the_same_time_and_no_scene_twice(
    served: Any, weights_id: str, scene_ids: list[str]
) -> None:
    processes = [start("--weights", weights_id) for _ in range(2)]
    records = []
    for process in processes:
        out, errors = process.communicate(timeout=250)
        assert process.returncode == 0, errors
        records.append(json.loads(out))
    assert sorted(made for record in records for made in record["masks"]) == sorted(
        mask["mask_id"] for mask in masks(weights_id=weights_id)
    ), "each in one record"
    assert sum(record["created"] for record in records) == SCENES
    assert len({record["worker"] for record in records}) == 2
    assert masked(served, weights_id) == set(scene_ids)
    assert leases(served) == {}
    assert [record["time_is_over"] for record in records] == [False, False]
    assert len([key for key in served.store.list_keys("stac/masks/") if "/mk-" in key and key.endswith(".json")]) == 4


def test_what_a_killed_worker_held_is_masked_by_another_after_its_lease(
    served: Any, weights_id: str, scene_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start("--weights", weights_id, "--worker", "job 1")
    limit = time.monotonic() + 200
    while not (held := [lease for lease in leases(served).values() if lease.worker == "job 1"]):
        assert time.monotonic() < limit, process.communicate(timeout=5)
        time.sleep(0.02)  # it imports torch now
    process.kill()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    (lost,) = [lease.scene_id for lease in held]

    with monkeypatch.context() as patched:
        patched.setattr(time, "sleep", lambda _: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interrupted, match="found 3 masks"):  # it waits for the scene that it may not draw
            drain(weights_id=weights_id)
    assert masked(served, weights_id) == set(scene_ids) - {lost}
    assert set(leases(served)) == {lost}
    end_leases(served)
    rest = drain(weights_id=weights_id)
    assert (rest.created, rest.time_is_over, masked(served, weights_id)) == (1, False, set(scene_ids))
    assert leases(served) == {}


@sqlite_only
def test_a_worker_waits_for_scenes_of_others_and_takes_them_over_when_they_end(
    served: Any, weights_id: str, scene_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = draw(served, weights_id, "dead")
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            end_leases(served)

    monkeypatch.setattr(time, "sleep", sleep)
    record = drain(weights_id=weights_id)
    assert len(slept) == 3
    assert (record.created, record.time_is_over) == (SCENES, False)
    assert lost in masked(served, weights_id)
    assert leases(served) == {}


@sqlite_only
def test_a_new_process_of_the_same_name_does_not_wait(
    served: Any, weights_id: str, scene_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(served, weights_id, "job 1")
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits"))
    assert drain(weights_id=weights_id, worker="job 1").created == SCENES


@sqlite_only
def test_a_mask_that_the_static_catalog_does_not_show_yet_is_shown_by_whoever_takes_over(
    served: Any, weights_id: str, scene_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker was killed between the row of the mask and the static STAC catalog."""
    lost = draw(served, weights_id, "dead")
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["cloudseg.stages.predict"], "publish_stac", lambda *_, **__: None)
        made = predict([lost], weights_id=weights_id)
    assert list(served.store.list_keys("stac/masks/")) == []
    end_leases(served)
    record = drain(weights_id=weights_id)
    assert (len(record.masks), record.created) == (SCENES, SCENES - 1)
    assert any(made.masks[0] in key for key in served.store.list_keys("stac/masks/"))
    assert leases(served) == {}


@sqlite_only
def test_a_bad_scene_is_recorded_held_back_and_tried_again_later(
    served: Any, weights_id: str, scene_ids: list[str], make_pixels: Callable[..., Any]
) -> None:
    bad = add_scene(served, make_pixels, 9, created_at=now() - timedelta(days=200))  # the oldest: it comes first
    with served.catalog.read() as db:
        key = db.execute(select(t.scene.c.key).where(t.scene.c.scene_id == bad)).scalar_one()
    path = Path(served.store.gdal_path(key))
    whole = path.read_bytes()
    path.write_bytes(b"no raster")
    record = drain(weights_id=weights_id)
    assert (record.created, set(record.failed), record.time_is_over) == (SCENES, {bad}, False)
    assert record.failed[bad]["error"] == "ObjectCorrupt"
    held = leases(served)
    assert set(held) == {bad}
    assert (held[bad].failures, held[bad].error["error"]) == (1, "ObjectCorrupt")
    assert plan_drain(2, weights_id=weights_id) == [], "nothing to do within the hour"
    assert drain(weights_id=weights_id).failed == {}
    end_leases(served)
    assert len(plan_drain(2, weights_id=weights_id)) == 1
    assert set(drain(weights_id=weights_id).failed) == {bad}
    assert leases(served)[bad].failures == 2
    path.write_bytes(whole)
    end_leases(served)
    assert drain(weights_id=weights_id).created == 1
    assert leases(served) == {}


@sqlite_only
def test_a_scene_that_ends_its_workers_holds_up_no_other(served: Any, weights_id: str, scene_ids: list[str]) -> None:
    """Three workers were killed by the kernel, each while it held the oldest scene."""
    for number in range(3):
        poison = draw(served, weights_id, f"dead {number}")
        with served.catalog.begin() as db:
            db.execute(
                update(t.prediction_lease)
                .where(t.prediction_lease.c.scene_id == poison)
                .values(until=lease_rows.DatabaseTime(-1000))
            )
    record = drain(weights_id=weights_id)
    assert (record.created, set(record.failed)) == (SCENES - 1, {poison})
    assert record.failed[poison]["found"] == "3 times"
    assert "predict sc-" in record.failed[poison]["next_step"]
    assert predict([poison], weights_id=weights_id).created == 1, "one may always ask for it"
    end_leases(served)
    assert drain(weights_id=weights_id).created == 0
    assert leases(served) == {}


@sqlite_only
def test_a_worker_that_is_asked_to_stop_finishes_its_scene_and_holds_nothing(
    served: Any, weights_id: str, scene_ids: list[str]
) -> None:
    logger, handler = logging.getLogger("cloudseg.predict.scene"), _Terminate()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with pytest.raises(Interrupted, match=r"SIGTERM .found 1 masks") as caught:
            drain(weights_id=weights_id)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert caught.value.retry_helps
    assert len(masked(served, weights_id)) == 1
    with served.catalog.read() as db:
        assert lease_rows.count_open(db, Wanted(weights_id)) == SCENES - 1
    assert drain(weights_id=weights_id).created == SCENES - 1, "all are free at once"


@sqlite_only
def test_an_outage_counts_against_no_scene(
    served: Any, weights_id: str, scene_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are started again and again meanwhile, and each holds a scene when it ends."""
    module = sys.modules["cloudseg.stages.drain"]
    error: Exception = StoreUnreachable("no answer", subject="store", next_step="Start it.")

    def fails(*_: Any, **__: Any) -> Any:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(module, "mask_scene", fails)
        for _ in range(4):
            with pytest.raises(StoreUnreachable):
                drain(weights_id=weights_id)
        assert {lease.failures for lease in leases(served).values()} == {0}
        error = MemoryError("too large")
        for _ in range(SCENES + 1):  # each draw takes the one that has been free longest
            with pytest.raises(MemoryError):
                drain(weights_id=weights_id)
    assert sorted(lease.failures for lease in leases(served).values())[-1] == 1, "the next draw counts it"
    assert drain(weights_id=weights_id).created == SCENES


class _Terminate(logging.Handler):
    """Sends this process SIGTERM when the first message comes."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger("cloudseg.predict.scene").removeHandler(self)
        signal.raise_signal(signal.SIGTERM)


@sqlite_only
def test_no_scene_is_drawn_when_the_time_is_over(served: Any, weights_id: str, scene_ids: list[str]) -> None:
    record = drain(weights_id=weights_id, minutes=1e-9)
    assert (record.masks, record.time_is_over) == ([], True)
    assert drain(weights_id=weights_id).time_is_over is False
    assert drain(weights_id=weights_id, minutes=1).masks == [], "nothing is left"


def promote_beside(served: Any, weights_id: str, make_net: Callable[..., Any]) -> Weights:
    """Let readers see some weights, and make others, which are returned, the champion."""
    second, _ = served.add_weights(make_net((4, 6), seed=1))
    with served.catalog.begin() as db:
        for generation, (new, old) in enumerate([(weights_id, None), (second.weights_id, weights_id)], start=1):
            promotion = Promotion(
                generation=generation,
                weights_id=new,
                previous_weights_id=old,
                action="promote",
                verdict_id=None,
                actor="test",
                reason="",
                created_at=now() - timedelta(days=50),
            )
            assert model_rows.add_promotion(db, promotion)
        switch = ReaderSwitch(
            sequence=1,
            action="switch",
            mode="complete",
            weights_id=weights_id,
            effective_at=now() - timedelta(days=60),
            actor="test",
            reason="",
            created_at=now() - timedelta(days=60),
        )
        assert reader_rows.add_switch(db, switch)
    return second


@sqlite_only
def test_new_scenes_get_masks_of_the_champion_and_of_what_readers_see(
    served: Any, weights_id: str, make_net: Callable[..., Any], make_pixels: Callable[..., Any]
) -> None:
    with pytest.raises(NotInCatalog, match="champion"):
        drain()
    assert plan_drain(2) == [], "no champion yet"
    second = promote_beside(served, weights_id, make_net)
    old, new = add_scene(served, make_pixels, 1), add_scene(served, make_pixels, 2, created_at=now())
    assert [worker["name"] for worker in plan_drain(8)] == ["worker 1 of 3", "worker 2 of 3", "worker 3 of 3"]
    assert len(plan_drain(2)) == 2
    record = drain()
    assert record.weights_ids == [second.weights_id, weights_id]
    assert masked(served, second.weights_id) == {new}, "the old one is left to the backfill"
    assert masked(served, weights_id) == {old, new}
    assert plan_drain(2) == []


@sqlite_only
def test_masks_that_are_cleaned_just_so_are_drawn_beside_those_that_exist(
    served: Any, weights_id: str, scene_ids: list[str]
) -> None:
    assert drain(weights_id=weights_id).created == SCENES
    assert len(plan_drain(9, weights_id=weights_id, buffer_m=20)) == SCENES
    assert drain(weights_id=weights_id, buffer_m=20).created == SCENES
    assert plan_drain(9, weights_id=weights_id, buffer_m=20) == []
    assert leases(served) == {}


@sqlite_only
def test_a_scene_that_is_added_behind_a_workers_place_is_masked_too(
    served: Any, weights_id: str, scene_ids: list[str], make_pixels: Callable[..., Any], monkeypatch: Any
) -> None:
    """Two ingests may end in another order than they began."""
    found, late = lease_rows.find_waiting, []

    def find_waiting(*given: Any, **more: Any) -> Any:
        page = found(*given, **more)
        if not late:
            late.append(add_scene(served, make_pixels, 9, created_at=now() - timedelta(days=300)))
        return page

    monkeypatch.setattr(lease_rows, "find_waiting", find_waiting)
    drain(weights_id=weights_id)
    assert masked(served, weights_id) == {*scene_ids, *late}


def test_a_worker_needs_time_and_a_printable_name() -> None:
    with pytest.raises(InputError, match="minutes"):
        drain(minutes=0)
    for name in ("", " ", "a\nb", "x" * 201):
        with pytest.raises(InputError, match="not a name of a worker"):
            drain(worker=name)
    with pytest.raises(InputError, match="workers"):
        plan_drain(0)


@sqlite_only
def test_a_threshold_by_name_is_that_of_each_weights(
    served: Any, weights_id: str, make_net: Callable[..., Any], make_pixels: Callable[..., Any]
) -> None:
    assert plan_drain(1, threshold="careful") == [], "no champion yet"
    second = promote_beside(served, weights_id, make_net)
    with served.catalog.read() as db:
        promises = [evaluate_as(served, model_rows.get_weights(db, weights_id))]
    scene_id = add_scene(served, make_pixels, 1, created_at=now())
    for call in (lambda: drain(threshold="careful"), lambda: plan_drain(1, threshold="careful")):
        with pytest.raises(InputError, match="these weights have no careful threshold") as refused:
            call()
        assert refused.value.subject == second.weights_id
    promises.append(evaluate_as(served, second, number=1, cloud_from=25))
    assert len(plan_drain(8, threshold="careful")) == 2
    record = drain(threshold="careful")
    assert (record.created, record.failed) == (2, {})
    with served.catalog.read() as db:
        found = {row.weights_id: row.threshold for row in map(partial(model_rows.get_mask, db), record.masks)}
    expected = [promise.careful.threshold for promise in promises if promise.careful]
    assert found == dict(zip([weights_id, second.weights_id], expected, strict=True))
    assert expected[1] < expected[0]
    assert masked(served, weights_id) == {scene_id}
    assert plan_drain(8, threshold="careful") == []
