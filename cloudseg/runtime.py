"""Open the store and the catalog, and set up logging, from the settings.

This is the only module that reads `cloudseg.settings`: stages call `open_runtime()`, and everything below a stage
receives explicit arguments.
"""

import functools
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from sqlalchemy import URL, make_url

from cloudseg.catalog import Catalog
from cloudseg.catalog.read_only import open_read_only
from cloudseg.errors import SettingsError
from cloudseg.settings import Settings, is_service_link
from cloudseg.storage import S3Options, Store, open_store

_RETIRED_SETTINGS: Final = ("CLOUDSEG_UI_URL",)
"""Variables of earlier releases that are ignored with a warning."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runtime:
    """Settings, store and catalog of a stage."""

    settings: Settings
    store: Store
    catalog: Catalog
    inbox: str
    home: Path

    @property
    def threads(self) -> int:
        """CPU threads to use: the setting, or every core that this process may use."""
        return self.settings.threads or len(os.sched_getaffinity(0))


def open_runtime(*, check: bool = True) -> Runtime:
    """Open the store and the catalog of the environment's settings.

    The embedded catalog (no CLOUDSEG_CATALOG_URL) is migrated to the newest schema; a server's is checked.

    Args:
        check: False skips migration and check.

    Raises:
        SettingsError: a setting is unknown or invalid.
        StoreUnreachable: the object store does not answer.
        CatalogUnreachable: the database does not answer.
        CatalogOutdated: the server's catalog lacks migrations.
    """
    settings = read_settings()
    home = _home(settings)
    store = open_store(settings.store_url or str(home / "store"), s3_options(settings))
    catalog = open_catalog(settings, check=check)
    return Runtime(
        settings=settings, store=store, catalog=catalog, inbox=settings.inbox or str(home / "inbox"), home=home
    )


def open_catalog(settings: Settings, *, check: bool = True) -> Catalog:
    """Open the catalog alone, for what must work while the store does not answer.

    Args:
        settings: of `read_settings`.
        check: False skips migration and check.

    Raises:
        CatalogUnreachable: the database does not answer.
        CatalogOutdated: the server's catalog lacks migrations.
    """
    # URL.create, not a string: the name of a folder may contain a question mark.
    embedded = URL.create("sqlite", database=str(_home(settings) / "catalog.db"))
    catalog = Catalog(settings.catalog_url.get_secret_value() if settings.catalog_url else embedded)
    if check and settings.catalog_url is None and catalog.revision() != catalog.head_revision():
        catalog.upgrade()
    if check:
        catalog.check()
    return catalog


def has_catalog(settings: Settings) -> bool:
    """Return whether there is a catalog to open; `open_runtime` would create the embedded one."""
    return settings.catalog_url is not None or (_home(settings) / "catalog.db").is_file()


def find_catalog(*, timeout_s: float) -> Catalog | None:
    """Return the catalog of the settings through connections that cannot write, None if there is none yet.

    Nothing is created or migrated.

    Args:
        timeout_s: seconds after which a statement is stopped; a server has twice as long to accept a connection.

    Raises:
        SettingsError: a setting is unknown or invalid.
    """
    settings = read_settings()
    if not has_catalog(settings):
        return None
    if settings.catalog_url is None:
        url = URL.create("sqlite", database=str(_home(settings) / "catalog.db"))
    else:
        url = make_url(settings.catalog_url.get_secret_value())
        if url.get_backend_name() == "postgresql" and "connect_timeout" not in url.query:
            # libpq takes whole seconds, two at least (postgresql.org/docs/current/libpq-connect.html).
            url = url.update_query_dict({"connect_timeout": str(max(2, round(2 * timeout_s)))})
    return open_read_only(Catalog(url), timeout_s=timeout_s, connections=1)


def s3_options(settings: Settings) -> S3Options:
    """Return the connection options of S3.

    Credentials are left to boto3, which reads the environment, the profile and the role of the machine.
    """
    return S3Options(
        # boto3 reads the variables that begin with AWS_ itself, but GDAL and the choice of addressing need them too.
        endpoint=settings.s3_endpoint
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or None,
        link_endpoint=settings.s3_link_endpoint,
        region=settings.s3_region,
        addressing=settings.s3_addressing,
        ca_bundle=settings.s3_ca_bundle or _path(os.environ.get("AWS_CA_BUNDLE")),
        timeout_s=settings.s3_timeout_s,
    )


def _home(settings: Settings) -> Path:
    try:
        return settings.home.expanduser().absolute()
    except RuntimeError as error:
        raise SettingsError(
            "the home directory of this user is not known",
            subject="CLOUDSEG_HOME",
            found=settings.home,
            expected="a folder, or ~/folder",
            next_step="Write the whole path.",
        ) from error


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def read_settings() -> Settings:
    """Return the settings of the environment.

    Raises:
        SettingsError: a variable is unknown or its value is invalid; the message names it.
    """
    given = sorted(name for name in os.environ if name.startswith("CLOUDSEG_"))
    for name in _RETIRED_SETTINGS:
        if name in given:
            _warn_retired(name)
    known = {f"CLOUDSEG_{name.upper()}" for name in Settings.model_fields}
    unknown = [
        name
        for name in given
        if name not in known and name not in _RETIRED_SETTINGS and not is_service_link(name, os.environ[name])
    ]
    if unknown:
        raise SettingsError(
            "unknown setting", subject=", ".join(unknown), next_step="docs/reference/settings.md lists every setting."
        )
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(f"CLOUDSEG_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise SettingsError(
            "invalid setting", found=problems, next_step="docs/reference/settings.md lists every setting."
        ) from error


@functools.cache
def _warn_retired(name: str) -> None:
    """Warn about a retired setting, once in a process."""
    _log.warning("%s is ignored: this setting no longer exists", name)


def set_up_logging(level: str | None = None, handler: logging.Handler | None = None) -> None:
    """Send the log to stderr, one line per event, or to a handler; called by the command line only, never on import."""
    logging.basicConfig(
        level=level or read_settings().log_level,
        handlers=[handler or logging.StreamHandler(sys.stderr)],
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it logs two lines whenever the revision is read
    logging.getLogger("pyogrio").setLevel(logging.WARNING)  # a line for every batch of polygons
    logging.getLogger("numexpr").setLevel(logging.WARNING)  # its number of threads, when pandas is imported
