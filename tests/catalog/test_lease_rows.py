"""Leases of scenes: no scene is drawn twice while its lease holds, and a lease ends by the database's clock."""

import multiprocessing
from datetime import timedelta

import pytest
import rows
from sqlalchemy import URL, select, text, update

from benchmarks import catalog_scale as scale
from cloudseg.catalog import Catalog, lease_rows, model_rows, removal_rows, scene_rows
from cloudseg.catalog import tables as t
from cloudseg.catalog.lease_rows import Wanted
from cloudseg.records import PredictionLease

W1 = Wanted("w-1")
CONTEXT = multiprocessing.get_context("forkserver")
SCENES = 60
WORKERS = 4


@pytest.fixture
def waiting(catalog: Catalog) -> Catalog:
    """Return a catalog with 60 scenes that wait, a row each."""
    add_scenes(catalog, SCENES)
    with catalog.begin() as db:
        page = lease_rows.find_waiting(db, W1)
        assert lease_rows.add_waiting(db, W1, page) == SCENES
    return catalog


def add_scenes(catalog: Catalog, count: int) -> None:
    with catalog.begin() as db:
        model_rows.add_weights(db, rows.weights(1))
        model_rows.add_weights(db, rows.weights(2))
        for number in range(count):
            scene_rows.add_scene(db, rows.scene(number))


def draw(catalog: Catalog, worker: str, **more: float) -> str | None:
    with catalog.begin() as db:
        drawn = lease_rows.draw(db, W1, worker, **more)
    return drawn.scene_id if drawn else None


def leases(catalog: Catalog) -> dict[str, PredictionLease]:
    with catalog.read() as db:
        return {
            row.scene_id: PredictionLease.model_validate(dict(row._mapping))
            for row in db.execute(select(t.prediction_lease))
        }


def end_leases(catalog: Catalog) -> None:
    """Let every lease have ended a second ago, as if its time had passed."""
    with catalog.begin() as db:
        db.execute(update(t.prediction_lease).values(until=lease_rows.DatabaseTime(-1)))


def sc(number: int) -> str:
    return rows.scene(number).scene_id


def test_scenes_wait_oldest_first_page_by_page(catalog: Catalog):
    add_scenes(catalog, 5)
    with catalog.begin() as db:
        scene_rows.add_scene(db, rows.scene(5, publishable=False))
        scene_rows.add_scene(db, rows.scene(6, bands=["red", "green", "nir"]))
        model_rows.add_mask(db, rows.mask(1, of=1, by=1))
        model_rows.add_mask(db, rows.mask(2, of=2, by=2))
    such = Wanted("w-1", bands=["red", "green", "blue"])
    with catalog.read() as db:
        first = lease_rows.find_waiting(db, such, most=2)
        assert [scene.scene_id for scene in first] == [sc(0), sc(2)]
        rest = lease_rows.find_waiting(db, such, after=first[-1])
        assert [scene.scene_id for scene in rest] == [sc(3), sc(4)]
        newer = such._replace(since=rows.START + timedelta(hours=3))
        assert lease_rows.find_waiting(db, newer) == rest, "ingested at that moment or later"
        assert len(lease_rows.find_waiting(db, W1)) == 5, "a scene without blue"
        assert len(lease_rows.find_waiting(db, such._replace(cleaning='{"buffer_m":60.0}'))) == 5, "no mask is such"


def test_what_is_added_is_drawn_once_and_released_with_its_mask(waiting: Catalog):
    drawn = {draw(waiting, f"worker {number % 3}") for number in range(SCENES)}
    assert drawn == {sc(number) for number in range(SCENES)}
    assert draw(waiting, "worker 0") is None
    with waiting.begin() as db:
        assert lease_rows.find_waiting(db, W1) == []
        model_rows.add_mask(db, rows.mask(1, of=1, by=1))
        lease_rows.release(db, W1, "worker 2", [sc(1), sc(2)])
        assert lease_rows.count_open(db, W1) == SCENES - 1, "the other scene was drawn by worker 2, the mask's by 1"
    assert sc(2) not in leases(waiting)


def test_a_page_is_added_once(waiting: Catalog):
    with waiting.begin() as db:
        page = [lease_rows.Waiting(rows.scene(number).created_at, sc(number)) for number in range(SCENES)]
        assert lease_rows.add_waiting(db, W1, page) == 0
        assert lease_rows.add_waiting(db, Wanted("w-2"), page) == SCENES, "other weights have leases of their own"
        model_rows.add_mask(db, rows.mask(1, of=1, by=1))
        assert lease_rows.add_waiting(db, W1._replace(cleaning='{"threshold":0.9}'), page) == SCENES


def test_a_scene_that_got_its_mask_meanwhile_is_not_added(catalog: Catalog):
    add_scenes(catalog, 2)
    with catalog.begin() as db:
        page = lease_rows.find_waiting(db, W1)
        model_rows.add_mask(db, rows.mask(1, of=1, by=1))
        assert lease_rows.add_waiting(db, W1, page) == 1


def test_a_lease_holds_until_its_time_is_over_by_the_databases_clock(waiting: Catalog):
    first, *_ = [draw(waiting, "dead") for _ in range(SCENES)]
    assert draw(waiting, "alive") is None
    end_leases(waiting)
    with waiting.begin() as db:
        drawn = lease_rows.draw(db, W1, "alive")
    assert (drawn.failures, drawn.is_lost, drawn.has_mask) == (1, True, False)
    assert first in leases(waiting)
    assert leases(waiting)[drawn.scene_id].worker == "alive"
    assert draw(waiting, "dead", lease_s=60) not in (drawn.scene_id, None)


def test_a_worker_that_lives_renews_what_it_holds(waiting: Catalog):
    scene_id = draw(waiting, "alive", lease_s=1)
    before = leases(waiting)[scene_id].until
    with waiting.begin() as db:
        assert lease_rows.renew(db, W1, "alive") == 1
        assert lease_rows.renew(db, W1, "another") == 0
    assert timedelta(seconds=500) < leases(waiting)[scene_id].until - before < timedelta(seconds=700)


def test_a_new_process_of_the_same_name_takes_up_what_the_former_one_held(waiting: Catalog):
    held = draw(waiting, "job 7")
    draw(waiting, "job 8")
    with waiting.begin() as db:
        model_rows.add_mask(db, rows.mask(1, of=int(held[3:]), by=1))
        assert lease_rows.give_up(db, W1, "job 7", is_lost=True) == 1
        assert lease_rows.count_open(db, W1, "job 7") == SCENES - 1
    end = [lease for lease in leases(waiting).values() if lease.worker == "job 7"]
    assert [lease.scene_id for lease in end] == [held]
    found = []
    while (drawn := _draw_all(waiting)) is not None:
        found.append(drawn)
    (again,) = [drawn for drawn in found if drawn.scene_id == held]
    assert (again.is_lost, again.has_mask) == (True, True), "the static STAC catalog may not show that mask yet"


def _draw_all(catalog: Catalog) -> lease_rows.Drawn | None:
    with catalog.begin() as db:
        return lease_rows.draw(db, W1, "job 7")


def test_a_scene_that_failed_is_held_back_longer_each_time(waiting: Catalog):
    scene_id = draw(waiting, "worker")
    error = {"error": "DataError", "what": "broken"}
    for failures, hours in ((1, 1), (2, 2), (3, 4), (6, 24), (30, 24)):
        with waiting.begin() as db:
            lease_rows.fail(db, W1, "worker", scene_id, error, failures=failures)
            assert lease_rows.count_failed(db, W1) == 1
            clock = db.execute(select(lease_rows.DatabaseTime())).scalar_one()
        held = leases(waiting)[scene_id]
        assert abs(held.until - clock - timedelta(hours=hours)) < timedelta(seconds=5)
        assert (held.failures, held.error) == (failures, error)
        with waiting.begin() as db:
            db.execute(
                update(t.prediction_lease)
                .where(t.prediction_lease.c.scene_id == scene_id)
                .values(until=lease_rows.DatabaseTime(-1e9))
            )
            drawn = lease_rows.draw(db, W1, "worker")
        assert (drawn.scene_id, drawn.failures, drawn.is_lost) == (scene_id, failures, False), "free the longest"
        assert leases(waiting)[scene_id].error is None


def test_a_removed_scene_takes_its_lease_along(waiting: Catalog):
    with waiting.begin() as db:
        held = removal_rows.find_holdings(db, sc(3))
        removal_rows.delete_rows(db, held)
    assert sc(3) not in leases(waiting)


def _work(url: URL, name: str, gate: object, results: object) -> None:
    """Draw until nothing is left, and publish a mask for each scene."""
    catalog, found = Catalog(url), []
    gate.wait()
    while (scene_id := draw(catalog, name)) is not None:
        found.append(scene_id)
        with catalog.begin() as db:
            model_rows.add_mask(db, rows.mask(int(scene_id[3:]), of=int(scene_id[3:]), by=1))
            lease_rows.release(db, W1, name, [scene_id])
    results.put(found)
    catalog.engine.dispose()


def test_processes_draw_at_the_same_time_and_no_scene_twice(waiting: Catalog, catalog_url: URL):
    gate, results = CONTEXT.Barrier(WORKERS), CONTEXT.Queue()
    processes = [
        CONTEXT.Process(target=_work, args=(catalog_url, f"worker {number}", gate, results))
        for number in range(WORKERS)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=100) for _ in processes]
    for process in processes:
        process.join(60)
    drawn = [scene_id for each in found for scene_id in each]
    assert sorted(drawn) == [sc(number) for number in range(SCENES)], "each once"
    assert leases(waiting) == {}


def test_no_worker_waits_for_another_that_draws(waiting: Catalog, backend: str):
    """With a lock of the first row alone the second draw would wait for the first transaction to end."""
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    with waiting.begin() as first:
        one = lease_rows.draw(first, W1, "first")
        with waiting.begin() as second:
            second.execute(text("SET LOCAL lock_timeout = '2s'"))
            other = lease_rows.draw(second, W1, "second")
    assert other is not None
    assert one.scene_id != other.scene_id


def test_a_page_and_a_draw_read_no_more_than_they_need(catalog_url: URL, backend: str):
    """Neither may read all scenes, masks or leases: there may be a million of each."""
    url = catalog_url if backend == "sqlite" else catalog_url.update_query_dict({"options": "-c enable_seqscan=off"})
    catalog = Catalog(url)
    scale.fill(catalog, 4000)
    wanted = Wanted(scale.CHAMPION, bands=["red"])
    with catalog.begin() as db:
        assert len(lease_rows.find_waiting(db, wanted)) == 2
        page = lease_rows.find_waiting(db, wanted, most=1)
        lease_rows.add_waiting(db, wanted, page)
    searches = {
        # Pages are small beside the catalog, as they are beside a large one: of 4000 scenes a server may sort some.
        "page": lambda db: lease_rows.find_waiting(db, wanted, most=10),
        "next page": lambda db: lease_rows.find_waiting(db, wanted, after=page[0], most=10),
        "count": lambda db: lease_rows.count_open(db, wanted),
    }
    for name, search in searches.items():
        found = "\n".join(scale.plan(catalog, search, analyze=False))
        assert "Seq Scan" not in found, found
        assert "Sort" not in found, found
        assert "TEMP B-TREE" not in found, found
        # In the order of an index, from its beginning to the limit: SQLite calls that a scan too.
        in_order = "SCAN scene USING INDEX ix_scene_created_at_scene_id"
        scans = [line for line in found.splitlines() if "SCAN" in line.split() and "VIRTUAL" not in line]
        full = [line for line in scans if line != in_order]
        assert full == [], found
        if name != "count":
            assert "ix_scene_created_at_scene_id" in found, found
            assert "ix_mask_weights_id_scene_id" in found or "mask_scene_id_weights_id" in found, found
    with catalog.begin() as db:
        assert lease_rows.draw(db, wanted, "worker") is not None
    catalog.engine.dispose()


def test_a_page_is_found_in_the_order_of_the_index_also_where_reading_all_scenes_is_allowed(catalog: Catalog):
    """A server that expects few scenes to wait reads all of them and sorts; then each page costs as much as all do."""
    scale.fill(catalog, 4000)
    wanted = Wanted(scale.FORMER, bands=["red"])  # nearly all wait
    found = "\n".join(scale.plan(catalog, lambda db: lease_rows.find_waiting(db, wanted, most=50), analyze=False))
    assert "ix_scene_created_at_scene_id" in found, found
    assert "Sort" not in found, found
