"""The same catalog on a PostgreSQL server, where one is lent by TEST_POSTGRESQL_URL (an empty database of its own)."""

import multiprocessing
import os
from collections.abc import Iterator

import pytest
import rows
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from cloudseg.catalog import Catalog, model, scene, tables, training
from cloudseg.errors import CatalogOutdated, CatalogUnreachable

URL = os.environ.get("TEST_POSTGRESQL_URL", "")
CONTEXT = multiprocessing.get_context("forkserver")
pytestmark = pytest.mark.skipif(not URL, reason="no PostgreSQL: TEST_POSTGRESQL_URL is not set")


@pytest.fixture
def server() -> Iterator[Catalog]:
    catalog = Catalog(URL)
    catalog.upgrade()
    yield catalog
    catalog.downgrade("base")
    catalog.engine.dispose()


def _upgrade(results: object, number: int) -> None:
    try:
        results.put(Catalog(URL).upgrade())
    except Exception as error:
        results.put(repr(error))


def _write(results: object, number: int) -> None:
    catalog, added = Catalog(URL), 0
    try:
        for turn in range(10):
            with catalog.begin() as db:
                added += scene.add_scene(db, rows.scene(turn))
                scene.add_label(db, rows.label(100 * turn + number, of=turn))
                model.add_weights(db, rows.weights(100 * turn + number))
                scene.decide_places(db, {"mgrs:31UDQ": ("train", "validation", "held_out")[number % 3]})
                added_promotion = model.add_promotion(db, rows.promotion(turn + 1, of=100 * turn + number))
                added += 1000 * added_promotion
        results.put(added)
    except Exception as error:
        results.put(repr(error))


def _together(task: object, processes: int) -> list[object]:
    results = CONTEXT.Queue()
    started = [CONTEXT.Process(target=task, args=(results, number)) for number in range(processes)]
    for process in started:
        process.start()
    outcome = [results.get(timeout=100) for _ in started]
    for process in started:
        process.join(60)
    return outcome


def test_four_processes_upgrade(server: Catalog):
    server.downgrade("base")
    with pytest.raises(CatalogOutdated, match="an empty database"):
        server.check()
    with pytest.raises(CatalogOutdated, match='relation "scene" does not exist'), server.read() as db:
        scene.count_scenes(db)
    assert _together(_upgrade, 4) == [server.head_revision()] * 4
    server.check()


def test_four_processes_write_without_loss_or_gap(server: Catalog):
    outcome = _together(_write, 4)
    assert all(isinstance(added, int) for added in outcome), outcome
    assert sum(outcome) == 10_010, "ten new scenes and ten promotions, each exactly once"
    with server.read() as db:
        for turn in range(10):
            assert [label.version for label in scene.list_labels(db, rows.scene(turn).scene_id)] == [4, 3, 2, 1]
        assert [w.version for w in model.list_weights(db)] == list(range(40, 0, -1))
        assert len(model.list_promotions(db)) == 10


def test_migrations_make_the_schema_of_the_code(server: Catalog):
    with server.read() as db:
        assert compare_metadata(MigrationContext.configure(db, opts={"compare_type": True}), tables.metadata) == []


def test_rows_come_back_and_views_answer(server: Catalog):
    with server.begin() as db:
        assert scene.add_scene(db, rows.scene(1))
        assert scene.add_label(db, rows.label(1, of=1))
        training.add_snapshot(db, rows.snapshot(), {rows.label(1, of=1).label_id: "train"})
        training.add_run(db, rows.run())
        model.add_weights(db, rows.weights(1, run_id="run-1"))
        assert model.add_promotion(db, rows.promotion(1, of=1))
        assert model.add_mask(db, rows.mask(1, of=1, by=1))
    with server.read() as db:
        assert scene.get_scene(db, rows.scene(1).scene_id) == rows.scene(1)
        assert model.get_mask(db, "mk-1") == rows.mask(1, of=1, by=1)
        assert db.execute(text("SELECT probability_key FROM current_mask")).scalars().all() == ["masks/1/probability"]
        assert db.execute(text("SELECT is_champion FROM model_history")).scalars().all() == [True]
        assert db.execute(text("SELECT taught_as FROM mask_lineage")).scalars().all() == ["train"]
        assert db.execute(text("SELECT label_version FROM scene_label")).scalars().all() == [1]


def test_reads_refuse_to_write(server: Catalog):
    with pytest.raises(Exception, match="read-only transaction"), server.read() as db:
        scene.add_scene(db, rows.scene(1))


def test_a_server_that_is_not_there_is_unreachable():
    with pytest.raises(CatalogUnreachable) as caught:
        Catalog("postgresql+psycopg://somebody:secret@127.0.0.1:1/none").check()
    assert "secret" not in str(caught.value)
