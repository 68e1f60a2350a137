"""Errors of the database as errors of this project: whether a retry helps, and what to do otherwise."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pydantic import ValidationError
from sqlalchemy.exc import DatabaseError, OperationalError

from cloudseg.errors import CatalogOutdated, CatalogUnreachable, CloudsegError, SettingsError, StateError

# Codes: postgresql.org/docs/current/errcodes-appendix.html. libpq returns none for a refused connection, and SQLite
# has none that distinguish these cases, so the message is matched there.
_NO_TABLE_OR_COLUMN = {"42P01", "42703", "3F000"}
_NOT_ALLOWED = {"42501"}
# A migration of tables that are there already. Codes: duplicate_table, duplicate_column, duplicate_object.
_EXISTS = ("already exists", "duplicate column")
_EXISTS_CODES = {"42P07", "42701", "42710"}
# SQLITE_FULL (sqlite.org/rescode.html); PostgreSQL's disk_full.
_FULL = "database or disk is full"
_FULL_CODES = {"53100"}
# Classes: connection, rollback, resources, operator intervention, system. Codes: read-only after a fail-over, lock. The
# driver calls more than these "operational".
_TRANSIENT_CLASSES = {"08", "40", "53", "57", "58"}
_TRANSIENT = {"25006", "55P03"}
_REFUSED_USER = (
    "authentication failed",
    "no pg_hba.conf entry",
    "permission denied for database",
    "is not permitted to log in",
)


@contextmanager
def translate_db_errors(uri: str) -> Iterator[None]:
    """Turn the database's errors into those of this project; errors in a statement itself are not translated.

    Args:
        uri: the catalog without its password, for messages.

    Raises:
        CatalogUnreachable: the catalog does not answer; a retry can help.
        CatalogOutdated: migrations are missing.
        SettingsError: the file, the database or the user is wrong.
    """
    try:
        yield
    except DatabaseError as error:
        if (translated := _translate(error, uri)) is None:
            raise
        raise translated from error
    except (ValueError, TypeError, OverflowError, LookupError) as error:
        # What the driver reads and no type of a column can be: text that is no UTF-8, JSON or time.
        if not _raised_while_reading(error):
            raise
        raise unreadable_row(uri, error) from error


_READERS: Final = ("sqlalchemy.", "psycopg.", "alembic.", "json.decoder")
"""Modules that turn the bytes of the database into values."""


def _raised_while_reading(error: Exception) -> bool:
    """Return whether the innermost Python frame of an error belongs to a reader of the database's bytes.

    Every other error of these classes is one of the caller's block, or a value that could not be written.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return isinstance(module, str) and module.startswith(_READERS)


def unreadable_row(uri: str, error: Exception) -> StateError:
    """Return the error of a row that holds what the service never writes.

    Args:
        uri: the catalog without its password.
        error: what its reader said.
    """
    found = (
        "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        if isinstance(error, ValidationError)
        else f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    )
    return StateError(
        "a row of the catalog cannot be read",
        subject=uri,
        found=found,
        expected="what this service writes",
        next_step="The catalog is damaged or was changed by hand: restore it from a backup.",
    )


def _translate(error: DatabaseError, uri: str) -> CloudsegError | None:
    """Return the error to raise, or None if the statement itself is wrong."""
    reason = str(error.orig).partition("\n")[0]  # PostgreSQL adds an excerpt of the statement
    code = getattr(error.orig, "sqlstate", None)
    if code is None and (refusal := _refused(reason, uri)) is not None:
        return refusal
    if any(sign in reason for sign in _EXISTS) or code in _EXISTS_CODES:
        return StateError(
            "the catalog's revision does not fit its tables",
            subject=uri,
            found=reason,
            next_step="Its table alembic_version was lost or changed: restore the catalog from a backup.",
        )
    if code in _FULL_CODES or _FULL in reason:
        return CatalogUnreachable(
            "the catalog's disk is full",
            subject=uri,
            found=reason,
            next_step="Make room on the disk of the catalog, then run the same command again.",
        )
    if code in _NO_TABLE_OR_COLUMN or any(sign in reason for sign in ("no such table", "no such column")):
        return CatalogOutdated(
            "the catalog lacks a table or a column", subject=uri, found=reason, next_step="Run `cloudseg db upgrade`."
        )
    if code in _NOT_ALLOWED:
        return SettingsError(
            "the database user lacks the permission",
            subject=uri,
            found=reason,
            next_step="Stages need a member of the role cloudseg_app, `cloudseg db` the owner: "
            "docs/how-to/postgresql.md.",
        )
    if not _is_transient(error, code) or "syntax error" in reason:
        return None
    return CatalogUnreachable(
        "the catalog does not answer",
        subject=uri,
        found=reason,
        next_step="Try again; `cloudseg doctor` reports details.",
    )


def _is_transient(error: DatabaseError, code: str | None) -> bool:
    """Return whether the same statement may succeed later."""
    if error.connection_invalidated:
        return True
    return isinstance(error, OperationalError) if code is None else code[:2] in _TRANSIENT_CLASSES or code in _TRANSIENT


def _refused(reason: str, uri: str) -> SettingsError | None:
    """Return the error of a file or a server that a retry does not change, or None."""
    if any(sign in reason for sign in ("not a database", "malformed", "Could not decode to UTF-8")):
        return SettingsError(
            "the catalog's file is damaged or not a SQLite database",
            subject=uri,
            found=reason,
            next_step="Restore it from a backup.",
        )
    if any(sign in reason for sign in _REFUSED_USER) or ('role "' in reason and "does not exist" in reason):
        return SettingsError(
            "the database server refuses this user",
            subject=uri,
            found=reason,
            next_step="Correct user and password in CLOUDSEG_CATALOG_URL, or allow the user on the server.",
        )
    if 'database "' in reason and "does not exist" in reason:
        return SettingsError(
            "the database does not exist on the server",
            subject=uri,
            found=reason,
            next_step="Create it, or correct CLOUDSEG_CATALOG_URL.",
        )
    return None
