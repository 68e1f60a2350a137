"""Alembic runs inside a connection that `Catalog.upgrade` opened; there is no alembic.ini and no URL in a file."""

from alembic import context

from cloudseg.catalog.tables import metadata
from cloudseg.catalog.views import is_migrated

connection = context.config.attributes["connection"]
# Batch mode: SQLite cannot alter a column, so Alembic copies the table.
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    include_object=is_migrated,
)
with context.begin_transaction():
    context.run_migrations()
