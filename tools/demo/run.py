"""The demo from start to end: prepare, start Airflow, run the pipeline, print what it made, stop everything."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from cloudseg.errors import InputError
from cloudseg.recipe import load_recipe
from cloudseg.records import Json
from tools.demo.home import DemoHome, prepare_home, reopen_home
from tools.demo.pipeline import DemoOptions, run_pipeline
from tools.demo.report import print_summary, summarize
from tools.demo.standalone import Standalone
from tools.terminal import Screen, interrupt_on_signals

SYNTHETIC_MINUTES: Final = 2.0
DATA_MINUTES: Final = 10.0
_LABELED: Final = 24
_UNLABELED: Final = 4


def run_demo(
    *,
    home: Path = Path("var/demo"),
    data: Path | None = None,
    keep: bool = True,
    minutes: float | None = None,
    recipe: str = "nightly",
    port: int | None = None,
) -> Json:
    """Run the pipeline end to end under a real `airflow standalone`.

    Progress goes to stderr, the summary to stdout. Every process that it starts ends with it, also when it is killed.

    Args:
        home: Folder of the demo; emptied first where an earlier demo made it.
        data: Folder of tiles; synthetic tiles if None.
        keep: Leave the Airflow UI running until Ctrl-C.
        minutes: Training budget; `SYNTHETIC_MINUTES` or `DATA_MINUTES` if None.
        recipe: Name of a shipped recipe, or path of a .toml file.
        port: Port of the Airflow UI; a free one if None.

    Returns:
        What it made, as `summarize` returns it.

    Raises:
        InputError: `data` is not a folder or holds no scene, or `home` holds something that no demo made.
        RecipeError: The recipe cannot be read.
        SettingsError: The port is in use.
        ServiceFailed: Airflow or a task failed.
    """
    load_recipe(recipe)
    if data is not None and not data.is_dir():
        raise InputError(
            "no such folder",
            subject=str(data),
            next_step="DATA is a folder of tiles that `cloudseg ingest` can read.",
        )
    folders, screen = prepare_home(home, port=port), Screen()
    source = data.absolute() if data else _make_synthetic(folders, screen)
    budget = minutes if minutes is not None else (DATA_MINUTES if data else SYNTHETIC_MINUTES)
    interrupt_on_signals()
    with _running(folders, screen) as service:
        run_pipeline(service, screen, DemoOptions(source=source, recipe=recipe, minutes=budget))
        made = summarize(folders)
        print_summary(made, folders, Console(highlight=False), running=keep, minutes=budget)
        if keep:
            _wait_for_ctrl_c(service, screen)
    return made


def run_again(*, home: Path = Path("var/demo"), keep: bool = True, port: int | None = None) -> Json:
    """Start the Airflow of an earlier demo on what it made, until Ctrl-C.

    Args:
        home: Folder of the demo; nothing in it is deleted.
        keep: Wait for Ctrl-C; otherwise only start, print and stop.
        port: Port of the Airflow UI; a free one if None.

    Returns:
        What the demo made, as `summarize` returns it.

    Raises:
        InputError: No demo was made there.
        SettingsError: The port is in use.
        ServiceFailed: Airflow failed.
    """
    folders, screen = reopen_home(home, port=port), Screen()
    interrupt_on_signals()
    with _running(folders, screen) as service:
        made = summarize(folders)
        print_summary(made, folders, Console(highlight=False), running=True)
        if keep:
            _wait_for_ctrl_c(service, screen)
    return made


@contextmanager
def _running(folders: DemoHome, screen: Screen) -> Iterator[Standalone]:
    """Run Airflow in the folder of a demo during the block."""
    with Standalone(folders) as service:
        with screen.busy("starting airflow standalone (about half a minute) …"):
            service.wait_until_ready()
        screen.print(f"[green]✓[/] Airflow is up at {folders.ui_url}")
        yield service
        screen.print("stopping Airflow …")
    screen.print("everything is stopped; what was made stays in " + escape(str(folders.root)))


def _make_synthetic(home: DemoHome, screen: Screen) -> Path:
    from cloudseg.raster.synthetic import make_tiles

    with screen.busy("making synthetic tiles …"):
        make_tiles(home.tiles, count=_LABELED, unlabeled=_UNLABELED)
    folder = escape(str(home.tiles))
    screen.print(f"[green]✓[/] {_LABELED + _UNLABELED} synthetic tiles, {_LABELED} with a label, in {folder}")
    return home.tiles


def _wait_for_ctrl_c(service: Standalone, screen: Screen) -> None:
    screen.print("[bold]Ctrl-C stops the demo[/]")
    try:
        while True:
            service.check()
            time.sleep(1)
    except KeyboardInterrupt:
        return
