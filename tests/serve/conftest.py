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


@pytest.fixture(scope="session")
def server(published: Path) -> Iterator[str]:
    """Yield the address of `cloudseg serve` as a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDSEG_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "cloudseg", "serve", "--port", "0"],
        env={**environment, "CLOUDSEG_HOME": str(published), "PYTHONUNBUFFERED": "1"},
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
