"""The map in a real browser: what it draws, answers and loads, also at 400 pixels and by keyboard alone."""

import io
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import serve_world
import uvicorn
from PIL import Image
from rasterio.transform import Affine
from rasterio.warp import transform

from cloudseg.catalog import Catalog

pytestmark = pytest.mark.browser
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FOCUSABLE = "a[href], button, input, select, summary, canvas[tabindex='0']"
NAMELESS = f"""() => [...document.querySelectorAll("{FOCUSABLE}")].filter((element) =>
    !(element.labels?.length || element.getAttribute("aria-label") || element.textContent.trim() || element.title))
    .map((element) => element.outerHTML.slice(0, 200))"""
CUT_OFF = """() => [...document.querySelectorAll("#controls *, #maps > *")].filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1) && !element.closest(".skip");
}).map((element) => element.outerHTML.slice(0, 200))"""

SMALL = """() => [...document.querySelectorAll("#controls button, #controls select, #buttons button")]
    .filter((element) => element.offsetParent && element.offsetHeight < 28).map((element) => element.outerHTML)"""


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: apt install chromium")
    options = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=options)
        yield chromium
        chromium.close()


@pytest.fixture
def page_at(browser, server: str) -> Iterator:
    """Return a function that opens the map; at the end, no other host was asked and the console has no error.

    With `refused`, the browser's own lines about refused requests are expected.
    """
    pages, hosts, allowed, problems = [], set(), {"blob", "", server.removeprefix("http://")}, []

    def note(message, refused: bool) -> None:
        expected = refused and ("Failed to load resource" in message.text or "CORS policy" in message.text)
        if message.type == "error" and not expected:
            problems.append(message.text)

    def open_page(width: int, height: int, *, address: str = server, refused: bool = False, query: str = ""):
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(60_000)
        allowed.add(address.split("/")[2])
        page.on("request", lambda request: hosts.add(request.url.split("/")[2] if "//" in request.url else "blob"))
        page.on("console", lambda message: note(message, refused))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{address}/{query}")
        page.wait_for_selector("body[data-ready]")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert hosts <= allowed
    assert problems == []


@contextmanager
def served(home: Path, **settings: str) -> Iterator[str]:
    """Serve another home in a thread of this process; yield its address."""
    from cloudseg.serve.app import create_app

    runtime = serve_world.opened_runtime(home, **settings)
    config = uvicorn.Config(create_app(runtime), port=0, log_level="critical", access_log=False, log_config=None)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started:
            thread.join(0.02)
        yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(20)
        runtime.catalog.engine.dispose()


def settle(page) -> None:
    """Wait until every tile is drawn."""
    page.wait_for_function("() => Object.values(maps).every((map) => map.loaded() && map.areTilesLoaded())")
    page.evaluate("new Promise((done) => { maps.left.once('render', done); maps.left.triggerRepaint(); })")


def colors_at(page, scene: str, points: list[tuple[float, float]]) -> np.ndarray:
    """Return RGB of the screen at pixels `(row, col)` of a scene, which is named `scene_PLACE_DAY`."""
    settle(page)
    crs, west, north = list(serve_world.PLACES.values())[int(scene.split("_")[1])]
    grid = Affine(serve_world.RESOLUTION, 0, west, 0, -serve_world.RESOLUTION, north)
    xs, ys = zip(*(grid @ (col + 0.5, row + 0.5) for row, col in points), strict=True)
    places = list(zip(*transform(crs, "EPSG:4326", xs, ys), strict=True))
    shown = page.evaluate(
        "places => places.map((at) => { const p = maps.left.project(at); return [p.x, p.y]; })", places
    )
    picture = np.asarray(Image.open(io.BytesIO(page.locator("#maps").screenshot())).convert("RGB")).astype(int)
    return np.array([picture[round(y), round(x)] for x, y in shown])


def magenta(colors: np.ndarray) -> list[bool]:
    """Return which colors have the overlay of clouds in them, over whatever is below."""
    red, green, blue = np.moveaxis(colors, -1, 0)
    return list((red - green > 60) & (blue - green > 30))


def open_scene(page, name: str) -> None:
    page.get_by_role("button", name=name).first.click()
    page.wait_for_selector("#answer dl")
    page.wait_for_function("() => maps.left.getZoom() > 10")


def test_a_mask_is_drawn_over_its_scene_and_a_click_tells_what_it_is(page_at, server):
    page = page_at(1400, 900)
    to_scene(page, "scene_1_1")
    open_scene(page, "scene_1_1")
    cloud, clear = (128, 124), (200, 60)
    assert magenta(colors_at(page, "scene_1_1", [cloud, clear])) == [True, False]
    page.uncheck("#mask-on")
    bare = colors_at(page, "scene_1_1", [cloud, clear])
    assert magenta(bare) == [False, False]
    assert bare[0].min() > 240, "the scene's cloud is white"
    assert bare[1].max() < 90, "and its ground dark"
    page.check("#probability-on")
    drawn = colors_at(page, "scene_1_1", [cloud, clear])
    assert drawn[0][0] > 150 > drawn[0][2], "probable is yellow"
    assert drawn[1][2] > drawn[1][1] + 20, "improbable is violet"
    page.locator("#probability-opacity").fill("0")
    assert np.abs(colors_at(page, "scene_1_1", [cloud, clear]) - bare).max() <= 2
    page.check("#mask-on")
    page.locator("#left canvas").click(position=at_of(page, "scene_1_1", cloud))
    page.wait_for_function("() => document.querySelector('#said').textContent.includes('probability 0.900')")
    text = page.inner_text("#answer")
    for fact in ("cloud", "0.900 (cloud from 0.5 on)", "2024-06-02 12:00:00 UTC", "version 2", "mk-", "Labels: none"):
        assert fact in text, fact
    for name, ending in (("Mask", "_mask.tif"), ("Open in QGIS", "scene_1_1_model_2.qgs")):
        with page.expect_download() as download:
            page.locator("#answer").get_by_role("link", name=name, exact=True).click()
        assert download.value.suggested_filename.endswith(ending)
    for link in page.locator("#answer .links a").all():
        assert page.request.get(link.get_attribute("href")).ok, link.inner_text()


def at_of(page, scene: str, point: tuple[float, float]) -> dict[str, float]:
    crs, west, north = list(serve_world.PLACES.values())[int(scene.split("_")[1])]
    x, y = west + serve_world.RESOLUTION * (point[1] + 0.5), north - serve_world.RESOLUTION * (point[0] + 0.5)
    lon, lat = transform(crs, "EPSG:4326", [x], [y])
    return page.evaluate("at => { const { x, y } = maps.left.project(at); return { x, y }; }", [lon[0], lat[0]])


def test_the_swipe_shows_two_models_side_by_side(page_at):
    page = page_at(1100, 800)
    page.get_by_role("button", name="Show all masks").wait_for(state="hidden")
    to_scene(page, "scene_0_1")
    open_scene(page, "scene_0_1")
    page.check("#compare")
    page.wait_for_function("() => document.querySelector('#tag-right').textContent")
    assert page.inner_text("#tag-left") == "model 2"
    assert page.inner_text("#tag-right") == "model 1"
    # Model 2's disc has a radius of 36 pixels, model 1's of 28, around (128, 124): 32 is cloud for model 2 alone.
    rings, both = [(128, 92), (128, 156)], [(118, 104), (118, 146)]
    for share, expected in (("100", [True, True]), ("0", [False, False]), ("50", [True, False])):
        page.locator("#swipe").fill(share)
        assert magenta(colors_at(page, "scene_0_1", rings)) == expected, f"swipe {share}"
        assert magenta(colors_at(page, "scene_0_1", both)) == [True, True], f"swipe {share}"
    middle = page.locator("#line").bounding_box()
    page.mouse.move(middle["x"] + middle["width"] / 2, 200)
    page.mouse.down()
    page.mouse.move(60, 200)
    page.mouse.up()
    assert int(page.input_value("#swipe")) < 15
    page.locator("#right canvas").click(position=at_of(page, "scene_0_1", rings[1]))
    page.wait_for_function("() => document.querySelectorAll('#answer h3').length === 2")
    page.wait_for_function("() => document.querySelector('#said').textContent.includes('Right: scene_0_1: clear')")
    assert "Left: scene_0_1: cloud, probability 0.900" in page.inner_text("#said")


def to_scene(page, name: str) -> None:
    """Move the map to a place, as the page starts at the newest mask."""
    crs, west, north = list(serve_world.PLACES.values())[int(name.split("_")[1])]
    lon, lat = transform(crs, "EPSG:4326", [west + 2500], [north - 2500])
    page.evaluate("at => maps.left.jumpTo({ center: at, zoom: 11 })", [lon[0], lat[0]])
    page.get_by_role("button", name=name).first.wait_for()


def test_time_and_model_choose_what_is_drawn(page_at):
    page = page_at(1100, 800)
    to_scene(page, "scene_0_1")
    assert page.inner_text("#day-name") == "2024-06-02", "readers see model 2, which has not seen the last day"
    page.select_option("#version-left", label="model 1")
    page.get_by_role("button", name="scene_0_2").first.wait_for()
    assert page.inner_text("#day-name") == "2024-06-03"
    clouds = [(128, 64), (128, 124), (128, 184)]
    assert magenta(colors_at(page, "scene_0_2", clouds)) == [False, False, True]
    page.locator("#day").focus()
    page.keyboard.press("Home")
    page.wait_for_function("() => document.querySelector('#count').textContent.startsWith('(2)')")
    assert page.inner_text("#day-name") == "2024-06-01"
    assert magenta(colors_at(page, "scene_0_2", clouds)) == [True, False, False]
    page.keyboard.press("End")
    page.select_option("#period", label="this day only")
    page.select_option("#version-left", label="model 2")
    page.wait_for_function(
        "() => document.querySelector('#message').textContent.startsWith("
        "'No mask by model 2 in this period (until 2024-06-03)')"
    )
    assert magenta(colors_at(page, "scene_0_2", clouds)) == [False, False, False]
    page.evaluate("maps.left.jumpTo({ center: [-140, -40], zoom: 8 })")
    page.get_by_role("button", name="Go to the newest mask").click()
    page.wait_for_function("() => maps.left.getCenter().lat > 40 || maps.left.getCenter().lat < -15")


def test_nothing_is_cut_off_and_everything_has_a_name(page_at):
    page = page_at(1400, 900)
    open_scene(page, "scene_")
    page.check("#compare")
    page.wait_for_function("() => maps.right")
    assert page.evaluate(NAMELESS) == []
    for width in (1400, 768, 400):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CUT_OFF) == [], width
        assert page.evaluate(SMALL) == [], width


def test_the_page_works_at_400_pixels_by_keyboard_alone(page_at):
    page = page_at(400, 800)
    press = page.keyboard.press
    focus = "document.activeElement.id || document.activeElement.parentElement.id || document.activeElement.className"
    press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "CANVAS"
    assert page.evaluate("getComputedStyle(document.querySelector('#cross')).visibility") == "visible"
    before = page.evaluate("maps.left.getCenter().lng")
    press("ArrowLeft")
    page.wait_for_function("before => maps.left.getCenter().lng < before", arg=before)
    press("Enter")
    page.wait_for_selector("#answer:not([hidden])")
    seen = []
    for _ in range(60):
        press("Tab")
        name = page.evaluate(focus)
        if name == "skip" or page.evaluate("document.activeElement === document.body"):
            break
        seen.append(name)
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"the focus of {name} cannot be seen"
        if name == "compare":
            press("Space")
            page.wait_for_function("() => maps.right")
        if name == "swipe":
            press("Home")
            assert page.input_value("#swipe") == "0"
            press("End")
            assert page.inner_text("#swipe-name") == "100 %"
    wanted = ["inspect", "day", "period", "date", "version-left", "compare", "version-right", "swipe", "mask-on"]
    assert [name for name in dict.fromkeys(seen) if name in wanted] == wanted
    page.locator("#list button").first.focus()
    press("Enter")
    page.wait_for_selector("#alone:not([hidden])")
    assert page.evaluate("document.activeElement.dataset.mask"), "the focus stays in the list"


def test_an_empty_catalog_says_what_to_do(page_at, tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    catalog = Catalog(f"sqlite:///{home / 'catalog.db'}")
    catalog.upgrade()
    catalog.engine.dispose()
    with served(home) as address:
        page = page_at(800, 600, address=address)
        assert "no published mask yet" in page.inner_text("#message")
        assert "cloudseg predict" in page.inner_text("#message")
        page.wait_for_function("() => maps.left.querySourceFeatures('land').length > 0")
        settle(page)
        places = [[13, 23], [-43, 23], [-5, 46], [50, 42]]
        shown = page.evaluate("places => places.map((at) => maps.left.project(at)).map(({ x, y }) => [x, y])", places)
        picture = np.asarray(Image.open(io.BytesIO(page.locator("#maps").screenshot())).convert("RGB"))
        colors = [tuple(int(value) for value in picture[round(y), round(x)]) for x, y in shown]
        land, sea = (243, 241, 234), (201, 217, 232)
        assert colors == [land, sea, sea, sea], "Sahara, Atlantic, Bay of Biscay, Caspian Sea"
        page.get_by_role("button", name="Ask at the center of the map").click()
        page.wait_for_selector("#answer:not([hidden])")
        assert "No mask at" in page.inner_text("#answer")


def test_a_missing_scene_raster_is_told_and_the_mask_is_still_drawn(page_at, published: Path, tmp_path: Path):
    home = shutil.copytree(published, tmp_path / "home")
    shutil.rmtree(home / "store" / "scenes")
    with served(home) as address:
        page = page_at(1100, 800, address=address, refused=True)
        to_scene(page, "scene_1_1")
        open_scene(page, "scene_1_1")
        page.wait_for_function(
            "() => document.querySelector('#problem').textContent.includes('Scene cannot be drawn everywhere')"
        )
        assert "the store lacks this object" in page.inner_text("#problem")
        assert "cloudseg doctor" in page.inner_text("#problem")
        assert magenta(colors_at(page, "scene_1_1", [(128, 124), (200, 60)])) == [True, False]


def test_the_page_asks_for_the_key(page_at, published: Path):
    key = "k" * 20
    with served(published, serve_api_keys=key) as address:
        page = page_at(1100, 800, address=address, refused=True)
        assert "An API key is needed" in page.inner_text("#problem")
        page.fill("#key-value", "wrong" * 5)
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.querySelector('#problem').textContent.includes('not accepted')")
        page.fill("#key-value", key)
        page.get_by_role("button", name="Use key").click()
        page.wait_for_selector("#list button")
        assert page.locator("#key").is_hidden()


def test_a_base_map_of_the_operator_is_the_only_other_host(page_at, published: Path, server: str):
    tiles = f"{server}/mosaic/mask/{{z}}/{{x}}/{{y}}.png"  # another origin, which answers 400 or without CORS headers
    with served(published, serve_base_tiles=tiles, serve_base_attribution="© Land survey") as address:
        page = page_at(1100, 800, address=address, refused=True)
        assert page.inner_text("#attribution") == "© Land survey"
        policy = page.request.get(f"{address}/").headers["content-security-policy"]
        assert f"connect-src 'self' {server};" in policy
        page.wait_for_function("() => document.querySelector('#problem').textContent.startsWith('Base map')")
