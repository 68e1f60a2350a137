"""A published store behind the application: in the process, and on a real server on loopback."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import serve_world
from fastapi.testclient import TestClient
from sqlalchemy import insert, select

from cloudseg.catalog import Catalog, tables
from tests import postgres_server


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return CLOUDSEG_HOME with nine scenes and fifteen masks. Read-only."""
    return serve_world.home_of(tmp_path_factory.mktemp("published"))


@contextmanager
def application(home: Path, **settings: str) -> Iterator[TestClient]:
    """Open the application in this process, with settings without their prefix."""
    from cloudseg.serve.app import create_app

    runtime = serve_world.opened_runtime(home, **settings)
    with TestClient(create_app(runtime), base_url="http://maps.test", raise_server_exceptions=False) as client:
        yield client
    runtime.catalog.engine.dispose()


@pytest.fixture(scope="module")
def client(published: Path) -> Iterator[TestClient]:
    with application(published) as client:
        yield client


@pytest.fixture
def client_with(published: Path) -> Iterator[Callable[..., TestClient]]:
    """Return a function that opens the application with other settings."""
    opened = []

    def make(**settings: str) -> TestClient:
        context = application(published, **settings)
        opened.append(context)
        return context.__enter__()

    yield make
    for context in opened:
        context.__exit__(None, None, None)


@contextmanager
def running_server(home: Path, **settings: str) -> Iterator[str]:
    """Yield the address of `cloudseg serve` as a process of its own, with settings without their prefix."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDSEG_")}
    environment |= {f"CLOUDSEG_{name.upper()}": value for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "cloudseg", "serve", "--port", "0"],
        env={**environment, "CLOUDSEG_HOME": str(home), "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"serving (http://\S+?)/ ", line):
                yield found[1]
                break
        else:
            raise AssertionError("".join(lines))
    finally:
        process.terminate()
        process.wait(20)
        process.stderr.close()


@pytest.fixture(scope="session")
def server(published: Path) -> Iterator[str]:
    """Yield the address of a server on SQLite."""
    with running_server(published) as address:
        yield address


@pytest.fixture(scope="session")
def postgis_url(published: Path, postgis: postgres_server.Databases) -> Iterator[str]:
    """Yield the URL of a catalog on PostGIS with the same rows."""
    source = Catalog(f"sqlite:///{published / 'catalog.db'}")
    with postgis.migrated() as url:
        target = Catalog(url)
        with source.read() as rows, target.begin() as db:
            for table in tables.metadata.sorted_tables:
                found = [dict(row) for row in rows.execute(select(table)).mappings()]
                if found:
                    db.execute(insert(table), found)
        for catalog in (source, target):
            catalog.engine.dispose()
        yield url.render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def client_on_postgis(published: Path, postgis_url: str) -> Iterator[TestClient]:
    with application(published, catalog_url=postgis_url) as client:
        yield client
