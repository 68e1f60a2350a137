"""The page of any two models, on real evaluations: the figures of the gate's verdict, and pictures that can be read."""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import serve_world
from click.testing import CliRunner
from fastapi.testclient import TestClient
from PIL import Image
from rasterio.transform import Affine

from cloudseg import keys
from cloudseg.catalog import Catalog
from cloudseg.cli import root
from cloudseg.evaluate.clean_process import SmokeTest
from cloudseg.evaluate.gate import decide
from cloudseg.evaluate.panels import COLORS
from cloudseg.recipe import PromotionPolicy
from cloudseg.records import Verdict
from cloudseg.registry import promote
from cloudseg.runtime import Runtime, read_settings
from cloudseg.storage import LocalStore
from tests.evaluate.world import CPU, build_world, default_tiles, register_net

EVIL = "<script>alert(1)</script>"


class Compared:
    """Two models (v1 is champion and better), their verdict, and the scenes that they were evaluated on."""

    def __init__(self, home: Path) -> None:
        self.home, self.store, self.catalog = home, LocalStore(home / "store"), Catalog(f"sqlite:///{home}/catalog.db")
        self.catalog.upgrade()
        tiles = default_tiles()
        self.snapshot_id = build_world(self.store, self.catalog, tiles)
        for tile in tiles:
            grid = ("EPSG:32631", Affine(10, 0, 0, 0, -10, 0))
            cog = serve_world._cog(home, tile.dn, grid, 0, ["red", "green", "blue"])
            stored = self.store.put(keys.scene(keys.sha256_of(cog)), cog)
            with self.catalog.begin() as db:
                row = (stored.key, stored.sha256, stored.size, keys.make_id("sc", tile.name))
                db.exec_driver_sql("UPDATE scene SET key = ?, sha256 = ?, size = ? WHERE scene_id = ?", row)
        self.good, self.fair = (register_net(self.store, self.catalog, at) for at in (0.35, 0.555))
        first = self._decide(self.good.weights_id, None)
        promote(
            self.store,
            self.catalog,
            self.good.weights_id,
            expected_champion=None,
            verdict_id=first.verdict_id,
            actor="test",
            reason="first",
        )
        self.verdict = self._decide(self.fair.weights_id, self.good.weights_id)

    def _decide(self, challenger: str, champion: str | None) -> Verdict:
        return decide(
            self.store,
            self.catalog,
            challenger_id=challenger,
            champion_id=champion,
            snapshot_id=self.snapshot_id,
            promotion=PromotionPolicy(),
            device=CPU,
            smoke_test=lambda store, weights: SmokeTest(True, "not tested"),
        )

    def runtime(self) -> Runtime:
        return Runtime(read_settings(), self.store, self.catalog, "", self.home)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compared]:
    home = tmp_path_factory.mktemp("compared")
    made = Compared(home)
    yield made
    made.catalog.engine.dispose()


@pytest.fixture
def viewer(compared: Compared, client_of: Callable[[Callable[[], Runtime]], TestClient]) -> TestClient:
    return client_of(compared.runtime)


def test_the_page_shows_the_figures_of_the_gate(viewer: TestClient, compared: Compared):
    page = viewer.get("/compare?a=v2&b=champion").text
    of_gate = compared.verdict.body["difference"]
    for found in of_gate.values():
        assert f">{found['observed']:+.3f}</td>" in page
        assert f">{found['lower']:+.3f} … {found['upper']:+.3f}</td>" in page
    assert f"v1 is better than v2: IoU {of_gate['pooled']['observed']:+.3f}" in page
    assert "<b>REJECT</b>" in page
    assert "10 held-out scenes" in page
    assert "Imported weights have no recipe" in page
    assert "No scene has a published mask of both" in page
    assert page.count('class="forest"') == 2 + len(compared.verdict.body["slices"]) + 10
    assert "<script>" not in page
    assert " style=" not in page


def test_the_command_prints_what_the_page_shows(compared: Compared, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLOUDSEG_HOME", str(compared.home))
    answer = CliRunner().invoke(root, ["compare", "v2", "champion"])
    assert answer.exit_code == 0, answer.output
    pooled = compared.verdict.body["difference"]["pooled"]
    assert f"observed {pooled['observed']:+.4f}  lower {pooled['lower']:+.4f}  upper {pooled['upper']:+.4f}" in (
        answer.output
    )
    assert "imported weights have no recipe" in answer.output
    assert CliRunner().invoke(root, ["compare", "v2", "v2"]).exit_code == 2
    record = CliRunner().invoke(root, ["compare", "v2", "v1", "--json"]).output
    assert '"format": "cloudseg-comparison-1"' in record


def test_the_pictures_show_scene_label_and_both_masks(viewer: TestClient, compared: Compared):
    page = viewer.get("/compare?a=v2&b=v1").text
    addresses = re.findall(r'<img class="panels" src="([^"]+)"', page)
    assert len(addresses) == 10
    # Kept by browsers for a day: another evaluation of these models has another address.
    assert all(re.search(r"\.png\?of=ev-[0-9a-f]+,ev-[0-9a-f]+$", address) for address in addresses), addresses[0]
    answer = viewer.get(f"/compare/v2/v1/{keys.make_id('sc', 'T04')}.png")
    assert answer.headers["content-type"] == "image/png"
    picture = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))
    assert picture.shape == (288, 4 * 288 + 3 * 6, 3)
    panels = [picture[4:-4, left + 4 : left + 284] for left in range(0, picture.shape[1], 294)]
    missed = [(panel == COLORS["missed"]).all(axis=2).mean() for panel in panels]
    assert missed[0] == missed[1] == 0
    assert missed[2] > missed[3], "v2 misses more"
    assert panels[0][:, :60].mean() > 250, "the left third is cloud"
    assert panels[0][:, 120:].mean() == pytest.approx(255 * 0.1 / 0.3558, abs=3), "the rest reflects a tenth"
    assert viewer.get("/compare/v2/v1/sc-0.png").status_code == 404
    assert viewer.get(addresses[0], headers={"Authorization": ""}).status_code == 401


def test_a_form_chooses_the_two(viewer: TestClient, compared: Compared):
    page = viewer.get("/compare").text
    assert '<option value="v2" selected>' in page
    assert '<option value="champion" selected>' in page
    assert viewer.get("/compare/v2/v1", follow_redirects=False).headers["location"] == "/compare?a=v2&b=v1"
    assert 'href="/compare?a=v2&amp;b=champion"' in viewer.get(f"/weights/{compared.fair.weights_id}").text


def test_an_evaluation_of_an_earlier_release_has_no_pictures(viewer: TestClient, compared: Compared):
    with compared.catalog.read() as db:
        rows = db.exec_driver_sql("SELECT evaluation_id, report FROM evaluation").fetchall()
    try:
        with compared.catalog.begin() as db:
            db.exec_driver_sql("UPDATE evaluation SET report = json_remove(report, '$.masks')")
        page = viewer.get("/compare?a=v2&b=v1").text
        assert "made by an earlier release" in page
        assert "<img" not in page
    finally:
        with compared.catalog.begin() as db:
            for row in rows:
                db.exec_driver_sql("UPDATE evaluation SET report = ? WHERE evaluation_id = ?", (row[1], row[0]))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/compare?a=v1&b=v1", 400),
        ("/compare?a=v1&b=champion", 400),
        ("/compare?a=v1&b=v9", 404),
        ("/compare?a=v1&b=..%2Fx", 422),
        (f"/compare?a=v1&b={EVIL}", 422),
        ("/compare/v1/v2/x.png", 422),
    ],
)
def test_what_cannot_be_compared_is_refused(viewer: TestClient, path: str, status: int):
    answer = viewer.get(path)
    assert answer.status_code == status
    assert EVIL not in answer.text or answer.headers["content-type"] == "application/json"


def test_models_without_evaluations_name_the_command(client: TestClient, filled: Runtime):
    with filled.catalog.begin() as db:
        db.exec_driver_sql("DELETE FROM evaluation")
    answer = client.get("/compare?a=v1&b=v2")
    assert answer.status_code == 409
    assert "cloudseg evaluate w-1 --snapshot sn-1" in answer.text
    assert "Fewer than two models were evaluated" in client.get("/compare").text
