"""Catalogs on SQLite, PostgreSQL and PostGIS: a test that uses one runs on all three."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import rows
from sqlalchemy import URL, make_url

from cloudseg.catalog import Catalog


@pytest.fixture(params=["sqlite", "postgresql", "postgis"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def catalog_url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Iterator[URL]:
    """Yield the URL of a new database with every migration and view."""
    if backend == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "catalog.db")
        yield make_url(f"sqlite:///{tmp_path / 'catalog.db'}")
    else:
        with request.getfixturevalue(backend).migrated() as url:
            yield url


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Iterator[URL]:
    """Yield the URL of a new, empty database, without PostGIS on PostgreSQL."""
    if backend == "sqlite":
        yield make_url(f"sqlite:///{tmp_path / 'empty' / 'catalog.db'}")
    else:
        with request.getfixturevalue(backend).empty() as url:
            yield url


@pytest.fixture
def catalog(catalog_url: URL) -> Iterator[Catalog]:
    catalog = Catalog(catalog_url)
    yield catalog
    catalog.engine.dispose()


@pytest.fixture
def full_catalog(catalog: Catalog) -> Catalog:
    """Return a catalog with the rows of `rows.fill`."""
    rows.fill(catalog)
    return catalog
