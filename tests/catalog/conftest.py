"""Catalogs on SQLite, on PostgreSQL and on PostGIS: every test that asks for one runs on all three."""

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
    """A database of the test with every migration and view."""
    if backend == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "catalog.db")
        yield make_url(f"sqlite:///{tmp_path / 'catalog.db'}")
    else:
        with request.getfixturevalue(backend).migrated() as url:
            yield url


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Iterator[URL]:
    """A database of the test with nothing in it; on PostgreSQL not even PostGIS."""
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
    """Two scenes (one labelled twice), a snapshot, a run, two weights, two promotions and two masks."""
    rows.fill(catalog)
    return catalog
