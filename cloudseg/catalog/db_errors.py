"""What a database's errors mean to cloudseg: which of them may pass, and what to do about the others."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DatabaseError, OperationalError

from cloudseg.errors import CatalogOutdated, CatalogUnreachable, CloudsegError, SettingsError

# Codes: postgresql.org/docs/current/errcodes-appendix.html. libpq gives none for a connection that was refused, nor has
# SQLite any that tell these apart, so there the message decides.
_NO_TABLE_OR_COLUMN = {"42P01", "42703", "3F000"}
_NOT_ALLOWED = {"42501"}
# The driver calls more than these "operational": connection, rollback, resources, intervention, system; read-only after
# a fail-over, lock.
_PASSING_CLASSES = {"08", "40", "53", "57", "58"}
_PASSING = {"25006", "55P03"}
_REFUSED_USER = (
    "authentication failed",
    "no pg_hba.conf entry",
    "permission denied for database",
    "is not permitted to log in",
)


@contextmanager
def translate_db_errors(uri: str) -> Iterator[None]:
    """Turn the database's errors into our own; `uri` names the catalog, without a password.

    Raises CatalogUnreachable where a retry can help, CatalogOutdated where migrations are missing, SettingsError where
    the file, the database or the user is wrong. Faults of our own, such as a syntax error, stay as they are.
    """
    try:
        yield
    except DatabaseError as error:
        if (fault := _fault(error, uri)) is None:
            raise
        raise fault from error


def _fault(error: DatabaseError, uri: str) -> CloudsegError | None:
    reason = str(error.orig).partition("\n")[0]  # PostgreSQL goes on with a drawing of the statement
    code = getattr(error.orig, "sqlstate", None)
    if code is None and (refusal := _refused(reason, uri)) is not None:
        return refusal
    if code in _NO_TABLE_OR_COLUMN or any(sign in reason for sign in ("no such table", "no such column")):
        return CatalogOutdated(
            "the catalog lacks a table or a column", subject=uri, found=reason, next_step="Run `cloudseg db upgrade`."
        )
    if code in _NOT_ALLOWED:
        return SettingsError(
            "the database user may not do this",
            subject=uri,
            found=reason,
            next_step="Stages need a member of the role cloudseg_app, `cloudseg db` the owner (docs/how-to/postgresql.md).",
        )
    if not _passes(error, code) or "syntax error" in reason:
        return None
    return CatalogUnreachable(
        "the catalog does not answer", subject=uri, found=reason, next_step="Try again; `cloudseg doctor` tells more."
    )


def _passes(error: DatabaseError, code: str | None) -> bool:
    if error.connection_invalidated:
        return True
    return isinstance(error, OperationalError) if code is None else code[:2] in _PASSING_CLASSES or code in _PASSING


def _refused(reason: str, uri: str) -> SettingsError | None:
    """Return the error of a file or a server that answers and will say the same next time."""
    if "not a database" in reason or "malformed" in reason:
        return SettingsError(
            "the catalog's file is damaged or no SQLite database",
            subject=uri,
            found=reason,
            next_step="Restore it from a backup.",
        )
    if any(sign in reason for sign in _REFUSED_USER) or ('role "' in reason and "does not exist" in reason):
        return SettingsError(
            "the database server refuses this user",
            subject=uri,
            found=reason,
            next_step="Correct user and password in CLOUDSEG_CATALOG_URL, or let the user in.",
        )
    if 'database "' in reason and "does not exist" in reason:
        return SettingsError(
            "the server has no such database",
            subject=uri,
            found=reason,
            next_step="Create it, or correct CLOUDSEG_CATALOG_URL.",
        )
    return None
