"""What one home serves, another one reads: scenes as a source of ingest, masks as a cube."""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio

import cloudseg
from cloudseg import stages
from cloudseg.catalog import Catalog
from cloudseg.catalog.stac_rows import COLLECTIONS, overview
from cloudseg.errors import InputError, NotInCatalog, StoreUnreachable
from cloudseg.runtime import open_runtime
from cloudseg.stac.links import Site
from cloudseg.stac.static import publish
from cloudseg.storage import LocalStore
from tests.ingest.stac_server import StacServer, run_server

BOX = [2.30, 49.59, 2.39, 49.66]


class _Settings:
    stac_license, stac_provider = "CC-BY-4.0", "Test"

    def __init__(self, public_url: str) -> None:
        self.public_url = public_url


@pytest.fixture(scope="module")
def static_root(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StacServer]:
    """Yield a server of files whose folder holds the store and its static catalog."""
    folder = tmp_path_factory.mktemp("static") / "www"
    shutil.copytree(published / "store", folder)
    with run_server(folder) as server:
        catalog = Catalog(f"sqlite:///{published / 'catalog.db'}")
        with catalog.read() as db:
            months = {collection: set(overview(db, collection).months) for collection in COLLECTIONS}
        publish(Site(LocalStore(folder), _Settings(server.url)), catalog, months)
        catalog.engine.dispose()
        yield server


@pytest.fixture
def source(request: pytest.FixtureRequest) -> str:
    """Return the address of our API or of our static root."""
    if request.param == "api":
        return f"{request.getfixturevalue('server')}/stac/"
    return f"{request.getfixturevalue('static_root').url}/stac/catalog.json"


def _host(address: str) -> str:
    return address.split("/")[2]


def _rows(home: Path) -> dict[str, dict]:
    return {scene["tags"]["stac_id"]: scene for scene in stages.scenes(limit=None)}


@pytest.mark.parametrize("source", ["api", "static"], indirect=True)
def test_scenes_of_another_home_are_ingested_as_they_are(
    source: str, published: Path, runtime_env: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CLOUDSEG_STAC_PRIVATE_HOSTS", _host(source))
    asked = {"collections": ["scenes"], "bbox": [2.0, 49.0, 3.0, 50.0], "datetime": "2024-06-02", "whole": True}
    record = stages.ingest(f"stac+{source}", bands=["red", "green", "blue", "nir"], **asked)
    assert record.quarantined == []
    assert len(record.added) == 2
    origin = Catalog(f"sqlite:///{published / 'catalog.db'}")
    with origin.read() as db:
        rows = db.exec_driver_sql("SELECT scene_id, key, acquired_at FROM scene").mappings()
        known = {row["scene_id"]: row for row in rows}
    origin.engine.dispose()
    store = open_runtime().store
    for item_id, scene in _rows(runtime_env).items():
        before = known[item_id]
        assert scene["bands"] == ["red", "green", "blue", "nir"]
        assert scene["name"] == item_id
        assert scene["sensor"].startswith("sentinel-2")
        assert scene["place"] == "mgrs:31UDQ"  # where the pixels are
        assert str(scene["acquired_at"])[:19].replace("T", " ") == before["acquired_at"][:19]
        assert "scale 0.0001" in scene["radiometry"]
        original = published / "store" / before["key"]
        with store.local_file(scene["key"]) as path, rasterio.open(path) as copy, rasterio.open(original) as first:
            assert np.array_equal(copy.read(), first.read())
            assert (copy.crs, copy.transform) == (first.crs, first.transform)
    again = stages.ingest(f"stac+{source}", bands=["red", "green", "blue", "nir"], **asked)
    assert again.added == []


def test_only_the_wanted_collection_of_a_static_root_is_read(
    static_root: StacServer, runtime_env: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CLOUDSEG_STAC_PRIVATE_HOSTS", _host(static_root.url))
    static_root.requests.clear()
    stages.ingest(f"stac+{static_root.url}/stac/catalog.json", collections=["scenes"], dry_run=True, limit=50)
    items = [path for path in static_root.paths(".json") if path.rpartition("/")[2][:3] in ("mk-", "sc-")]
    assert len(items) == 9
    assert all("/scenes/" in path for path in items)


def test_a_host_of_the_own_network_that_nobody_named_is_not_asked(static_root: StacServer, runtime_env: Path):
    with pytest.raises(InputError, match="plain http"):
        stages.ingest(f"stac+{static_root.url}/stac/catalog.json")


@pytest.mark.parametrize("source", ["api", "static"], indirect=True)
def test_masks_of_another_home_are_a_cube(source: str, published: Path, runtime_env: Path):
    cube = cloudseg.open_masks(url=source, bbox=BOX, datetime="2024-06-01/2024-06-02").compute()
    assert cube.sizes["time"] == 2  # of two versions the one that is not deprecated
    catalog = Catalog(f"sqlite:///{published / 'catalog.db'}")
    with catalog.read() as db:
        query = (
            "SELECT mask.key FROM mask JOIN scene USING (scene_id) JOIN weights USING (weights_id) "
            "WHERE version = 2 AND place = 'mgrs:31UDQ' ORDER BY acquired_at"
        )
        files = [row.key for row in db.exec_driver_sql(query)]
    catalog.engine.dispose()
    for date, key in enumerate(files):
        with rasterio.open(published / "store" / key) as mask:
            values = mask.read(1)
        found = cube["mask"].isel(time=date).values
        assert np.nansum(found) == (values == 1).sum()
        assert np.isfinite(found).sum() == (values != 255).sum()
    first = cloudseg.open_masks(url=source, bbox=BOX, datetime="2024-06-01", weights="v1").compute()
    assert np.nansum(first["mask"].values) < np.nansum(cube["mask"].isel(time=0).values)
    with pytest.raises(NotInCatalog, match="no masks"):
        cloudseg.open_masks(url=source, bbox=BOX, datetime="2023")
    with pytest.raises(InputError, match="more masks"):
        cloudseg.open_masks(url=source, bbox=BOX, limit=1)


def _item(href: str) -> dict:
    geometry = {"type": "Polygon", "coordinates": [[[2, 49], [3, 49], [3, 50], [2, 50], [2, 49]]]}
    moment = datetime(2024, 6, 1, tzinfo=UTC)
    item = pystac.Item("mk-1", geometry, [2, 49, 3, 50], datetime=moment, properties={})
    item.collection_id = "masks"
    for name in ("mask", "probability"):
        item.add_asset(name, pystac.Asset(href))
    return item.to_dict(include_self_link=False)


HOSTILE: dict[str, tuple[str, str]] = {
    "another port of this machine": ("http://127.0.0.1:1/mask.tif", "plain http"),
    "metadata of a cloud": ("http://169.254.169.254/latest/mask.tif", "plain http"),
    "this machine by name": ("https://localhost/mask.tif", "no public address"),
    "this machine in IPv6": ("https://[::1]/mask.tif", "no public address"),
    "a file": ("file:///etc/passwd.tif", "of this kind"),
    "a path": ("/etc/passwd", "not the address of a GeoTIFF"),
    "a virtual raster": ("mask.vrt", "not the address of a GeoTIFF"),
    "a driver of GDAL": ("/vsicurl/http://127.0.0.1/mask.vrt", "of this kind"),
    "a password": ("https://user:secret@example.org/mask.tif", "not a valid host"),
}


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Yield a function that serves a catalog whose item refers to a file, and returns its address."""
    with run_server(tmp_path / "www") as server:

        def serve(href: str) -> str:
            (server.folder / "item.json").write_text(json.dumps(_item(href)))
            link = {"rel": "item", "href": "./item.json"}
            root = {"type": "Catalog", "stac_version": "1.1.0", "id": "x", "description": "x", "links": [link]}
            (server.folder / "catalog.json").write_text(json.dumps(root))
            return f"{server.url}/catalog.json"

        yield serve


@pytest.mark.parametrize("name", HOSTILE)
def test_a_catalog_sends_nobody_into_the_own_network(foreign: Callable[[str], str], runtime_env: Path, name: str):
    href, words = HOSTILE[name]
    with pytest.raises(InputError, match=words):
        cloudseg.open_masks(url=foreign(href), bbox=BOX)


def test_a_server_that_is_not_there_or_no_catalog(foreign: Callable[[str], str], runtime_env: Path, monkeypatch):
    monkeypatch.setattr("cloudseg.api.stac_search._ATTEMPTS", 1)
    with pytest.raises(StoreUnreachable, match="cannot be read"):
        cloudseg.open_masks(url="http://127.0.0.1:1/stac/", bbox=BOX)
    address = foreign("x.tif")
    with pytest.raises(InputError, match="did not deliver"):
        cloudseg.open_masks(url=address.replace("catalog", "nothing"), bbox=BOX)
    with pytest.raises(InputError, match="of this kind"):
        cloudseg.open_masks(url="ftp://127.0.0.1/stac/", bbox=BOX)
