"""Opening a catalog, transactions, values."""

import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import rows
from sqlalchemy import URL, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError, ProgrammingError, StatementError

from cloudseg.catalog import Catalog, model_rows, scene_rows, tables, training_rows
from cloudseg.catalog.session import advisory_lock
from cloudseg.catalog.tables import Utc
from cloudseg.errors import CatalogOutdated, CatalogUnreachable, SettingsError

# --- opening --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["", "catalog.db", "mysql://host/db", "nothing://x", "postgresql+nodriver://host/db", "sqlite://host:x/db"]
)
def test_unusable_urls_are_settings_errors(url: str):
    with pytest.raises(SettingsError, match="CLOUDSEG_CATALOG_URL"):
        Catalog(url)


def test_the_folder_is_created(tmp_path: Path):
    Catalog(f"sqlite:///{tmp_path}/a/b/catalog.db").upgrade()
    assert (tmp_path / "a" / "b" / "catalog.db").is_file()


def test_a_folder_that_cannot_be_created(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CatalogUnreachable, match="directory cannot be created"):
        Catalog(f"sqlite:///{tmp_path}/file/below/catalog.db")


def test_a_folder_with_a_percent_sign(tmp_path: Path):
    Catalog(f"sqlite:///{tmp_path}/100%25 sure/catalog.db").upgrade()


def test_a_new_catalog_waits_while_another_process_has_the_file(tmp_path: Path):
    """The switch to write-ahead logging fails at once where another process reads the file."""
    other = sqlite3.connect(tmp_path / "catalog.db", isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE t (a)")
    other.execute("BEGIN")
    other.execute("SELECT * FROM t").fetchall()
    threading.Timer(0.3, other.rollback).start()
    Catalog(f"sqlite:///{tmp_path}/catalog.db?timeout=0").revision()
    other.close()
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as fresh:
        assert fresh.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_that_is_no_database(tmp_path: Path):
    (tmp_path / "catalog.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(SettingsError, match="not a SQLite database"):
        Catalog(f"sqlite:///{tmp_path}/catalog.db").check()


def test_a_folder_in_place_of_the_file(tmp_path: Path):
    with pytest.raises(CatalogUnreachable, match="does not answer"):
        Catalog(f"sqlite:///{tmp_path}").check()


# --- transactions ---------------------------------------------------------------------------------------------------


def test_begin_commits_and_rolls_back(catalog: Catalog):
    with catalog.begin() as db:
        scene_rows.add_scene(db, rows.scene(1))
    with pytest.raises(ZeroDivisionError), catalog.begin() as db:
        _ = scene_rows.add_scene(db, rows.scene(2)) / 0
    with catalog.read() as db:
        assert [s.scene_id for s in scene_rows.list_scenes(db)] == [rows.scene(1).scene_id]


def test_read_refuses_to_write(catalog: Catalog):
    with pytest.raises(CatalogUnreachable, match=r"readonly|read-only"), catalog.read() as db:
        scene_rows.add_scene(db, rows.scene(1))
    with catalog.begin() as db:
        assert scene_rows.add_scene(db, rows.scene(1))


def test_a_reader_sees_one_snapshot(catalog: Catalog):
    with catalog.read() as reader:
        assert scene_rows.count_scenes(reader) == 0
        with catalog.begin() as writer:
            scene_rows.add_scene(writer, rows.scene(1))
        assert scene_rows.count_scenes(reader) == 0
    with catalog.read() as reader:
        assert scene_rows.count_scenes(reader) == 1


def test_a_writer_waits_for_the_other(catalog: Catalog):
    inside, order = threading.Event(), []

    def second() -> None:
        inside.wait()
        with catalog.begin() as db:
            advisory_lock(db, "a test")
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with catalog.begin() as db:
        advisory_lock(db, "a test")
        inside.set()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_lock_timeout_is_catalog_unreachable(catalog: Catalog, catalog_url: URL):
    options = {"timeout": "0.05"} if catalog_url.drivername == "sqlite" else {"options": "-c lock_timeout=50ms"}
    other = Catalog(catalog_url.update_query_dict(options))
    with catalog.begin() as holder:
        scene_rows.add_scene(holder, rows.scene(1))
        with (
            pytest.raises(CatalogUnreachable, match=r"database is locked|lock timeout") as caught,
            other.begin() as db,
        ):
            scene_rows.add_scene(db, rows.scene(1))
    assert caught.value.retry_helps
    other.engine.dispose()


def test_invalid_sql_is_not_translated(catalog: Catalog):
    with pytest.raises((OperationalError, ProgrammingError)), catalog.read() as db:
        db.execute(text("SELEC 1"))
    with pytest.raises(CatalogOutdated, match=r"no such column|column .* does not exist"), catalog.read() as db:
        db.execute(text("SELECT absent FROM scene"))


# --- values ---------------------------------------------------------------------------------------------------------


def test_rows_are_read_as_they_were_written(full_catalog: Catalog):
    with full_catalog.read() as db:
        assert scene_rows.get_scene(db, rows.scene(1).scene_id) == rows.scene(1)
        assert training_rows.get_snapshot(db, "sn-1") == rows.snapshot()
        assert training_rows.list_epochs(db, "run-1") == [rows.epoch(1)]
        assert model_rows.get_mask(db, "mk-1") == rows.mask(1, of=1, by=1)
        assert model_rows.get_verdict(db, "ve-1") == rows.verdict(1, challenger=1)
        assert scene_rows.list_quarantined(db) == [rows.quarantined(1)]


def test_utc_refuses_naive_times():
    for dialect in (sqlite.dialect(), postgresql.dialect()):
        with pytest.raises(ValueError, match="naive time"):
            Utc().process_bind_param(datetime(2024, 1, 1), dialect)  # noqa: DTZ001
        assert Utc().process_bind_param(None, dialect) is None


def test_utc_refuses_naive_times_in_statements(catalog: Catalog):
    with pytest.raises(StatementError, match="naive time"), catalog.read() as db:
        db.execute(select(tables.scene).where(tables.scene.c.acquired_at < datetime(2024, 1, 1)))  # noqa: DTZ001


def test_utc_keeps_the_instant_not_the_zone(catalog: Catalog):
    elsewhere = datetime(2024, 6, 1, 2, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    with catalog.begin() as db:
        scene_rows.add_scene(db, rows.scene(1, acquired_at=elsewhere))
    with catalog.read() as db:
        found = scene_rows.get_scene(db, rows.scene(1).scene_id).acquired_at
    assert found == elsewhere
    assert found is not None
    assert found.tzinfo is UTC


def test_nan_is_refused_in_json(full_catalog: Catalog):
    with pytest.raises((StatementError, ValueError), match="not JSON compliant"), full_catalog.begin() as db:
        training_rows.add_epoch(db, rows.epoch(2).model_copy(update={"metrics": {"train_loss": float("nan")}}))
