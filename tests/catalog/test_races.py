"""Several processes use one catalog.

The first one wins, nothing is lost or duplicated, and a dead process blocks no other.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import rows
from lock_waits import wait_until_sessions_wait
from sqlalchemy import URL, text

from cloudseg.catalog import Catalog, model_rows, scene_rows
from cloudseg.registry import champion
from cloudseg.storage import LocalStore

CONTEXT = multiprocessing.get_context("forkserver")


def _upgrade(url: URL, number: int) -> object:
    return Catalog(url).upgrade()


def _ingest(url: URL, number: int) -> object:
    """Add the same scenes as all other processes, other labels and weights, and another split for the same place."""
    catalog, added = Catalog(url), 0
    for turn in range(10):
        with catalog.begin() as db:
            added += scene_rows.add_scene(db, rows.scene(turn))
            scene_rows.add_label(db, rows.label(100 * turn + number, of=turn))
            model_rows.add_weights(db, rows.weights(100 * turn + number))
            scene_rows.decide_places(db, {"mgrs:31UDQ": ("train", "validation", "held_out")[number % 3]})
    return added


def _add_generation(url: URL, number: int) -> object:
    with Catalog(url).begin() as db:
        return model_rows.add_promotion(db, rows.promotion(1, of=number))


def _promote(url: URL, folder: str, number: int) -> object:
    """All processes expect champion w-0; each promotes its own weights."""
    return champion.promote(
        LocalStore(Path(folder)),
        Catalog(url),
        f"w-{number}",
        expected_champion="w-0",
        verdict_id=None,
        actor=str(number),
        reason="race",
    ).generation


def _same_promotion(url: URL, folder: str, number: int) -> object:
    """All processes are attempts of one task."""
    return champion.promote(
        LocalStore(Path(folder)),
        Catalog(url),
        "w-1",
        expected_champion="w-0",
        verdict_id=None,
        actor="task",
        reason="race",
    ).generation


def _same_rollback(url: URL, folder: str, number: int) -> object:
    """All processes are attempts of one task."""
    return champion.rollback(
        LocalStore(Path(folder)), Catalog(url), expected_champion="w-1", actor="task", reason="race"
    ).generation


def _hang(url: URL, inside: object) -> None:
    """Hold a writer's locks until this process is killed."""
    with Catalog(url).begin() as db:
        scene_rows.add_scene(db, rows.scene(1, name="of the dead"))
        inside.set()
        time.sleep(600)


def _call(task: object, gate: object, results: object, arguments: tuple[object, ...]) -> None:
    gate.wait()
    try:
        results.put(task(*arguments))
    except Exception as error:
        results.put(repr(error))


def together(task: object, *arguments: object, processes: int) -> list[object]:
    """Call `task(*arguments, number)` in many processes at the same time; an error is returned as its text."""
    gate, results = CONTEXT.Barrier(processes), CONTEXT.Queue()
    started = [
        CONTEXT.Process(target=_call, args=(task, gate, results, (*arguments, number))) for number in range(processes)
    ]
    for process in started:
        process.start()
    outcome = [results.get(timeout=100) for _ in started]
    for process in started:
        process.join(60)
    return outcome


def test_six_processes_migrate_one_catalog(empty_url: URL):
    catalog = Catalog(empty_url)
    assert together(_upgrade, empty_url, processes=6) == [catalog.head_revision()] * 6
    catalog.check()
    catalog.engine.dispose()


def test_six_processes_write_without_loss_or_gap(catalog: Catalog, catalog_url: URL):
    outcome = together(_ingest, catalog_url, processes=6)
    assert all(isinstance(added, int) for added in outcome), outcome
    assert sum(outcome) == 10, "each scene was new exactly once"
    with catalog.read() as db:
        assert scene_rows.count_scenes(db) == 10
        for turn in range(10):
            assert [label.version for label in rows.labels_of(db, rows.scene(turn).scene_id)] == [6, 5, 4, 3, 2, 1]
        assert [w.version for w in model_rows.list_weights(db)] == list(range(60, 0, -1))
        assert db.execute(text("SELECT COUNT(*) FROM place")).scalar() == 1


def test_a_generation_is_assigned_once(catalog: Catalog, catalog_url: URL):
    with catalog.begin() as db:
        for number in range(8):
            model_rows.add_weights(db, rows.weights(number))
    assert sorted(together(_add_generation, catalog_url, processes=8)) == [False] * 7 + [True]


@pytest.fixture
def contest(catalog: Catalog, store: LocalStore) -> Iterator[Catalog]:
    """Return a catalog with nine weights and their bytes; the first is the champion."""
    with catalog.begin() as db:
        for number in range(9):
            stored = store.put(f"models/w-{number}/model.safetensors", f"models {number}".encode())
            model_rows.add_weights(db, rows.weights(number).model_copy(update=stored.model_dump()))
    champion.promote(store, catalog, "w-0", expected_champion=None, verdict_id=None, actor="test", reason="first")
    return catalog


def test_of_eight_promotions_one_wins_and_sets_the_pointer(contest: Catalog, catalog_url: URL, store: LocalStore):
    outcome = together(_promote, catalog_url, str(store.root), processes=8)
    winners = [generation for generation in outcome if isinstance(generation, int)]
    losers = [error for error in outcome if "PromotionRefused" in str(error)]
    # w-0 is the champion already: the process that wants it is refused too.
    assert (winners, len(losers)) == ([2], 7), outcome
    with contest.read() as db:
        assert [p.generation for p in model_rows.list_promotions(db)] == [2, 1]
    assert champion.is_pointer_right(store, contest)


def test_eight_attempts_of_one_promotion_are_one_promotion(contest: Catalog, catalog_url: URL, store: LocalStore):
    assert together(_same_promotion, catalog_url, str(store.root), processes=8) == [2] * 8
    with contest.read() as db:
        assert [p.generation for p in model_rows.list_promotions(db)] == [2, 1]


@pytest.mark.parametrize(("attempt", "generation"), [(_same_promotion, 2), (_same_rollback, 3)])
def test_two_concurrent_attempts_are_one(
    contest: Catalog, catalog_url: URL, store: LocalStore, attempt: Callable[..., object], generation: int
):
    """Both have read the current champion before either writes: without a lock the second would be refused."""
    if contest.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    if attempt is _same_rollback:
        _same_promotion(catalog_url, str(store.root), 0)
    with ThreadPoolExecutor(2) as pool:
        with contest.begin() as db:
            db.execute(text("LOCK TABLE promotion IN SHARE MODE"))  # rows can be read and not added
            attempts = [pool.submit(attempt, catalog_url, str(store.root), number) for number in (1, 2)]
            wait_until_sessions_wait(contest, attempts)
        assert [one.result(60) for one in attempts] == [generation] * 2


def test_a_worker_killed_while_holding_a_lock_blocks_no_other(catalog: Catalog, catalog_url: URL):
    inside = CONTEXT.Event()
    process = CONTEXT.Process(target=_hang, args=(catalog_url, inside))
    process.start()
    assert inside.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    with catalog.begin() as db:
        assert scene_rows.add_scene(db, rows.scene(1)), "what the dead process wrote was undone"
    process.join(60)
