"""`cloudseg demo`: prepare, start Airflow, turn the circle once, tell what it made, and leave nothing running."""

import signal
import time
from pathlib import Path
from typing import Final, NoReturn

from rich.console import Console
from rich.markup import escape

from cloudseg.demo.home import Home, prepare_home
from cloudseg.demo.report import print_summary, summary
from cloudseg.demo.service import Standalone
from cloudseg.demo.turn import Wishes, turn_once
from cloudseg.demo.watch import Screen
from cloudseg.errors import InputError
from cloudseg.recipe import load_recipe
from cloudseg.records import Json

SYNTHETIC_MINUTES: Final = 2.0
DATA_MINUTES: Final = 10.0
_LABELLED: Final = 24
_UNLABELLED: Final = 4


def run_demo(
    *,
    home: Path = Path("var/demo"),
    data: Path | None = None,
    keep: bool = True,
    minutes: float | None = None,
    recipe: str = "nightly",
    port: int | None = None,
) -> Json:
    """Run the whole service once under a real `airflow standalone`, on synthetic tiles or on the folder `data`.

    Return what it made.

    Progress goes to stderr, the summary to stdout. With `keep` the Airflow UI stays up until Ctrl-C. `home` is emptied
    first if an earlier demo made it. `minutes` is the training's budget: 2 for synthetic tiles, 10 for `data` where
    left out. Nothing that it starts outlives it, however it ends.

    Raises InputError, SettingsError, RecipeError before anything is started, ServiceFailed where Airflow or a task
    fails.
    """
    load_recipe(recipe)
    if data is not None and not data.is_dir():
        raise InputError(
            "no such folder",
            subject=str(data),
            next_step="DATA is a folder of tiles that `cloudseg ingest` understands.",
        )
    place, screen = prepare_home(home, port=port), Screen()
    source = data.absolute() if data else _make_synthetic(place, screen)
    budget = minutes if minutes is not None else (DATA_MINUTES if data else SYNTHETIC_MINUTES)
    end_like_ctrl_c()
    with Standalone(place) as service:
        with screen.busy("starting airflow standalone (about half a minute) …"):
            service.wait_until_ready()
        screen.say(f"[green]✓[/] Airflow is up at {place.ui_url}")
        turn_once(service, screen, Wishes(source=source, recipe=recipe, minutes=budget))
        made = summary(place)
        print_summary(made, place, Console(highlight=False), running=keep)
        if keep:
            _wait_for_ctrl_c(service, screen)
        screen.say("stopping Airflow …")
    screen.say("everything is stopped; what was made stays in " + escape(str(place.root)))
    return made


def _make_synthetic(home: Home, screen: Screen) -> Path:
    from cloudseg.raster.synthetic import make_tiles

    with screen.busy("drawing synthetic tiles …"):
        make_tiles(home.tiles, count=_LABELLED, unlabelled=_UNLABELLED)
    screen.say(
        f"[green]✓[/] {_LABELLED + _UNLABELLED} synthetic tiles, {_LABELLED} with a label, in {escape(str(home.tiles))}"
    )
    return home.tiles


def _wait_for_ctrl_c(service: Standalone, screen: Screen) -> None:
    screen.say("[bold]Ctrl-C ends the demo[/]")
    try:
        while True:
            service.check()
            time.sleep(1)
    except KeyboardInterrupt:
        return


def end_like_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP (a closed terminal) unwind the program as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
