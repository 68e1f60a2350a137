"""The pages in a real browser, in a frame with the sandbox of Airflow's UI; inside Airflow: test_standalone.py."""

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
import uvicorn
from accessibility import grave_faults
from cloudseg_ui.app import create_app
from cloudseg_ui.shell import NAV
from fake_airflow import FakeAirflow
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from plugin_rows import NOON

from cloudseg.catalog import training_rows
from cloudseg.records import Epoch
from cloudseg.runtime import Runtime

pytestmark = pytest.mark.browser
SANDBOX = "allow-scripts allow-same-origin allow-forms allow-downloads"
"""As Airflow 3.3.2 has it (airflow/ui/src/pages/ExternalView.tsx): no navigation of the window around, no popups."""
RUN = "airflow-manual__2026-03-01T12:00:00+00:00"
LOG = "/airflow/dags/cloudseg_retrain/runs/manual__2026-03-01T12%3A00%3A00%2B00%3A00/tasks/train"
PATHS = [
    *(entry.path for entry in NAV[:-1]),
    "/weights/w-1",
    "/masks/mk-1",
    "/compare",
    "/compare?a=v1&b=v2",
    "/changes/pair?before=v1&after=v2",
    "/data/labels/lb-1",
    "/quarantine/qu-1",
    "/quarantine/qu-1/alike",
    f"/of-run?{urlencode({'dag_id': 'cloudseg_retrain', 'run_id': RUN.removeprefix('airflow-')})}",
    "/of-run?dag_id=cloudseg_ingest&run_id=manual__1",
    "/decide",
    "/decide?decision=promote&about=v2",
    "/decide?decision=promote&about=v7",
    "/runs?run_id=manual__1",
    "/no/such/page",
]
NAMELESS = """() => [...document.querySelectorAll("a[href], button, input, select")].filter((element) =>
    !(element.labels?.length || element.getAttribute("aria-label") || element.textContent.trim() || element.title
      || element.type === "hidden" || element.querySelector("img[alt]"))).map((element) => element.outerHTML)"""


@pytest.fixture
def address(filled: Runtime) -> Iterator[str]:
    """Serve the pages where Airflow mounts them, and a page with a frame for them; a training of Airflow runs."""
    with filled.catalog.begin() as db:
        training_rows.add_run(db, training_rows.get_run(db, "run-now").model_copy(update={"run_id": RUN}))
        _add_epoch(db, 1)
        _add_epoch(db, 2)
    outer = FastAPI(root_path="/airflow")

    @outer.get("/dags/{path:path}")
    def airflows_own(path: str) -> HTMLResponse:
        return HTMLResponse(f"<!doctype html><title>Airflow</title><h1>{len(path)}</h1>")

    @outer.get("/plugin/cloud_masks")
    def framed() -> HTMLResponse:
        page = f'<!doctype html><base href="/airflow/"><iframe sandbox="{SANDBOX}" src="cloudseg/"'
        return HTMLResponse(f'{page} style="width: 100%; height: 700px" title="Cloud masks"></iframe>')

    airflow = FakeAirflow(triggered=[("ada", {"decision": "promote", "about": ["v2"], "reason": "looks right"})])
    outer.mount("/cloudseg", create_app(lambda: filled, guards=[], runs=replace(airflow.runs(), allowed=lambda: True)))
    server = uvicorn.Server(uvicorn.Config(outer, port=0, log_level="critical", access_log=False, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/airflow"
    server.should_exit = True
    thread.join()


def _add_epoch(db: Any, number: int) -> None:
    metrics = {"train_loss": 0.9 / number, "validation_iou": 0.5 + number / 100}
    at = NOON + timedelta(minutes=number)
    training_rows.add_epoch(db, Epoch(run_id=RUN, epoch=number, step=50 * number, metrics=metrics, created_at=at))


@pytest.fixture
def open_page() -> Iterator[Callable[..., Any]]:
    """Return a function that opens an address; at the end, the console has no error but refused pages."""
    from playwright.sync_api import sync_playwright

    found = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: apt install chromium")
    problems: list[str] = []

    def note(message: Any) -> None:
        # The report's own script is blocked by the sandbox, as it must be; a page of an error is a 404 or 409.
        expected = ("frame is sandboxed", "status of 404", "status of 409", "escape its sandboxing")
        if message.type in ("error", "warning") and not any(part in message.text for part in expected):
            problems.append(message.text)

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])

        def opened(address: str, width: int = 1300, **options: Any) -> Any:
            page = chromium.new_context(viewport={"width": width, "height": 700}, **options).new_page()
            page.set_default_timeout(60_000)
            page.on("console", note)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.goto(address)
            return page

        yield opened
        chromium.close()
    assert problems == []


def test_a_link_to_airflow_leads_the_window_around_the_frame(address: str, open_page: Callable[..., Any]) -> None:
    page = open_page(f"{address}/plugin/cloud_masks")
    page.frame_locator("iframe").get_by_role("link", name="live log").click()
    page.wait_for_url(f"**{LOG}")
    assert page.title() == "Airflow"
    page.go_back()
    assert page.url.endswith("/plugin/cloud_masks")
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name="Models", exact=True).click()
    frame.get_by_role("heading", name="Models", exact=True).wait_for()
    assert page.url.endswith("/plugin/cloud_masks"), "links between pages stay inside the frame"


@pytest.mark.parametrize("options", [{"java_script_enabled": False}, {}])
def test_alone_and_without_scripts_it_is_a_plain_link(
    address: str, open_page: Callable[..., Any], options: dict[str, Any]
) -> None:
    page = open_page(f"{address}/cloudseg/", **options)
    page.get_by_role("link", name="live log").click()
    page.wait_for_url(f"**{LOG}")


def test_the_theme_is_airflows_and_follows_its_switch(address: str, open_page: Callable[..., Any]) -> None:
    page = open_page(f"{address}/plugin/cloud_masks", color_scheme="light")
    frame = page.frame_locator("iframe")
    colors: dict[str, str] = {}
    for theme in ("dark", "light", "system"):
        page.evaluate("theme => localStorage.setItem('theme', theme)", theme)
        wanted = "html:not([data-theme])" if theme == "system" else f"html[data-theme={theme}]"
        frame.locator(wanted).wait_for()
        colors[theme] = frame.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    assert colors == {"dark": "rgb(15, 21, 28)", "light": "rgb(247, 248, 250)", "system": "rgb(247, 248, 250)"}
    alone = open_page(f"{address}/cloudseg/", color_scheme="dark")
    assert alone.locator("body").evaluate("body => getComputedStyle(body).backgroundColor") == "rgb(15, 21, 28)"


def test_a_running_training_is_followed_and_the_reader_stays_where_he_was(
    address: str, open_page: Callable[..., Any], filled: Runtime
) -> None:
    page = open_page(f"{address}/plugin/cloud_masks")
    frame = page.frame_locator("iframe")
    frame.get_by_text("Step 100, epoch 2").wait_for()
    # The page as it is asks every 15 seconds: here every 0.3.
    page.route(
        re.compile(r"/cloudseg/$"),
        lambda route: route.fulfill(
            response=(answer := route.fetch()), body=answer.text().replace('data-every="15"', 'data-every="0.3"')
        ),
    )
    page.reload()
    frame.get_by_text("Step 100, epoch 2").wait_for()
    frame.locator("html").evaluate("html => html.scrollTo(0, 300)")
    frame.get_by_role("link", name="live log").focus()
    with filled.catalog.begin() as db:
        _add_epoch(db, 3)
    frame.get_by_text("Step 150, epoch 3").wait_for()
    frame.get_by_text("Validation IoU, now 0.530").wait_for()
    assert frame.locator("html").evaluate("html => html.scrollTop") == 300
    assert frame.locator("html").evaluate("() => document.activeElement.textContent") == "live log"


@pytest.mark.parametrize("width", [400, 1300])
def test_no_page_is_wider_than_the_window_and_every_control_has_a_name(
    address: str, open_page: Callable[..., Any], width: int
) -> None:
    page = open_page(f"{address}/cloudseg/", width)
    for path in PATHS:
        page.goto(f"{address}/cloudseg{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.evaluate(NAMELESS) == [], path
        narrow = "() => [...document.querySelectorAll('td')].filter((cell) => cell.offsetHeight > 130).length"
        assert page.evaluate(narrow) == 0, f"{path}: a column shrinks until its words break"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(address: str, open_page: Callable[..., Any], scheme: str) -> None:
    """On a real Airflow with a real comparison too: tests/tools/demo/test_standalone.py."""
    page = open_page(f"{address}/cloudseg/", color_scheme=scheme)
    faults: dict[str, list[str]] = {}
    for path in PATHS:
        page.goto(f"{address}/cloudseg{path}")
        faults[path] = grave_faults(page)
    assert {path: found for path, found in faults.items() if found} == {}


def test_pages_work_by_keyboard_alone(address: str, open_page: Callable[..., Any]) -> None:
    page = open_page(f"{address}/cloudseg/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")
    page.keyboard.press("Shift+Tab")
    for _ in range(12):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.textContent") == "History":
            break
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="History", exact=True).wait_for()
