"""Migrations on real databases with rows: upgrade, downgrade, upgrade again."""

from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Column, Text, inspect, select, text

from cloudseg import records
from cloudseg.catalog import Catalog, tables
from cloudseg.catalog.session import sql_folder
from cloudseg.catalog.views import is_migrated
from cloudseg.errors import CatalogOutdated

ROW_CLASSES = {
    "scene": records.Scene,
    "label": records.Label,
    "label_event": records.LabelEvent,
    "place": records.Place,
    "quarantine": records.Quarantined,
    "quarantine_release": records.QuarantineRelease,
    "scene_brightness": records.SceneBrightness,
    "snapshot": records.Snapshot,
    "run": records.Run,
    "epoch": records.Epoch,
    "checkpoint": records.Checkpoint,
    "weights": records.Weights,
    "evaluation": records.Evaluation,
    "verdict": records.Verdict,
    "promotion": records.Promotion,
    "mask": records.Mask,
    "decision": records.Decision,
    "reader_switch": records.ReaderSwitch,
    "prediction_lease": records.PredictionLease,
    "backfill": records.Backfill,
    "backfill_scene": records.BackfillScene,
    "removal": records.Removal,
    "retired_snapshot": records.RetiredSnapshot,
    "alert": records.Alert,
}


POSTGIS = {"spatial_ref_sys", "geometry_columns", "geography_columns"}
PARTS = """
    SELECT table_schema || '.' || table_name, column_name || ' ' || data_type FROM information_schema.columns
    WHERE table_schema IN ('public', 'gis')
    UNION ALL SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2
"""


def names(catalog: Catalog) -> set[str]:
    with catalog.read() as db:
        return (set(inspect(db).get_table_names()) | set(inspect(db).get_view_names())) - POSTGIS


def schema(catalog: Catalog) -> list[Any]:
    with catalog.read() as db:
        sqlite = db.dialect.name == "sqlite"
        return list(db.execute(text("SELECT name, sql FROM sqlite_master ORDER BY name" if sqlite else PARTS)))


def test_upgrade_downgrade_upgrade_with_rows(full_catalog: Catalog):
    before = names(full_catalog)
    assert full_catalog.revision() == full_catalog.head_revision()
    full_catalog.downgrade("base")
    assert names(full_catalog) == {"alembic_version"}
    assert full_catalog.revision() is None
    full_catalog.upgrade()
    assert names(full_catalog) == before
    full_catalog.check()


def test_every_revision_downgrades_and_upgrades_with_rows(full_catalog: Catalog):
    _, *before, first = [
        script.revision for script in ScriptDirectory(str(sql_folder() / "migrations")).walk_revisions()
    ]
    for revision in [*before, first]:
        full_catalog.downgrade(revision)
        with full_catalog.read() as db:
            assert db.execute(select(tables.scene.c.scene_id)).all() != []
        full_catalog.upgrade()
        full_catalog.downgrade(revision)
    full_catalog.downgrade("base")
    full_catalog.upgrade()
    full_catalog.check()


def test_upgrading_again_changes_nothing(full_catalog: Catalog):
    before = schema(full_catalog)
    assert len(before) > 20
    assert full_catalog.upgrade() == full_catalog.head_revision()
    assert schema(full_catalog) == before
    with full_catalog.read() as db:
        assert db.execute(select(tables.scene.c.scene_id)).all() != []


@pytest.mark.filterwarnings("ignore:Did not recognize type 'geometry'")
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
def test_migrations_create_the_schema_of_the_tables_module(catalog: Catalog):
    with catalog.read() as db:
        context = MigrationContext.configure(db, opts={"compare_type": True, "include_object": is_migrated})
        assert compare_metadata(context, tables.metadata) == []


def test_migrations_have_one_head():
    scripts = ScriptDirectory(str(sql_folder() / "migrations"))
    assert len(scripts.get_heads()) == 1
    for path in Path(scripts.versions).glob("*.py"):
        assert path.stem in {script.revision for script in scripts.walk_revisions()}, "the file's name is its revision"


@pytest.mark.parametrize("name", sorted(set(tables.metadata.tables) - {"snapshot_label"}))
def test_a_table_has_the_columns_of_its_record(name: str):
    table, record = tables.metadata.tables[name], ROW_CLASSES[name]
    assert list(table.columns.keys()) == list(record.model_fields)
    for column in table.columns:
        optional = type(None) in getattr(record.model_fields[column.name].annotation, "__args__", ())
        assert column.nullable == optional, f"{name}.{column.name}"


@pytest.mark.parametrize("backend", ["sqlite"])
def test_foreign_keys_survive_a_copied_table(full_catalog: Catalog):
    """SQLite alters a table by copying and dropping it; with foreign keys on, that would fail or delete labels."""
    with full_catalog._migration() as (db, _):
        operations = Operations(MigrationContext.configure(db))
        with operations.batch_alter_table("scene", recreate="always") as batch:
            batch.add_column(Column("note", Text))
    with full_catalog.read() as db:
        assert db.execute(text("SELECT COUNT(*) FROM label")).scalar() == 2
        assert db.execute(text("PRAGMA foreign_keys")).scalar() == 1
        assert "note" in db.execute(text("SELECT sql FROM sqlite_master WHERE name = 'scene'")).scalar_one()


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_migration_that_breaks_foreign_keys_is_rolled_back(full_catalog: Catalog):
    with pytest.raises(RuntimeError, match="names nothing"), full_catalog._migration() as (db, _):
        db.execute(text("DELETE FROM scene"))
    with full_catalog.read() as db:
        assert db.execute(text("SELECT COUNT(*) FROM scene")).scalar() == 2


def test_an_empty_catalog_names_the_command_to_run(empty_url: URL):
    catalog = Catalog(empty_url)
    with pytest.raises(CatalogOutdated, match=r"found an empty database.*cloudseg db upgrade"):
        catalog.check()
    with (
        pytest.raises(CatalogOutdated, match=r'no such table: scene|relation "scene" does not exist'),
        catalog.read() as db,
    ):
        db.execute(select(tables.scene))
    catalog.engine.dispose()


def test_a_newer_catalog_is_refused_and_unchanged(full_catalog: Catalog):
    with full_catalog.begin() as db:
        db.execute(text("UPDATE alembic_version SET version_num = '9999_from_the_future'"))
    for attempt in (full_catalog.check, full_catalog.upgrade):
        with pytest.raises(CatalogOutdated, match=r"another version of cloudseg.*9999_from_the_future"):
            attempt()
    with full_catalog.read() as db:
        assert "published_mask" in inspect(db).get_view_names()
