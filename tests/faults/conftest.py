"""Fixtures of the kill tests: the inbox, the undisturbed pipeline run, and the table of outcomes."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import rasterio

from cloudseg.raster.synthetic import make_tiles
from tests.faults.scenario import Kill, Scenario, run_undisturbed
from tests.faults.service_state import LocalState, ServerState, ServiceState


def _servers(request: pytest.FixtureRequest, folder: Path) -> ServerState:
    databases, seaweed = request.getfixturevalue("postgresql"), request.getfixturevalue("seaweed")
    stack = ExitStack()
    request.addfinalizer(stack.close)
    return ServerState(stack.enter_context(databases.migrated()), seaweed, folder)


BACKENDS: dict[str, Callable[[pytest.FixtureRequest, Path], ServiceState]] = {
    "SQLite + folder": lambda request, folder: LocalState(folder),
    "PostgreSQL + SeaweedFS": _servers,
}
"""By name: function that creates an empty service."""
_TABLE = pytest.StashKey[list[tuple[str, Kill]]]()


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def scenario(request: pytest.FixtureRequest, backend: str, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """One undisturbed pipeline run, with the state before every step."""
    folder = tmp_path_factory.mktemp("faults")
    inbox, later = _inbox(folder / "tiles")
    empty = BACKENDS[backend](request, tmp_path_factory.mktemp("empty"))
    return run_undisturbed(folder, empty, {"inbox": str(inbox), "later": str(later)})


def _inbox(folder: Path) -> tuple[Path, Path]:
    """Create two deliveries of files.

    Returns:
        The inbox, with four labeled scenes that fill every split and a truncated file; and a folder with the later
        delivery: the complete file, two scenes, a corrected label, a bad file.
    """
    tiles = make_tiles(folder / "all", count=11, size=64, unlabeled=1)
    inbox, later = folder / "inbox", folder / "later"
    for tile in tiles[:4]:
        _copy(tile, inbox)
    for tile in (tiles[10], tiles[11]):
        _copy(tile, later)
    corrected = later / "labels" / tiles[0].name
    shutil.copy(tiles[0].parents[1] / "labels" / tiles[0].name, corrected)
    with rasterio.open(corrected, "r+") as label:
        classes = label.read(1)
        classes[:8] = 1 - np.minimum(classes[:8], 1)
        label.write(classes, 1)
    whole = tiles[4].read_bytes()
    (inbox / "images" / "upload.tif").write_bytes(whole[: len(whole) // 2])
    (later / "images" / "upload.tif").write_bytes(whole)
    (later / "images" / "bad.tif").write_bytes(b"II*\0 no raster")
    return inbox, later


def _copy(tile: Path, to: Path) -> None:
    for part in ("images", "labels"):
        (to / part).mkdir(parents=True, exist_ok=True)
        source = tile.parents[1] / part / tile.name
        if source.is_file():
            shutil.copy(source, to / part)


@pytest.fixture
def record_kills(request: pytest.FixtureRequest, backend: str) -> Callable[[list[Kill]], None]:
    """Return a function that adds kills to the table at the end."""
    table = request.config.stash.setdefault(_TABLE, [])
    return lambda kills: table.extend((backend, kill) for kill in kills)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print commit points and outcomes as Markdown, for docs/log.md."""
    table = config.stash.get(_TABLE, [])
    if not table:
        return
    terminalreporter.section("commit points and outcomes")
    terminalreporter.write_line("| on | step | killed before | orphans left | collected | outcome |")
    terminalreporter.write_line("|---|---|---|---|---|---|")
    for backend, kill in table:
        outcome = "as undisturbed" if not kill.violations else "**" + "; ".join(kill.violations)[:300] + "**"
        terminalreporter.write_line(
            f"| {backend} | {kill.step} | {kill.number} {kill.point} | {kill.orphans} | {kill.collected} | {outcome} |"
        )
