"""Whoever finds masks sees those that readers see, and as of a moment what they saw then, on every database."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import serve_world
from fastapi.testclient import TestClient
from sqlalchemy import text

import cloudseg
from cloudseg import stages
from cloudseg.catalog import mask_query as mq
from cloudseg.catalog import mask_search as ms
from cloudseg.catalog import model_rows, scene_rows
from cloudseg.catalog.search_area import area_of_box
from cloudseg.catalog.session import now
from cloudseg.errors import InputError, NotInCatalog
from cloudseg.export.choose import Selection, iter_chosen
from cloudseg.records import utc_iso
from cloudseg.runtime import Runtime, open_runtime

# rasterio hides a warning of its own in each thread of a cube, and the filters of `warnings` belong to all threads.
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
FIRST = datetime(2025, 1, 1, tzinfo=UTC)
"""When model 1 and its masks are published; model 2 and its masks follow a month later."""
SECOND = FIRST + timedelta(days=31)
DAY = timedelta(days=1)
PLACE = next(iter(serve_world.PLACES))
BOX = (2.3, 49.6, 2.4, 49.65)
"""Inside of every scene."""
WHEN = "2024-06"


@pytest.fixture(params=["sqlite", "postgresql", "postgis"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def home(
    request: pytest.FixtureRequest, backend: str, runtime_env: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Runtime]:
    """Yield a home with three scenes of one place, which both models have masked."""
    with ExitStack() as stack:
        if backend != "sqlite":
            url = stack.enter_context(request.getfixturevalue(backend).migrated())
            monkeypatch.setenv("CLOUDSEG_CATALOG_URL", url.render_as_string(hide_password=False))
        runtime = open_runtime()
        if backend == "sqlite":
            runtime.catalog.upgrade()
        weights = [serve_world._weights(runtime.store, version) for version in (1, 2)]
        with runtime.catalog.begin() as db:
            for generation, (moment, found) in enumerate(zip((FIRST, SECOND), weights, strict=True), start=1):
                model_rows.add_weights(db, found.model_copy(update={"created_at": moment}))
                promotion = serve_world._promotion(found.weights_id)
                model_rows.add_promotion(
                    db, promotion.model_copy(update={"generation": generation, "created_at": moment})
                )
        for day in range(3):
            scene = serve_world._scene(runtime.store, tmp_path, PLACE, 0, day)
            with runtime.catalog.begin() as db:
                scene_rows.add_scene(db, scene)
                for version, (moment, found) in enumerate(zip((FIRST, SECOND), weights, strict=True), start=1):
                    cloud = serve_world.cloud_of(0, day, version)
                    mask = serve_world._mask(runtime.store, tmp_path, scene, found, cloud)
                    model_rows.add_mask(db, mask.model_copy(update={"created_at": moment}))
        yield runtime
        runtime.catalog.engine.dispose()


class Readers:
    """Every way to find masks; each returns the version of the model that made what it finds, 0 for nothing."""

    def __init__(self, runtime: Runtime, client: TestClient, folder: Path, *, rasters: bool) -> None:
        self.runtime, self.client, self.folder = runtime, client, folder
        west, south, east, north = BOX
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        (folder / "aoi.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
        of_masks = "SELECT mask_id, version FROM mask JOIN weights ON mask.weights_id = weights.weights_id"
        with runtime.catalog.read() as db:
            self.versions = {row.mask_id: row.version for row in db.execute(text(of_masks))}
        # Which masks the rasters are read from does not depend on the database.
        self.totals = {self.total(weights=f"v{version}"): version for version in (1, 2)} if rasters else {}

    def look(self, moment: datetime | None = None) -> dict[str, object]:
        as_of = None if moment is None else utc_iso(moment)
        more = {} if as_of is None else {"as_of": as_of}
        found = {"search": self.by_api(more), "post": self.by_post(more), "features": self.by_features(more)}
        found["items"], found["latest"] = self.by_items(more)
        found["mosaic"] = self.by_mosaic(moment)
        found["tiles"] = self.client.get("/mosaic/mask/9/259/174.png", params=more).headers["etag"]
        chosen = Selection(bbox=BOX, as_of=as_of)
        found["export"] = self.or_nothing(lambda: [row.id for row in iter_chosen(self.runtime.catalog, chosen)])
        aoi = str(self.folder / "aoi.geojson")
        found["stats"] = self.or_nothing(lambda: [row.mask_id for row in stages.stats(aoi, as_of=as_of).rows])
        found["rows"] = self.version_of([entry["mask_id"] for entry in stages.masks(as_of=as_of or utc_iso(now()))])
        if self.totals:
            found |= {"composite": self.by_composite(as_of), "cube": self.by_cube(as_of)}
        return found

    def version_of(self, mask_ids: Iterable[str]) -> int:
        found = {self.versions[mask_id] for mask_id in mask_ids}
        assert len(found) <= 1, "masks of two models"
        return found.pop() if found else 0

    def or_nothing(self, function: Callable[[], Iterable[str]]) -> int:
        try:
            return self.version_of(function())
        except NotInCatalog:
            return 0

    def ids(self, answer: Any) -> list[str]:
        assert answer.status_code == 200, answer.text
        found = [feature["id"] for feature in answer.json()["features"]]
        assert len(found) in (0, 3), "one mask of each scene"
        return found

    def by_api(self, more: dict[str, str]) -> int:
        return self.version_of(self.ids(self.client.get("/stac/search", params={"collections": "masks", **more})))

    def by_post(self, more: dict[str, str]) -> int:
        body = {"collections": ["masks"], "bbox": list(BOX), **more}
        return self.version_of(self.ids(self.client.post("/stac/search", json=body)))

    def by_features(self, more: dict[str, str]) -> int:
        return self.version_of(self.ids(self.client.get("/features/footprints", params=more)))

    def by_items(self, more: dict[str, str]) -> tuple[int, int]:
        """Return the version of the items, and that which they call the latest."""
        address = "/stac/collections/masks/items"
        items = self.ids(self.client.get(address, params=more))
        documents = [self.client.get(f"{address}/{mask_id}", params=more).json() for mask_id in items]
        latest = [link for item in documents for link in item["links"] if link["rel"] == "latest-version"]
        return self.version_of(items), self.version_of(link["href"].rsplit("/", 1)[1] for link in latest)

    def by_mosaic(self, moment: datetime | None) -> int:
        area = area_of_box(BOX)
        with self.runtime.catalog.read() as db:
            found = ms.newest_of_each_place(db, area, since=None, until=None, version=None, limit=9, as_of=moment)
        return self.version_of(row.id for row in found)

    def by_composite(self, as_of: str | None) -> int:
        out = str(self.folder / "c.tif")
        more = {"datetime": WHEN, "bbox": BOX, "resolution_m": 200, "overwrite": True}
        return self.or_nothing(lambda: stages.composite(out, as_of=as_of, **more).masks)

    def by_cube(self, as_of: str | None) -> int:
        try:
            return self.totals[self.total(as_of=as_of)]
        except NotInCatalog:
            return 0

    def total(self, **more: object) -> float:
        found = cloudseg.open_masks(bbox=BOX, crs="EPSG:32631", resolution=100, **more)
        assert found.sizes["time"] == 3
        return float(found.mask.sum())


@pytest.fixture
def see(home: Runtime, backend: str, tmp_path: Path) -> Iterator[Callable[..., dict[str, object]]]:
    """Yield a function that looks in every way, now or at a moment."""
    from cloudseg.serve.app import create_app

    with TestClient(create_app(home), raise_server_exceptions=False) as client:
        yield Readers(home, client, tmp_path, rasters=backend == "sqlite").look


def versions_in(found: dict[str, object]) -> set[object]:
    return {version for name, version in found.items() if name != "tiles"}


def test_every_read_follows_the_switch_and_the_past_stays(see: Callable[..., dict[str, object]]):
    assert versions_in(see(FIRST - DAY)) == {0}, "nothing was published"
    first, second = see(FIRST + DAY), see(SECOND + DAY)
    assert (versions_in(first), versions_in(second)) == ({1}, {2})
    assert first["tiles"] != second["tiles"]
    assert see() == second, "the newest champion, always"
    before = now()
    stages.switch_readers("v1", hold=True, reason="a test")
    assert see() == first
    switched = now()
    stages.switch_readers_back(reason="a test")
    assert see() == second
    for moment, expected in ((FIRST + DAY, first), (before, second), (switched, first)):
        assert see(moment) == expected, "what was seen then never changes"


@pytest.mark.parametrize("backend", ["sqlite"])
def test_what_names_the_model_or_ids_overrides(home: Runtime):
    def ids(**query: object) -> set[str]:
        return {row.weights.version for row in ms.iter_found(home.catalog, mq.Query(("masks",), **query))}

    assert ids() == {2}
    named = {"op": "=", "args": [{"property": "properties.cloudseg:model_version"}, 1]}
    both = {"op": "or", "args": [named, {"op": "isNull", "args": [{"property": "cloudseg:weights_id"}]}]}
    cover = {"op": ">=", "args": [{"property": "eo:cloud_cover"}, 0]}
    assert (ids(where=named), ids(where=both), ids(where=cover), ids(any_model=True)) == ({1}, {1}, {2}, {1, 2})
    with home.catalog.read() as db:
        (old,) = ms.search(db, mq.Query(("masks",), where=named), limit=1).rows
        old_weights = old.weights.weights_id
        assert ms.load_rows(db, "masks", [old.id], FIRST - DAY) == []
    assert ids(ids=(old.id,)) == {1}
    assert ids(ids=(old.id,), as_of=FIRST - DAY) == set(), "it was not there"
    assert ids(weights_id=old_weights) == {1}
    assert ids(as_of=FIRST + DAY, where=cover) == {1}
    assert cloudseg.open_masks(bbox=BOX, weights="v1", as_of=utc_iso(SECOND)).sizes["time"] == 3
    with pytest.raises(InputError, match="no zone"):
        cloudseg.open_masks(as_of="2025-01-01T00:00:00")


@pytest.mark.parametrize("backend", ["sqlite"])
def test_pages_of_one_search_are_of_one_model(home: Runtime):
    with home.catalog.read() as db:
        page = ms.search(db, mq.Query(("masks",)), limit=1)
    stages.switch_readers("v1", hold=True, reason="between two pages")
    found = page.rows
    while page.token:
        with home.catalog.read() as db:
            page = ms.search(db, mq.Query(("masks",)), limit=1, token=page.token)
        found += page.rows
    assert [row.weights.version for row in found] == [2, 2, 2]


@pytest.mark.parametrize("backend", ["sqlite"])
def test_the_static_catalog_follows_the_switch(home: Runtime):
    def latest() -> tuple[set[int], set[int]]:
        """Return the versions that are not deprecated, and those that the links name."""
        items = [json.loads(path.read_text()) for path in Path(home.store.root).glob("stac/masks/*/mk-*.json")]
        assert len(items) == 6
        current = {int(item["properties"]["version"]) for item in items if not item["properties"]["deprecated"]}
        versions = {item["id"]: int(item["properties"]["version"]) for item in items}
        links = [link["href"] for item in items for link in item["links"] if link["rel"] == "latest-version"]
        return current, {versions[Path(href).stem] for href in links}

    stages.switch_readers("v1", hold=True, reason="a test")
    assert latest() == ({1}, {1})
    root = str(Path(home.store.root) / "stac" / "catalog.json")
    area = {"bbox": BOX, "resolution": 200}
    seen, static = (cloudseg.open_masks(**area, **more).compute() for more in ({}, {"url": root}))
    assert seen.mask.sum() == static.mask.sum()
    stages.switch_readers_back(reason="a test")
    assert latest() == ({2}, {2})
    assert cloudseg.open_masks(**area, url=root).mask.sum() > static.mask.sum(), "clouds of model 2 are larger"
    with pytest.raises(InputError, match="only what is there now"):
        cloudseg.open_masks(url=root, as_of="2025-01-02T00:00:00Z")


@pytest.mark.parametrize("backend", ["sqlite"])
def test_the_parameter_is_documented_and_checked(home: Runtime):
    from cloudseg.serve.app import create_app

    with TestClient(create_app(home), raise_server_exceptions=False) as client:
        paths = client.get("/stac/api").json()["paths"]
        for path in ("/stac/search", "/stac/collections/{collection_id}/items", "/features/footprints"):
            assert "as_of" in {parameter["name"] for parameter in paths[path]["get"]["parameters"]}, path
        item = "/stac/collections/{collection_id}/items/{item_id}"
        assert "as_of" in {parameter["name"] for parameter in paths[item]["get"]["parameters"]}
        assert client.get("/stac/search", params={"as_of": "2025-01-01"}).status_code == 400
        pages = client.get("/stac/search", params={"collections": "masks", "limit": 1, "as_of": utc_iso(FIRST)}).json()
        following = next(link["href"] for link in pages["links"] if link["rel"] == "next")
        assert client.get(following).json()["features"][0]["properties"]["version"] == "1"
        models = client.get("/stac/search", params={"collections": "models", "as_of": utc_iso(FIRST)}).json()
        assert [item["properties"]["deprecated"] for item in models["features"]] == [False]
        assert len(client.get("/stac/search", params={"collections": "models"}).json()["features"]) == 2
