"""Opening a catalog, transactions, several processes at one SQLite file."""

import multiprocessing
import sqlite3
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import rows
from sqlalchemy import select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError, StatementError

from cloudseg.catalog import Catalog, model, scene, tables, training
from cloudseg.catalog.session import get_many
from cloudseg.catalog.tables import Utc
from cloudseg.errors import CatalogOutdated, CatalogUnreachable, CloudsegError, NotInCatalog, SettingsError
from cloudseg.records import Scene

CONTEXT = multiprocessing.get_context("forkserver")


# --- opening --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "catalog.db", "mysql://host/db", "nothing://x", "postgresql+nodriver://host/db", "sqlite://host:x/db"])
def test_unusable_urls_are_settings_errors(url: str):
    with pytest.raises(SettingsError, match="CLOUDSEG_CATALOG_URL"):
        Catalog(url)


def test_the_folder_is_made(tmp_path: Path):
    Catalog(f"sqlite:///{tmp_path}/a/b/catalog.db").upgrade()
    assert (tmp_path / "a" / "b" / "catalog.db").is_file()


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CatalogUnreachable, match="folder cannot be made"):
        Catalog(f"sqlite:///{tmp_path}/file/below/catalog.db")


def test_a_folder_with_a_percent_sign(tmp_path: Path):
    Catalog(f"sqlite:///{tmp_path}/100%25 sure/catalog.db").upgrade()


def test_a_file_that_is_no_database(tmp_path: Path):
    (tmp_path / "catalog.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(SettingsError, match="no SQLite database"):
        Catalog(f"sqlite:///{tmp_path}/catalog.db").check()


def test_a_folder_in_place_of_the_file(tmp_path: Path):
    with pytest.raises(CatalogUnreachable, match="does not answer"):
        Catalog(f"sqlite:///{tmp_path}").check()


# --- transactions ---------------------------------------------------------------------------------------------------


def test_begin_commits_and_undoes(catalog: Catalog):
    with catalog.begin() as db:
        scene.add_scene(db, rows.scene(1))
    with pytest.raises(ZeroDivisionError), catalog.begin() as db:
        _ = scene.add_scene(db, rows.scene(2)) / 0
    with catalog.read() as db:
        assert [s.scene_id for s in scene.list_scenes(db)] == [rows.scene(1).scene_id]


def test_read_refuses_to_write(catalog: Catalog):
    with pytest.raises(CloudsegError, match="readonly"), catalog.read() as db:
        scene.add_scene(db, rows.scene(1))
    with catalog.begin() as db:
        assert scene.add_scene(db, rows.scene(1))


def test_a_reader_sees_one_moment(catalog: Catalog):
    with catalog.read() as reader:
        assert scene.count_scenes(reader) == 0
        with catalog.begin() as writer:
            scene.add_scene(writer, rows.scene(1))
        assert scene.count_scenes(reader) == 0
    with catalog.read() as reader:
        assert scene.count_scenes(reader) == 1


def test_a_writer_waits_for_the_other(catalog: Catalog):
    inside, order = threading.Event(), []

    def second() -> None:
        inside.wait()
        with catalog.begin():
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with catalog.begin():
        inside.set()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_lock_that_never_ends_is_unreachable_not_a_traceback(tmp_path: Path, catalog: Catalog):
    catalog.engine.dispose()
    impatient = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    with impatient.read() as db:
        db.exec_driver_sql("PRAGMA busy_timeout=50")
    holder = sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(CatalogUnreachable, match="database is locked") as caught, impatient.begin():
        pass
    assert caught.value.retry_helps
    holder.close()


def test_faults_of_our_own_stay_visible(catalog: Catalog):
    with pytest.raises(OperationalError), catalog.read() as db:
        db.execute(text("SELEC 1"))
    with pytest.raises(CatalogOutdated, match="no such column"), catalog.read() as db:
        db.execute(text("SELECT absent FROM scene"))


# --- values ---------------------------------------------------------------------------------------------------------


def test_rows_come_back_as_they_went_in(full_catalog: Catalog):
    with full_catalog.read() as db:
        assert scene.get_scene(db, rows.scene(1).scene_id) == rows.scene(1)
        assert training.get_snapshot(db, "sn-1") == rows.snapshot()
        assert training.list_epochs(db, "run-1") == [rows.epoch(1)]
        assert model.get_mask(db, "mk-1") == rows.mask(1, of=1, by=1)
        assert model.get_verdict(db, "ve-1") == rows.verdict(1, challenger=1)
        assert scene.list_quarantined(db) == [rows.quarantined(1)]


def test_utc_refuses_naive_times():
    for dialect in (sqlite.dialect(), postgresql.dialect()):
        with pytest.raises(ValueError, match="naive time"):
            Utc().process_bind_param(datetime(2024, 1, 1), dialect)  # noqa: DTZ001
        assert Utc().process_bind_param(None, dialect) is None


def test_utc_refuses_naive_times_in_statements(catalog: Catalog):
    with pytest.raises(StatementError, match="naive time"), catalog.read() as db:
        db.execute(select(tables.scene).where(tables.scene.c.acquired_at < datetime(2024, 1, 1)))  # noqa: DTZ001


def test_utc_keeps_the_moment_not_the_zone(catalog: Catalog):
    elsewhere = datetime(2024, 6, 1, 2, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    with catalog.begin() as db:
        scene.add_scene(db, rows.scene(1, acquired_at=elsewhere))
    with catalog.read() as db:
        found = scene.get_scene(db, rows.scene(1).scene_id).acquired_at
    assert found == elsewhere
    assert found is not None
    assert found.tzinfo is UTC


def test_nan_is_refused_because_it_is_no_json(full_catalog: Catalog):
    with pytest.raises(StatementError, match="not JSON compliant"), full_catalog.begin() as db:
        training.add_epoch(db, rows.epoch(2).model_copy(update={"metrics": {"train_loss": float("nan")}}))


def test_get_many_keeps_the_order_and_names_the_missing(full_catalog: Catalog):
    wanted = [rows.scene(2).scene_id, rows.scene(1).scene_id]
    with full_catalog.read() as db:
        assert [s.scene_id for s in get_many(db, Scene, tables.scene, "scene_id", wanted)] == wanted
        with pytest.raises(NotInCatalog, match="sc-none: no such scene"):
            get_many(db, Scene, tables.scene, "scene_id", [*wanted, "sc-none"])


# --- several processes ----------------------------------------------------------------------------------------------


def _upgrade(url: str, gate: object, results: object, number: int) -> None:
    gate.wait()
    try:
        results.put(Catalog(url).upgrade())
    except Exception as error:
        results.put(repr(error))


def _ingest(url: str, gate: object, results: object, number: int) -> None:
    """Every process adds the same scenes and labels of its own."""
    catalog = Catalog(url)
    gate.wait()
    added = 0
    try:
        for turn in range(10):
            with catalog.begin() as db:
                added += scene.add_scene(db, rows.scene(turn))
                scene.add_label(db, rows.label(100 * turn + number, of=turn))
                model.add_weights(db, rows.weights(100 * turn + number))
                scene.decide_places(db, {"mgrs:31UDQ": ("train", "validation", "held_out")[number % 3]})
        results.put(added)
    except Exception as error:
        results.put(repr(error))


def _promote(url: str, gate: object, results: object, number: int) -> None:
    catalog = Catalog(url)
    gate.wait()
    with catalog.begin() as db:
        results.put(model.add_promotion(db, rows.promotion(1, of=number)))


def _run(task: object, url: str, processes: int) -> list[object]:
    gate, results = CONTEXT.Barrier(processes), CONTEXT.Queue()
    started = [CONTEXT.Process(target=task, args=(url, gate, results, number)) for number in range(processes)]
    for process in started:
        process.start()
    outcome = [results.get(timeout=100) for _ in started]
    for process in started:
        process.join(60)
    return outcome


def test_six_processes_make_one_catalog(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'new' / 'catalog.db'}"
    catalog = Catalog(url)
    assert _run(_upgrade, url, 6) == [catalog.head_revision()] * 6
    catalog.check()


def test_six_processes_write_without_loss_or_gap(tmp_path: Path, catalog: Catalog):
    outcome = _run(_ingest, f"sqlite:///{tmp_path / 'catalog.db'}", 6)
    assert all(isinstance(added, int) for added in outcome), outcome
    assert sum(outcome) == 10, "each scene was new exactly once"
    with catalog.read() as db:
        assert scene.count_scenes(db) == 10
        for turn in range(10):
            assert [label.version for label in scene.list_labels(db, rows.scene(turn).scene_id)] == [6, 5, 4, 3, 2, 1]
        assert [w.version for w in model.list_weights(db)] == list(range(60, 0, -1))
        assert db.execute(text("SELECT COUNT(*) FROM place")).scalar() == 1


def test_of_six_promotions_one_wins(tmp_path: Path, catalog: Catalog):
    with catalog.begin() as db:
        for number in range(6):
            model.add_weights(db, rows.weights(number))
    outcome = _run(_promote, f"sqlite:///{tmp_path / 'catalog.db'}", 6)
    assert sorted(outcome) == [False] * 5 + [True]
    with catalog.read() as db:
        assert len(model.list_promotions(db)) == 1
