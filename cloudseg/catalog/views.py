"""The views of `sql/views`: plain SELECTs for people with a SQL client, made anew by every `Catalog.upgrade`.

They hold no data, so they need no migration: the numbered files are their only source, each one `CREATE VIEW` that SQLite
and PostgreSQL both read. Migrations run without them, because SQLite alters no table that a view names.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect

_OURS = ("current_mask", "mask_lineage", "model_history", "published_mask", "scene_label")
"""Every view that a version of cloudseg has made: what to drop. A view that somebody else made is left alone."""


def create_views(db: Connection, folder: Path) -> list[str]:
    """Run the files `NNNN_name.sql` in order and give their names."""
    files = sorted(folder.glob("[0-9]*.sql"))
    for file in files:
        db.exec_driver_sql(file.read_text(encoding="utf-8"))
    return [file.name for file in files]


def drop_views(db: Connection) -> None:
    """Drop our views, the last made first; those that are not there are passed over."""
    there = set(inspect(db).get_view_names())
    for name in _OURS:
        if name in there:
            db.exec_driver_sql(f"DROP VIEW {name}")
