"""The connection to the catalog: SQLite in a file by default, any SQLAlchemy URL otherwise."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Select, Table, create_engine, event, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, OperationalError

from cloudseg.errors import CatalogOutdated, CatalogUnreachable, NotInCatalog, SettingsError
from cloudseg.records import Record

log = logging.getLogger(__name__)
R = TypeVar("R", bound=Record)
_LOCK_WAIT_S = 60


def sql_folder() -> Path:
    """Give the folder with migrations and views: beside the package in a checkout, inside it in a wheel."""
    inside = Path(__file__).parents[1] / "_sql"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "sql"


class Catalog:
    """Facts in a database. `begin()` for one transaction that writes, `read()` for one that only looks."""

    def __init__(self, url: str) -> None:
        """Remember the URL; nothing is opened yet. Raises SettingsError for a URL that SQLAlchemy cannot read."""
        try:
            self._url = make_url(url)
        except ArgumentError as error:
            raise SettingsError(
                "not a database URL", subject="CLOUDSEG_CATALOG_URL", next_step="Example: sqlite:////srv/catalog.db"
            ) from error
        if self._url.get_backend_name() == "sqlite" and self._url.database:
            Path(self._url.database).absolute().parent.mkdir(parents=True, exist_ok=True)
        self.engine = _make_engine(url)

    @property
    def uri(self) -> str:
        """The URL without its password."""
        return self._url.render_as_string(hide_password=True)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a transaction that writes: committed at the end of the block, undone where it raises.

        On SQLite it takes the write lock at once, so that what was read inside still holds when it writes.
        """
        with _reachable(self.uri), self.engine.connect().execution_options(cloudseg_writes=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads."""
        with _reachable(self.uri), self.engine.connect() as connection, connection.begin():
            yield connection

    def upgrade(self) -> str:
        """Bring the schema to the newest revision and give its name. Running it again changes nothing."""
        with self.begin() as connection:
            config = self._alembic()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        return self.head_revision()

    def head_revision(self) -> str:
        """Give the newest revision that this version of the code knows."""
        return str(ScriptDirectory.from_config(self._alembic()).get_current_head())

    def revision(self) -> str | None:
        """Give the revision of the database, None for an empty one."""
        with self.read() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def check(self) -> None:
        """Raise CatalogOutdated where migrations are missing, CatalogUnreachable where nothing answers."""
        found, expected = self.revision(), self.head_revision()
        if found != expected:
            raise CatalogOutdated(
                "the catalog's schema is not that of this version", subject=self.uri, found=found or "an empty database",
                expected=expected, next_step="Run `cloudseg db upgrade`.",
            )  # fmt: skip

    def _alembic(self) -> Config:
        config = Config()
        config.set_main_option("script_location", str(sql_folder() / "migrations"))
        return config


def _make_engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": _LOCK_WAIT_S})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        # pysqlite must not open transactions by itself, or BEGIN IMMEDIATE below comes too late (SQLAlchemy docs, pysqlite).
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("cloudseg_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextmanager
def _reachable(uri: str) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        if "no such table" in str(error.orig):
            raise CatalogOutdated("the catalog has no tables yet", subject=uri, next_step="Run `cloudseg db upgrade`.") from error
        raise CatalogUnreachable(
            "the catalog does not answer", subject=uri, found=error.orig, next_step="Try again; `cloudseg doctor` tells more."
        ) from error


def now() -> datetime:
    """Give the time for a `created_at` column. Never used to decide what a stage works on."""
    return datetime.now(UTC)


def insert(db: Connection, table: Table, record: Record) -> bool:
    """Add a row; tell False, and change nothing, where a row with the same unique values is there."""
    build = sqlite.insert if db.dialect.name == "sqlite" else postgresql.insert
    statement = build(table).values(**record.model_dump()).on_conflict_do_nothing()
    return db.execute(statement).rowcount == 1


def fetch(db: Connection, kind: type[R], statement: Select[Any]) -> list[R]:
    """Give the rows of a statement as records."""
    return [kind.model_validate(dict(row._mapping)) for row in db.execute(statement)]


def fetch_one(db: Connection, kind: type[R], statement: Select[Any]) -> R | None:
    """Give the first row as a record, or None."""
    return next(iter(fetch(db, kind, statement.limit(1))), None)


def get_by(db: Connection, kind: type[R], table: Table, column: str, value: str) -> R:
    """Give the row whose column has the value. Raises NotInCatalog."""
    found = fetch_one(db, kind, select(table).where(table.c[column] == value))
    if found is None:
        raise NotInCatalog(f"no such {table.name}", subject=value, next_step=f"List what there is, then name a {column} from it.")
    return found


def get_many(db: Connection, kind: type[R], table: Table, column: str, values: Sequence[str]) -> list[R]:
    """Give rows in the order of the values. Raises NotInCatalog for the first that is missing."""
    return [get_by(db, kind, table, column, value) for value in values]
