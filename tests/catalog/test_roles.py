"""Privileges of the roles on PostgreSQL: what each may do and what must be refused."""

import secrets
from collections.abc import Iterator

import pytest
import rows
from postgres_server import run_sql
from sqlalchemy import URL, inspect, text

from cloudseg.catalog import (
    Catalog,
    backfill_rows,
    drift_rows,
    lease_rows,
    model_rows,
    quarantine_rows,
    reader_rows,
    removal_rows,
    scene_rows,
    tables,
    training_rows,
)
from cloudseg.catalog.roles import ROLES
from cloudseg.catalog.session import sql_folder
from cloudseg.catalog.views import _VIEWS
from cloudseg.errors import SettingsError, StateError
from cloudseg.records import Backfill


@pytest.fixture(params=["postgresql", "postgis"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def roles(full_catalog: Catalog) -> Catalog:
    full_catalog.make_roles()
    return full_catalog


def user(url: URL, role: str | None) -> Iterator[Catalog]:
    """Yield a catalog opened as a new user that has this role only."""
    name, password = f"user_{secrets.token_hex(4)}", secrets.token_hex(8)
    run_sql(url, f"CREATE ROLE {name} LOGIN PASSWORD '{password}'" + (f" IN ROLE {role}" if role else ""))
    catalog = Catalog(url.set(username=name, password=password))
    yield catalog
    catalog.engine.dispose()
    run_sql(url, f"DROP ROLE {name}")


@pytest.fixture
def app(roles: Catalog, catalog_url: URL) -> Iterator[Catalog]:
    yield from user(catalog_url, "cloudseg_app")


@pytest.fixture
def airflow(roles: Catalog, catalog_url: URL) -> Iterator[Catalog]:
    yield from user(catalog_url, "cloudseg_airflow")


@pytest.fixture
def gis(roles: Catalog, catalog_url: URL) -> Iterator[Catalog]:
    yield from user(catalog_url, "gis_reader")


@pytest.fixture
def without_role(roles: Catalog, catalog_url: URL) -> Iterator[Catalog]:
    yield from user(catalog_url, None)


def refused(catalog: Catalog, statement: str) -> None:
    with (
        pytest.raises(SettingsError, match=r"permission denied|must be owner|must have admin option") as caught,
        catalog.begin() as db,
    ):
        db.execute(text(statement))
    assert not caught.value.retry_helps


OWNER_ONLY = [
    "CREATE TABLE mine (a int)",
    "CREATE TEMPORARY TABLE mine (a int)",
    "CREATE SCHEMA mine",
    "DROP TABLE mask",
    "DROP VIEW published_mask",
    "ALTER TABLE scene ADD COLUMN mine int",
    "TRUNCATE scene",
    "CREATE ROLE mine",
    "DELETE FROM scene",
    "DELETE FROM label",
    "INSERT INTO retired_snapshot VALUES ('sn-1', 'rm-1', 1, now())",
    "INSERT INTO removal SELECT * FROM removal",
    "UPDATE removal SET lifted_at = now()",
    "DELETE FROM removal",
    "DELETE FROM alert",
    "UPDATE alert SET opened_at = now()",
    "DELETE FROM promotion",
    "DELETE FROM reader_switch",
    "UPDATE reader_switch SET weights_id = NULL",
    "DELETE FROM backfill_scene",
    "DELETE FROM quarantine_release",
    "UPDATE quarantine_release SET actor = 'another'",
    "UPDATE scene_brightness SET reflectance = 0",
    "UPDATE promotion SET weights_id = 'w-2'",
    "UPDATE place SET split = 'train'",
    "UPDATE mask SET cloud_fraction = 0",
    "UPDATE run SET seed = 1",
    "UPDATE alembic_version SET version_num = '0001_create_catalog'",
    "GRANT cloudseg_app TO gis_reader",
]


@pytest.mark.parametrize("role", ["app", "airflow", "gis"])
def test_owner_only_statements_are_refused(request: pytest.FixtureRequest, role: str, backend: str):
    catalog = request.getfixturevalue(role)
    for statement in OWNER_ONLY:
        refused(catalog, statement)


def test_the_app_does_what_stages_do(app: Catalog, roles: Catalog):
    app.check()
    with roles.begin() as db:
        for table in reversed(tables.metadata.sorted_tables):
            db.execute(table.delete())
    rows.fill(app)
    with app.begin() as db:
        training_rows.set_run_status(db, "run-1", "finished")
        training_rows.delete_checkpoint(db, "run-1", 10)
        assert quarantine_rows.release(db, rows.quarantined(1), actor="test", reason="")
        assert drift_rows.add_brightness(db, rows.brightness(1))
        assert db.execute(tables.evaluation.delete()).rowcount == 1
        assert model_rows.get_mask(db, "mk-1") == rows.mask(1, of=1, by=1)
        assert reader_rows.add_switch(db, rows.reader_switch(1, of=2))
        plan = Backfill(backfill_id="bf-1", weights_id="w-2", night="1", megapixels=1, created_at=rows.START)
        assert backfill_rows.add_plan(db, plan, ["sc-00000000000000000002"])
        wanted = lease_rows.Wanted("w-2")
        assert lease_rows.add_waiting(db, wanted, lease_rows.find_waiting(db, wanted)) == 1
        drawn = lease_rows.draw(db, wanted, "worker")
        assert drawn is not None
        lease_rows.release(db, wanted, "worker", [drawn.scene_id])
        assert db.execute(text("SELECT mask_id FROM mask_as_of(now())")).scalars().all() == ["mk-2"]
        removal_rows.set_finished(db, "rm-1")  # maintenance completes a removal that the owner began
    refused(app, "DELETE FROM mask")


def test_the_app_can_neither_upgrade_nor_create_roles(app: Catalog):
    with pytest.raises(SettingsError, match="cloudseg db"):
        app.upgrade()
    with pytest.raises(SettingsError, match="only the owner"):
        app.make_roles()


def test_airflow_reads_and_writes_nothing(airflow: Catalog):
    airflow.check()
    with airflow.read() as db:
        assert scene_rows.count_scenes(db) == 2
        assert len(db.execute(text("SELECT * FROM champion_history")).all()) == 2
        assert db.execute(text("SELECT mask_id FROM mask_as_of(now())")).scalars().all() == ["mk-1"]
    refused(airflow, "INSERT INTO place VALUES ('mgrs:31UDQ', 'train', now())")
    refused(airflow, "DELETE FROM quarantine")


def test_a_gis_reader_sees_no_table_and_no_internal_view(gis: Catalog):
    for name in sorted({*tables.metadata.tables, *_VIEWS, "alembic_version"}):
        refused(gis, f"SELECT * FROM public.{name}")  # noqa: S608
    refused(gis, "SELECT * FROM public.mask_as_of(now())")


def test_a_gis_reader_reads_the_two_views_and_writes_nothing(backend: str, gis: Catalog):
    with gis.read() as db:
        found = inspect(db).get_view_names("gis")
    if backend == "postgresql":
        assert found == []
        return
    with gis.read() as db:
        assert db.execute(text("SELECT count(*) FROM gis.masks")).scalar() == 2
        assert db.execute(text("SELECT count(*) FROM gis.scenes")).scalar() == 2
    refused(gis, "SELECT * FROM gis.store")
    refused(gis, "INSERT INTO scene (scene_id) VALUES ('x')")
    refused(gis, "CREATE TABLE gis.mine (a int)")


def test_a_user_without_role_is_refused(without_role: Catalog):
    with pytest.raises(SettingsError, match="refuses this user"):
        without_role.check()


def test_an_upgrade_restores_the_grants_of_recreated_views(
    roles: Catalog, airflow: Catalog, gis: Catalog, backend: str
):
    roles.upgrade()
    with airflow.read() as db:
        assert len(db.execute(text("SELECT * FROM training_run")).all()) == 1
    if backend == "postgis":
        with gis.read() as db:
            assert db.execute(text("SELECT count(*) FROM gis.masks")).scalar() == 2


def test_later_objects_are_readable_by_the_service_but_not_by_gis_readers(roles: Catalog, app: Catalog, gis: Catalog):
    with roles.begin() as db:
        db.execute(text("CREATE VIEW my_own AS SELECT 1 AS one"))
    with app.read() as db:
        assert db.execute(text("SELECT one FROM my_own")).scalar() == 1
    refused(gis, "SELECT * FROM my_own")


def test_running_it_again_changes_nothing(roles: Catalog):
    assert roles.make_roles() == []
    with roles.read() as db:
        found = db.execute(
            text("SELECT rolname, rolcanlogin, rolsuper, rolcreaterole FROM pg_roles WHERE rolname = ANY(:names)"),
            {"names": list(ROLES)},
        )
        assert {tuple(row) for row in found} == {(role, False, False, False) for role in ROLES}


def test_the_grants_list_every_table_and_view():
    grants = (sql_folder() / "roles" / "0002_grants.sql").read_text("utf-8")
    revoked = grants.partition("FROM PUBLIC, cloudseg_app")[0].rpartition("REVOKE ALL ON\n")[2]
    named = {name.strip() for name in revoked.replace("\n", " ").split(",")}
    assert named == {*tables.metadata.tables, *_VIEWS, "alembic_version"}


@pytest.mark.parametrize("backend", ["sqlite"])
def test_sqlite_has_no_roles(catalog: Catalog):
    with pytest.raises(StateError, match="no roles"):
        catalog.make_roles()
