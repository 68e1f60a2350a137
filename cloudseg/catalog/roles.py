"""The roles of PostgreSQL and their privileges: `sql/roles`, plain SQL that an administrator can read beforehand."""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, text

from cloudseg.catalog.views import run_files
from cloudseg.errors import SettingsError

_OWNS: Final = text(
    "SELECT bool_and(pg_has_role(owner, 'USAGE')) "
    "FROM (SELECT datdba AS owner FROM pg_database WHERE datname = current_database() "
    "UNION ALL SELECT relowner FROM pg_class WHERE oid = to_regclass(:table)) AS owners"
)
ROLES: Final = ("cloudseg_app", "cloudseg_airflow", "gis_reader")


def make_roles(db: Connection, folder: Path) -> list[str]:
    """Create the roles that are missing, grant the privileges of all and return the names of the new ones.

    Raises:
        SettingsError: the user does not own the catalog. PostgreSQL would only warn of grants that it does not make.
    """
    if not db.execute(_OWNS, {"table": "scene"}).scalar_one():
        raise SettingsError(
            "only the owner of the catalog can grant privileges in it",
            subject="CLOUDSEG_CATALOG_URL",
            next_step="Run `cloudseg db roles` as the owner of the database.",
        )
    missing = [role for role in ROLES if role not in _existing(db)]
    run_files(db, folder)
    return missing


def restore_privileges(db: Connection, folder: Path) -> bool:
    """Grant the privileges again after an upgrade, which recreates the views; return whether the roles exist."""
    if db.dialect.name != "postgresql" or set(ROLES) - _existing(db):
        return False
    run_files(db, folder, "*_grants.sql")
    return True


def _existing(db: Connection) -> set[str]:
    return set(db.execute(text("SELECT rolname FROM pg_roles")).scalars())
