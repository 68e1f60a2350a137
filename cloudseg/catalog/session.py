"""The connection to the catalog: SQLite in a file by default, any SQLAlchemy URL otherwise."""

import logging
import sqlite3
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import ValidationError
from sqlalchemy import URL, Connection, Engine, Row, Select, Table, create_engine, event, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, OperationalError

from cloudseg.backoff import pauses
from cloudseg.catalog.db_errors import translate_db_errors, unreadable_row
from cloudseg.catalog.roles import make_roles, restore_privileges
from cloudseg.catalog.scene_box import create_triggers
from cloudseg.catalog.views import create_functions, create_gis_views, drop_views, run_files
from cloudseg.errors import CatalogOutdated, CatalogUnreachable, NotInCatalog, SettingsError, StateError
from cloudseg.keys import canonical_json
from cloudseg.records import Record

log = logging.getLogger(__name__)
R = TypeVar("R", bound=Record)
_LOCK_WAIT_S = 60
_RESTART_WAIT_S = 30
"""How long to wait for a server that answered before: a restart takes seconds, a fail-over somewhat longer."""
_POSTGRESQL = {
    "application_name": "cloudseg",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    # A worker that hangs inside a transaction holds its locks: others stop waiting, and the server ends the
    # transaction. The second limit is long because maintenance reads manifests from the store between two statements.
    "options": f"-c lock_timeout={_LOCK_WAIT_S}s -c idle_in_transaction_session_timeout=30min",
}
"""Parameters of libpq; those in the URL take precedence (postgresql.org/docs/current/libpq-connect.html)."""


def sql_folder() -> Path:
    """Return the folder with migrations and views: next to the package in a checkout, inside it in a wheel."""
    inside = Path(__file__).parents[1] / "_sql"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "sql"


class Catalog:
    """The database of the catalog: `begin()` opens a transaction that writes, `read()` one that only reads."""

    def __init__(self, url: str | URL, *, connections: int = 5) -> None:
        """Create the engine, and the directory of a SQLite file; no connection is opened yet.

        Args:
            url: of the database.
            connections: those that are kept open; ten more are opened when they are needed, and closed again.

        Raises:
            SettingsError: the URL names no SQLite or PostgreSQL database, or its driver is not installed.
            CatalogUnreachable: the directory cannot be created.
        """
        try:
            self._url = make_url(url)
            self.engine = _make_engine(self._url, connections)
        except (ArgumentError, ImportError, ValueError) as error:
            raise SettingsError(
                "not the URL of a SQLite or PostgreSQL database",
                subject="CLOUDSEG_CATALOG_URL",
                found=type(error).__name__,
                expected="sqlite:////folder/catalog.db or postgresql+psycopg://user@host/database",
                next_step="Correct the URL, or install the driver that it names.",
            ) from error
        _make_folder(self._url)
        self._answered = False
        # A web page opens a catalog for each request: its connections are closed with it, not by a later garbage
        # collection.
        weakref.finalize(self, self.engine.dispose)

    @property
    def uri(self) -> str:
        """The URL without its password."""
        return self._url.render_as_string(hide_password=True)

    @property
    def file(self) -> Path | None:
        """The absolute path of a SQLite file, also of one that is opened read-only; None for a server or in memory."""
        database = self._url.database
        if self._url.get_backend_name() != "sqlite" or not database or database.startswith(":"):
            return None
        return Path(unquote(urlsplit(database).path) if database.startswith("file:") else database).absolute()

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a transaction that writes: committed at the end of the block, rolled back if it raises.

        On SQLite it takes the write lock at once, so that what was read inside is still valid when it writes. On
        PostgreSQL every statement sees what others have committed (READ COMMITTED): unique constraints decide between
        two writers, and `advisory_lock` if these do not suffice.
        """
        with self._transaction(cloudseg_writes=True) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads: all its statements see the same snapshot, and a write is refused."""
        isolation = {} if self.engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
        with self._transaction(postgresql_readonly=True, **isolation) as connection:
            yield connection

    def upgrade(self, *, url: str | None = None, gdal: str | None = None) -> str:
        """Migrate the schema to the newest revision, recreate the views and return the name of the revision.

        Running it again changes nothing; of two concurrent processes, one waits.

        Args:
            url: prefix of a key in the URI of an object, for the views in schema `gis`.
            gdal: prefix of a key in the path by which GDAL opens an object, for the same views.

        Raises:
            CatalogOutdated: a newer version of the code made the catalog.
        """
        head = self.head_revision()
        with self._migration() as (connection, config):
            self._refuse_unknown(MigrationContext.configure(connection).get_current_revision())
            command.upgrade(config, "head")
            create_triggers(connection)
            run_files(connection, sql_folder() / "views")
            create_functions(connection, sql_folder() / "functions")
            create_gis_views(connection, sql_folder() / "gis", url, gdal)
            restore_privileges(connection, sql_folder() / "roles")
        return head

    def make_roles(self) -> list[str]:
        """Create the roles of `sql/roles` that are missing, grant all privileges and return the names of the new ones.

        Running it again changes nothing.

        Raises:
            StateError: SQLite has no users.
            SettingsError: the user may not create roles, or does not own the database.
        """
        if self.engine.dialect.name != "postgresql":
            raise StateError(
                "SQLite has no users and no roles",
                subject=self.uri,
                next_step="Use the permissions of the file.",
            )
        self.check()
        with self.begin() as connection:
            advisory_lock(connection, "migrations")
            return make_roles(connection, sql_folder() / "roles")

    def downgrade(self, revision: str) -> None:
        """Migrate the schema back to a revision (`base`: to nothing) and drop the rows that need it. For developers."""
        with self._migration() as (_, config):
            command.downgrade(config, revision)

    def head_revision(self) -> str:
        """Return the newest revision of this version of the code."""
        return str(ScriptDirectory.from_config(self._alembic()).get_current_head())

    def revision(self) -> str | None:
        """Return the revision of the database, None for an empty one."""
        with self.read() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def check_upgrade(self) -> None:
        """Check that `upgrade` can bring this schema to the newest revision; change nothing.

        Raises:
            CatalogOutdated: a newer version of the code made the catalog.
            StateError: the revision does not fit the tables, or something else is in the catalog's place.
        """
        found = self.revision()
        self._refuse_unknown(found)
        if self.engine.dialect.name == "sqlite" and found != self.head_revision():
            with self.read() as connection:
                # Without the tables that belong to an R-tree, which makes them itself, and triggers last.
                schema = (
                    connection.exec_driver_sql(
                        "SELECT sql FROM sqlite_master WHERE sql NOT NULL "
                        "AND name NOT IN ('scene_box_node', 'scene_box_rowid', 'scene_box_parent') "
                        "ORDER BY type = 'trigger', type <> 'table'"
                    )
                    .scalars()
                    .all()
                )
            _try_migrations(schema, found)

    def check(self) -> None:
        """Check that the schema is that of this version.

        Raises:
            CatalogOutdated: migrations are missing, or another version made the catalog.
            CatalogUnreachable: the database does not answer.
        """
        found, expected = self.revision(), self.head_revision()
        self._refuse_unknown(found)
        if found != expected:
            raise CatalogOutdated(
                "the catalog's schema is older than this version",
                subject=self.uri,
                found=found or "an empty database",
                expected=expected,
                next_step="Run `cloudseg db upgrade`.",
            )

    def _refuse_unknown(self, revision: str | None) -> None:
        known = {script.revision for script in ScriptDirectory.from_config(self._alembic()).walk_revisions()}
        if revision is not None and revision not in known:
            raise CatalogOutdated(
                "another version of cloudseg made this catalog",
                subject=self.uri,
                found=revision,
                expected=self.head_revision(),
                next_step="Install the version that made it, or a newer one.",
            )

    @contextmanager
    def _transaction(self, **options: Any) -> Iterator[Connection]:
        with (
            translate_db_errors(self.uri),
            self._connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            yield connection

    def _connect(self) -> Connection:
        """Open a connection, and wait for a server that answered before: it may be restarting.

        Only here is it safe to wait, because the transaction has not begun. A connection that breaks later ends as
        CatalogUnreachable, and the caller runs the stage again.
        """
        answered_before = self._answered and self.engine.dialect.name == "postgresql"
        for pause in pauses(within_s=_RESTART_WAIT_S if answered_before else 0, longest_s=2):
            try:
                connection = self.engine.connect()
            except OperationalError as error:
                if pause is None:
                    raise
                log.warning("the catalog does not answer, trying again: %s", str(error.orig).partition("\n")[0])
                time.sleep(pause)
            else:
                self._answered = True
                return connection
        raise AssertionError("the last pause is None")

    @contextmanager
    def _migration(self) -> Iterator[tuple[Connection, Config]]:
        """Open a transaction for Alembic, one at a time, without views: SQLite renames no table that a view names."""
        with self._transaction(cloudseg_writes=True, cloudseg_migrates=True) as connection:
            advisory_lock(connection, "migrations")
            drop_views(connection)
            config = self._alembic()
            config.attributes["connection"] = connection
            yield connection, config
            if connection.dialect.name == "sqlite" and (
                orphan := connection.exec_driver_sql("PRAGMA foreign_key_check").first()
            ):
                raise RuntimeError(f"the migration leaves a row that names nothing: {tuple(orphan)}")

    def _alembic(self) -> Config:
        config = Config()
        config.set_main_option("script_location", str(sql_folder() / "migrations").replace("%", "%%"))
        return config


def _try_migrations(schema: Sequence[str], revision: str | None) -> None:
    """Migrate an empty database of the same schema, in memory.

    Raises:
        StateError: the tables are not those of the revision.
    """
    with tempfile.TemporaryDirectory(prefix="cloudseg-schema-") as folder:
        copy = Catalog(URL.create("sqlite", database=str(Path(folder) / "schema.db")))
        try:
            with copy._transaction(cloudseg_writes=True) as connection:
                for statement in schema:
                    if not statement.upper().startswith("CREATE TABLE SQLITE_"):
                        connection.exec_driver_sql(statement)
                if revision is not None:
                    connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (revision,))
            copy.upgrade()
        finally:
            copy.engine.dispose()


def _make_folder(url: URL) -> None:
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")):
        return
    try:
        Path(url.database).absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CatalogUnreachable(
            "the catalog's directory cannot be created", subject=url.database, found=error.strerror
        ) from error


def _make_engine(url: URL, connections: int) -> Engine:
    if url.drivername.startswith("postgresql"):
        return _make_postgresql_engine(url, connections)
    if url.get_backend_name() != "sqlite":
        raise ArgumentError(f"{url.get_backend_name()} is not supported")
    wait = {} if "timeout" in url.query else {"timeout": _LOCK_WAIT_S}
    # A database in memory has one connection and takes no size of a pool.
    pool = {} if url.database in (None, "", ":memory:") else {"pool_size": connections}
    engine = create_engine(url, connect_args=wait, json_serializer=_json_text, **pool)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        # pysqlite must not open transactions on its own, or BEGIN IMMEDIATE below comes too late (SQLAlchemy
        # documentation, pysqlite).
        connection.isolation_level = None
        _switch_to_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        writes, migrates = options.get("cloudseg_writes", False), options.get("cloudseg_migrates", False)
        # Alembic copies and drops tables: with foreign keys on, dropping one deletes what points to it. Only before
        # BEGIN does this pragma have an effect (sqlite.org/foreignkeys.html).
        connection.exec_driver_sql(f"PRAGMA foreign_keys={'OFF' if migrates else 'ON'}")
        connection.exec_driver_sql(f"PRAGMA query_only={'OFF' if writes else 'ON'}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Switch the database to write-ahead logging; a file that is in that mode stays so.

    The switch needs the file for itself and does not wait for that like any other statement (sqlite.org/wal.html,
    "Sometimes queries return SQLITE_BUSY in WAL mode"): two processes that open a new catalog at once get in each
    other's way.
    """
    for pause in pauses(within_s=_LOCK_WAIT_S, longest_s=1):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except UnicodeDecodeError as error:  # SQLite's message quotes the damaged schema
            raise sqlite3.DatabaseError("malformed database schema") from error
        except sqlite3.OperationalError as error:
            if pause is None or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(pause)


def _make_postgresql_engine(url: URL, connections: int) -> Engine:
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise ArgumentError(f"the driver of {url.drivername} is not supported")
    ours = {name: value for name, value in _POSTGRESQL.items() if name not in url.query}
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        pool_size=connections,
        connect_args=ours,
        json_serializer=_json_text,
    )


def _json_text(value: Any) -> str:
    """Return JSON for a column.

    Raises:
        ValueError: the value holds NaN, which is not JSON; SQLite would accept it.
    """
    return canonical_json(value).decode()


def now() -> datetime:
    """Return the time for a `created_at` column; what a stage works on never depends on it."""
    return datetime.now(UTC)


def insert(db: Connection, table: Table, record: Record) -> bool:
    """Add a row; return False, and change nothing, if a row with the same unique values exists."""
    build = sqlite.insert if db.dialect.name == "sqlite" else postgresql.insert
    # RETURNING, not rowcount: SQLAlchemy does not keep the row count of an INSERT on PostgreSQL.
    statement = (
        build(table).values(**record.model_dump()).on_conflict_do_nothing().returning(*table.primary_key.columns)
    )
    return db.execute(statement).first() is not None


def advisory_lock(db: Connection, what: str) -> None:
    """Hold PostgreSQL's advisory lock of this name until the transaction ends; SQLite has one writer at a time anyway.

    Args:
        db: a transaction that writes.
        what: the name of the lock.
    """
    if db.dialect.name == "postgresql":
        db.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"cloudseg {what}", 0))))


def fetch(db: Connection, kind: type[R], statement: Select[Any]) -> list[R]:
    """Return the rows of a statement as records.

    Raises:
        StateError: a row holds what no record can.
    """
    return [_record(db, kind, row) for row in db.execute(statement)]


def fetch_one(db: Connection, kind: type[R], statement: Select[Any]) -> R | None:
    """Return the first row as a record, or None."""
    row = db.execute(statement.limit(1)).first()
    return None if row is None else _record(db, kind, row)


def _record(db: Connection, kind: type[R], row: Row[Any]) -> R:
    try:
        return kind.model_validate(dict(row._mapping))
    except ValidationError as error:
        raise unreadable_row(db.engine.url.render_as_string(hide_password=True), error) from error


WHERE_LISTED = {
    "scene": "`cloudseg scenes` lists the scenes.",
    "snapshot": "`cloudseg snapshot` prints the id of today's, `cloudseg runs` those of trainings.",
    "run": "`cloudseg runs` lists the trainings.",
    "weights": "`cloudseg models` lists the weights.",
    "mask": "`cloudseg masks` lists the masks.",
    "label": "`cloudseg labels list` lists the labels.",
    "quarantine": "`cloudseg quarantine` lists the files.",
    "verdict": "`cloudseg history` lists the decisions.",
    "removal": "`cloudseg remove list` lists the removals.",
}
"""The command that lists the rows of a table."""


def get_by(db: Connection, kind: type[R], table: Table, column: str, value: str) -> R:
    """Return the row whose column has the value.

    Raises:
        NotInCatalog: there is no such row.
    """
    found = fetch_one(db, kind, select(table).where(table.c[column] == value))
    if found is None:
        raise NotInCatalog(f"no such {table.name}", subject=value, next_step=WHERE_LISTED.get(table.name, ""))
    return found
