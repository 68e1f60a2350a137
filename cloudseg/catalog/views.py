"""The views of `sql/views`, on PostgreSQL the functions of `sql/functions`, and on PostGIS the geometry and `sql/gis`.

Every upgrade recreates them.

They hold no data, so they need no migration: the numbered files are their only source. Those of
`sql/views` are each one `CREATE VIEW` that SQLite and PostgreSQL both read. Migrations run without them, because SQLite
alters no table that a view names.
"""

import logging
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, inspect, select, text

log = logging.getLogger(__name__)

_VIEWS = (
    "champion_history",
    "current_mask",
    "label_state",
    "mask_lineage",
    "mask_version",
    "model_history",
    "published_mask",
    "reader_history",
    "reader_model",
    "scene_label",
    "training_run",
)
"""Every view that any version of cloudseg created: what to drop. Other views are not touched."""
_GIS = ("masks", "scenes", "store")
_FUNCTIONS = ("mask_as_of(timestamptz)",)
_NOT_COMPARED = {
    ("table", "spatial_ref_sys"),
    ("column", "footprint"),
    ("index", "ix_scene_footprint"),
    # Over expressions, or only in one kind of database: migration 0008.
    *(("index", name) for name in ("ix_scene_box", "ix_mask_cloud_cover", "ix_mask_weights_id_cloud_cover")),
    *(("table", f"scene_box{part}") for part in ("", "_node", "_rowid", "_parent")),
}


def run_files(db: Connection, folder: Path, pattern: str = "[0-9]*.sql") -> list[str]:
    """Run the files `NNNN_name.sql` of a folder in order and return their names."""
    files = sorted(folder.glob(pattern))
    for file in files:
        # Without this option the driver would take a percent sign for a placeholder.
        db.exec_driver_sql(file.read_text(encoding="utf-8"), execution_options={"no_parameters": True})
    return [file.name for file in files]


def create_functions(db: Connection, folder: Path) -> None:
    """Create the functions for SQL clients; SQLite has none."""
    if db.dialect.name == "postgresql":
        run_files(db, folder)


def create_gis_views(db: Connection, folder: Path, url: str | None, gdal: str | None) -> bool:
    """Create the geometry of scenes and the views of schema `gis`; return False if the database has no PostGIS.

    Every upgrade checks, so PostGIS may be installed later.

    Args:
        db: the transaction of the upgrade.
        folder: of the SQL files.
        url: prefix of a key in the URI of an object; None: the views have none.
        gdal: prefix of a key in the path by which GDAL opens an object; None: the views have none.
    """
    if db.dialect.name != "postgresql":
        return False
    if not db.execute(text("SELECT count(*) FROM pg_extension WHERE extname = 'postgis'")).scalar_one():
        log.warning(
            "the database has no PostGIS: no geometry and no schema gis. "
            "An administrator may run CREATE EXTENSION postgis, and the next `cloudseg db upgrade` adds them."
        )
        return False
    db.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS gis")
    store = (
        "CREATE VIEW gis.store AS SELECT %L::text AS url, %L::text AS gdal"  # %L turns its argument into an SQL literal
    )
    db.exec_driver_sql(
        db.execute(select(func.format(store, url, gdal))).scalar_one(), execution_options={"no_parameters": True}
    )
    made = run_files(db, folder)
    log.info("the database has PostGIS: ran %s", ", ".join(made))
    return True


def drop_views(db: Connection) -> None:
    """Drop the views and functions of this project that exist."""
    if db.dialect.name == "postgresql":  # first: gis.masks names published_mask
        for name in _GIS:
            db.exec_driver_sql(f"DROP VIEW IF EXISTS gis.{name}")
        for name in _FUNCTIONS:  # they return rows of a view
            db.exec_driver_sql(f"DROP FUNCTION IF EXISTS {name}")
    there = set(inspect(db).get_view_names())
    for name in _VIEWS:
        if name in there:
            db.exec_driver_sql(f"DROP VIEW {name}")


def is_migrated(_: Any, name: str | None, kind: str, reflected: bool, counterpart: Any) -> bool:
    """Return whether the module of tables describes an object of the schema (Alembic's `include_object`).

    PostGIS's own table and the geometry are created elsewhere, and some indexes are described by their migration only.
    """
    return not (reflected and counterpart is None and (kind, name) in _NOT_COMPARED)
