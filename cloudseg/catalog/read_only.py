"""A catalog that cannot be written, whatever is asked of it, and that stops long queries: for readers from outside."""

import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import URL, event

from cloudseg.catalog.session import _POSTGRESQL, Catalog

_STEPS: Final = 20_000
"""Instructions of SQLite between two looks at the clock: some milliseconds."""


def open_read_only(catalog: Catalog, *, timeout_s: float, connections: int = 5) -> Catalog:
    """Return the same catalog through connections that cannot write.

    SQLite opens the file with `mode=ro` (sqlite.org/uri.html). PostgreSQL gets `default_transaction_read_only`, and
    every transaction begins with SET TRANSACTION READ ONLY, because psycopg asks for READ WRITE once SQLAlchemy has
    reset a connection. A role that may only read (`cloudseg_airflow`) is the stronger fence there.

    Args:
        catalog: of the settings.
        timeout_s: seconds after which the database stops a statement (PostgreSQL) or a transaction (SQLite).
        connections: those that are kept open.
    """
    url = catalog.engine.url
    if catalog.engine.dialect.name == "sqlite":
        return _read_only_file(url, timeout_s, connections)
    ours = f"-c default_transaction_read_only=on -c statement_timeout={round(1000 * timeout_s)}"
    given = url.query.get("options", _POSTGRESQL["options"])
    readers = Catalog(url.update_query_dict({"options": f"{given} {ours}"}), connections=connections)

    @event.listens_for(readers.engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")

    return readers


def _read_only_file(url: URL, timeout_s: float, connections: int) -> Catalog:
    path = Path(url.database or "").absolute()
    catalog = Catalog(
        URL.create("sqlite", database=f"file:{quote(str(path))}", query={**url.query, "mode": "ro", "uri": "true"}),
        connections=connections,
    )

    @event.listens_for(catalog.engine, "begin")
    def _begin(connection: Any) -> None:
        ends_at = time.monotonic() + timeout_s
        driver = connection.connection.driver_connection
        driver.set_progress_handler(lambda: int(time.monotonic() > ends_at), _STEPS)

    return catalog
