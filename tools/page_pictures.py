"""Make the pictures of the pages in the Airflow UI, for docs/assets/, from a demo's home.

    make pictures                                     the demo's home is var/demo
    python -m tools.page_pictures --home var/demo

It starts the demo's Airflow again and, if the home has one model only, has a second day pass: a correction is accepted,
a file ends in quarantine, a second model is trained, promoted against the verdict, and rolled back. Needs Chromium and
some minutes. Check every picture before it is committed.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

from playwright.sync_api import Page

from cloudseg.catalog import label_rows, model_rows
from cloudseg.records import Json
from tools.airflow_api import ENDED, wait_for
from tools.demo.home import reopen_home
from tools.demo.second_day import write_second_day
from tools.demo.standalone import Standalone
from tools.errors import ServiceFailed
from tools.pictures import browser, save, shot
from tools.terminal import Screen, interrupt_on_signals

LARGEST: Final = 120_000
"""Bytes of a picture, at most."""
_PAGES: Final = "cloudseg/"
_SIZE: Final = (1280, 860)
_NARROW: Final = (400, 860)
_RUN_S: Final = 3600.0


@dataclass(frozen=True)
class Shot:
    """One picture."""

    name: str
    path: str
    """From the base address of the UI."""
    theme: str = "light"
    size: tuple[int, int] = _SIZE
    below: str = ""
    """Heading of a page that is scrolled to the top of the picture; empty: the page's beginning."""


def shots(service: Standalone) -> list[Shot]:
    """Return the pictures; an id in an address is the newest of its kind."""
    with service.home.catalog().read() as db:
        weights = model_rows.list_weights(db)  # newest first
    newest, first = f"v{weights[0].version}", f"v{weights[-1].version}"
    retrained = next(iter(service.api.runs("cloudseg_retrain")))
    decide = urlencode({"decision": "promote", "about": newest, "force": "true"})
    # No page that shows the path of a file: it would name the machine.
    return [
        Shot("airflow_page", "plugin/cloud_masks"),
        Shot("airflow_page_dark", "plugin/cloud_masks", theme="dark"),
        Shot("airflow_dag", "dags/cloudseg_retrain"),
        Shot("airflow_tab", f"{dag_run('cloudseg_retrain', retrained)}/plugin/cloud_masks_of_run"),
        Shot("page_overview_narrow", _PAGES, size=_NARROW),
        Shot("page_models", f"plugin/cloud_masks/{_PAGES}models"),
        Shot("page_model", f"{_PAGES}weights/{weights[0].weights_id}"),
        Shot("page_compare", f"{_PAGES}compare/{newest}/{first}"),
        Shot(
            "page_compare_scenes",
            f"{_PAGES}compare/{newest}/{first}",
            theme="dark",
            below="The scenes that differ most",
        ),
        Shot("page_decide", f"{_PAGES}decide?{decide}", size=(1280, 520)),
        Shot("page_history", f"{_PAGES}history", theme="dark"),
        Shot("page_data", f"{_PAGES}data"),
        Shot("page_quarantine", f"{_PAGES}quarantine", size=(1280, 520)),
        Shot("page_readers", f"{_PAGES}readers"),
        Shot("page_drift", f"{_PAGES}drift"),
    ]


def dag_run(dag_id: str, run_id: str) -> str:
    """Return the address of a DAG run."""
    return f"dags/{dag_id}/runs/{quote(run_id, safe='')}"


def second_day(service: Standalone, screen: Screen) -> None:
    """Have a second day pass in a demo: see above. While the second model is trained, the overview is pictured."""
    home, api = service.home, service.api
    folder = home.root / "second_day"
    write_second_day(home.tiles, folder)
    _run(service, screen, "cloudseg_ingest", {"source": str(folder)})
    with home.catalog().read() as db:
        proposed = [found.label.label_id for found in label_rows.list_stated(db, state="proposed")]
    # Paused, it does not start by itself with its default budget when the correction is accepted.
    api.call("PATCH", "/api/v2/dags/cloudseg_retrain", {"is_paused": True})
    if proposed:
        accepted = {"decision": "accept_label", "about": proposed, "reason": "thin cloud, seen in the picture"}
        _run(service, screen, "cloudseg_decide", accepted)
    api.unpause("cloudseg_retrain")
    with browser(*_SIZE) as page:
        _log_in(page, service)
        training = api.trigger("cloudseg_retrain", {"recipe": "nightly", "minutes": 2, "force": True})
        page.goto(f"{home.ui_url}/{_PAGES}")
        wait_for("the first steps", lambda: _has_steps(page), limit_s=_RUN_S, every_s=5)
        page.get_by_role("heading", name="Running trainings").evaluate("heading => heading.scrollIntoView()")
        save(shot(page), "page_training.webp", LARGEST)
    _wait(service, "cloudseg_retrain", training)
    with home.catalog().read() as db:
        newest = model_rows.list_weights(db, limit=1)[0]
        champion = model_rows.find_champion(db)
    about = [f"v{newest.version}"]
    if champion is None or champion.weights_id != newest.weights_id:
        forced = {"decision": "promote", "about": about, "reason": "sees thin cloud", "force": True}
        _run(service, screen, "cloudseg_decide", forced)
    _run(service, screen, "cloudseg_decide", {"decision": "roll_back", "about": about, "reason": "misses snow"})


def _has_steps(page: Page) -> bool:
    page.reload()
    return page.locator(".small-chart polyline").count() > 0


def _run(service: Standalone, screen: Screen, dag_id: str, conf: Json) -> None:
    """Run a DAG and wait for its end."""
    screen.print(f"{dag_id} {conf.get('decision', '')}")
    _wait(service, dag_id, service.api.trigger(dag_id, conf))


def _wait(service: Standalone, dag_id: str, run_id: str) -> None:
    wait_for(dag_id, lambda: service.api.run_state(dag_id, run_id) in ENDED, limit_s=_RUN_S, every_s=2)
    if service.api.run_state(dag_id, run_id) != "success":
        raise ServiceFailed("a run failed", subject=f"{dag_id} {run_id}", found="failed", expected="success")


def _log_in(page: Page, service: Standalone) -> None:
    page.set_default_timeout(120_000)
    page.goto(f"{service.home.ui_url}/auth/login/")
    page.fill('input[name="username"]', service.home.user)
    page.fill('input[name="password"]', service.home.password)
    page.click('button[type="submit"]')
    page.wait_for_url(lambda found: "/auth/login" not in found)


def take(page: Page, base: str, wanted: Shot) -> None:
    """Open the page of a picture in its theme and size, and save the picture."""
    page.set_viewport_size({"width": wanted.size[0], "height": wanted.size[1]})
    page.evaluate("theme => localStorage.setItem('theme', theme)", wanted.theme)
    page.goto(f"{base}/{wanted.path}", wait_until="load")
    if "plugin" in wanted.path:
        page.frame_locator("iframe").locator("main h1").wait_for()
    elif wanted.path.startswith(_PAGES):
        page.locator("main h1").wait_for()
    if wanted.path.startswith("dags/") and "plugin" not in wanted.path:
        page.get_by_text("doctor").first.wait_for()  # the grid
    if wanted.below:
        page.get_by_role("heading", name=wanted.below).evaluate("heading => heading.scrollIntoView()")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(3000)  # frames and thumbnails inside the page
    save(shot(page), f"{wanted.name}.webp", LARGEST)


def main() -> None:
    """Read the arguments and make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("var/demo"), help="folder of a demo; default: var/demo")
    parser.add_argument("--only", help="make only the pictures whose names begin so")
    given = parser.parse_args()
    interrupt_on_signals()
    screen = Screen()
    with Standalone(reopen_home(given.home)) as service:
        service.wait_until_ready()
        with service.home.catalog().read() as db:
            models = len(model_rows.list_weights(db))
        if models < 2:
            second_day(service, screen)
        with browser(*_SIZE) as page:
            _log_in(page, service)
            for wanted in shots(service):
                if wanted.name.startswith(given.only or ""):
                    take(page, service.home.ui_url, wanted)


if __name__ == "__main__":
    main()
