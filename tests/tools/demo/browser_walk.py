"""People with a browser at a real Airflow: what test_standalone.py has them do."""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote, urlencode

import pytest
from playwright.sync_api import Browser, Frame, Page, sync_playwright

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
# WebGL by software, for the map.
_OPTIONS: Final = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
LONG_MS: Final = 900_000
"""How long a DAG run may take, in milliseconds; other tests run beside."""
_PAGE_MS: Final = 120_000
"""How long a page or an element may take, in milliseconds."""
_EVERY: Final = ('data-every="15"', 'data-every="1"')


class People:
    """Who is logged in, each in a browser profile of their own."""

    def __init__(self, chromium: Browser, base: str, passwords: Mapping[str, str]) -> None:
        """Remember the logins.

        Args:
            chromium: the browser.
            base: address of the Airflow UI.
            passwords: by user name.
        """
        self._chromium, self.base, self._passwords = chromium, base, passwords
        self._pages: dict[str, Page] = {}

    def stranger(self) -> Page:
        """Return a page of somebody who is not logged in."""
        page = self._chromium.new_context(viewport={"width": 1280, "height": 860}).new_page()
        page.set_default_timeout(_PAGE_MS)
        return page

    def page_of(self, name: str) -> Page:
        """Return the page of a person, logged in by Airflow's form."""
        if name not in self._pages:
            page = self._pages[name] = self.stranger()
            page.goto(f"{self.base}/cloudseg/browse/", wait_until="domcontentloaded")
            assert "/auth/login" in page.url, "who is not logged in is led to the login"
            page.fill("input[name=username]", name)
            page.fill("input[name=password]", self._passwords[name])
            page.click("button[type=submit]")
            page.wait_for_url(f"{self.base}/cloudseg/browse/")
        return self._pages[name]

    def open(self, name: str, path: str) -> Page:
        """Return the page of a person after it has opened one of the pages, alone, without Airflow around it."""
        page = self.page_of(name)
        page.goto(f"{self.base}/cloudseg{path}", wait_until="load")
        return page


@contextmanager
def people_with_browsers(base: str, passwords: Mapping[str, str]) -> Iterator[People]:
    """Run a Chromium during the block; without one the test is skipped."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: apt install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=list(_OPTIONS))
        yield People(chromium, base, passwords)
        chromium.close()


def frame_of(page: Page) -> Frame:
    """Return the frame of the pages within Airflow's page, once it has loaded."""
    page.locator("iframe").wait_for()
    handle = page.locator("iframe").element_handle()
    assert handle is not None
    frame = handle.content_frame()
    assert frame is not None
    frame.wait_for_selector("main")
    return frame


def confirm(page: Page, title: str, reason: str) -> None:
    """Write the reason into the form that shows what a decision would change, and send it."""
    page.get_by_role("heading", name=f"{title}?", exact=True).wait_for()
    page.locator("form li").first.wait_for()  # what would change
    page.get_by_label("Reason").fill(reason)
    page.get_by_role("button", name=title).click()
    page.wait_for_url("**/cloudseg/runs?**")


def wait_until_done(page: Page, title: str) -> None:
    """Wait on the page of the run, which loads itself again, until the decision is made."""
    ended = page.get_by_role("heading", name=re.compile(f"{title}: (done|failed)"))
    ended.wait_for(timeout=LONG_MS)
    assert ended.inner_text().endswith(": done"), page.locator("main").inner_text()


def watch_training(page: Page, base: str) -> Frame:
    """Open the overview in Airflow, wait until the running training has taken a step, and return the frame.

    The page as it is asks every 15 seconds; here every second, as this training takes seconds.
    """
    page.route(
        re.compile(r"/cloudseg/$"),
        lambda route: route.fulfill(response=(got := route.fetch()), body=got.text().replace(*_EVERY)),
    )
    page.goto(f"{base}/plugin/cloud_masks", wait_until="domcontentloaded")
    for _ in range(300):
        frame = frame_of(page)
        if frame.get_by_role("heading", name="Running trainings").count():
            break
        page.wait_for_timeout(1000)
        page.reload(wait_until="domcontentloaded")
    frame.get_by_text(re.compile(r"Step \d+, epoch \d+")).wait_for(timeout=LONG_MS)
    page.unroute_all(behavior="ignoreErrors")
    return frame


def choose_theme(page: Page, name: str) -> None:
    """Choose a theme in Airflow's own menu.

    Args:
        page: one of Airflow's pages.
        name: 'Dark Mode', 'Light Mode' or 'Follow System Setting'.
    """
    page.get_by_role("button", name="User").first.click()
    page.get_by_role("menuitem", name="Appearance").click()
    page.get_by_role("menuitem", name=name).or_(page.get_by_role("menuitemradio", name=name)).click()


def history_rows(page: Page, heading: str | re.Pattern[str]) -> list[str]:
    """Return the rows of the table of the page with that heading, newest first, each as one line.

    A click on a link returns before the next page is there, so the heading is waited for.
    """
    page.get_by_role("heading", name=heading).first.wait_for()
    page.wait_for_load_state("load")
    return [" ".join(text.split()) for text in page.locator("tbody tr").all_inner_texts()]


def tab_address(base: str, dag_id: str, run_id: str) -> str:
    """Return the address of the tab of a DAG run that shows what it made."""
    return f"{base}/dags/{dag_id}/runs/{quote(run_id, safe='')}/plugin/cloud_masks_of_run"


def paths_of_navigation(page: Page) -> list[str]:
    """Return the addresses of the navigation but the map, which tests/serve/test_map_page.py looks at."""
    links = page.get_by_role("navigation", name="Pages of cloud masks").get_by_role("link").all()
    found = [str(link.get_attribute("href")).removeprefix("/cloudseg") for link in links]
    assert "/browse/" in found
    return [path for path in found if path != "/browse/"]


def detail_paths(ids: Mapping[str, Any]) -> list[str]:
    """Return the addresses of the pages about one thing, of every kind."""
    return [
        f"/weights/{ids['weights']}",
        f"/masks/{ids['mask']}",
        "/compare",
        "/compare/v2/v1",
        "/changes/v1/v2",
        f"/data/labels/{ids['label']}",
        f"/data/difference?{urlencode({'before': ids['snapshots'][1], 'after': ids['snapshots'][0]})}",
        f"/quarantine/{ids['quarantine']}",
        f"/quarantine/{ids['quarantine']}/alike",
        f"/of-run?{urlencode({'dag_id': 'cloudseg_retrain', 'run_id': ids['retrain_run']})}",
        f"/runs?{urlencode({'run_id': ids['decide_run']})}",
        "/decide",
        "/decide?decision=roll_back&about=v1",
        "/decide?decision=promote&about=v9",
        "/no/such/page",
    ]
