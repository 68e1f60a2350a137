"""Clients that nobody here wrote read the static catalog: pystac-client, odc-stac, DuckDB, GeoPandas, GDAL."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pystac
import pytest
import rasterio

from tests.seaweed import free_ports
from tests.stac.conftest import StacWorld

pytestmark = pytest.mark.filterwarnings(
    "ignore::pystac.errors.DeprecatedWarning",
    "ignore::UserWarning:pystac_client",
    "ignore:The 'shapely.ops.transform:DeprecationWarning",  # odc-geo calls it
)


@pytest.fixture
def over_http(stac: StacWorld) -> Iterator[StacWorld]:
    """The catalog behind a web server, as CLOUDSEG_PUBLIC_URL says.

    In a process of its own: GDAL holds Python's lock while it waits for an answer.
    """
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory"]
    with subprocess.Popen([*command, str(stac.world.store.root)], stderr=subprocess.DEVNULL) as server:
        wait_for(port)
        stac.site = replace(stac.site, settings=replace(stac.site.settings, public_url=f"http://127.0.0.1:{port}"))
        stac.publish()
        yield stac
        server.terminate()


def wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the web server does not answer")


@pytest.fixture(params=["files", "http"])
def read(request: pytest.FixtureRequest) -> StacWorld:
    return request.getfixturevalue("published" if request.param == "files" else "over_http")


def test_pystac_client_finds_the_masks(read: StacWorld) -> None:
    pystac_client = pytest.importorskip("pystac_client")
    client = pystac_client.Client.open(read.site.root())
    assert [child.id for child in client.get_children()] == ["scenes", "masks", "models", "snapshots"]
    masks = list(client.get_child("masks").get_items(recursive=True))
    assert len(masks) == 4
    assert {mask.get_collection().id for mask in masks} == {"masks"}
    scene = masks[0].get_single_link("derived_from").resolve_stac_object().target
    assert scene.id == masks[0].properties["cloudseg:scene_id"]


def test_odc_stac_shows_the_image_where_it_is_clear(read: StacWorld) -> None:
    odc = pytest.importorskip("odc.stac")
    for item in read.items("masks"):
        # As a client gets it from an API or a table: without the file that it was in.
        loaded = odc.load([pystac.Item.from_dict(item.to_dict(transform_hrefs=False))])
        assert {"mask", "probability", "red", "green", "blue", "nir"} == set(loaded.data_vars)
        scene = next(scene for scene in read.scenes if scene.scene_id == item.properties["cloudseg:scene_id"])
        with rasterio.open(read.world.store.gdal_path(scene.key)) as dataset:
            red = dataset.read(1)
        clear = loaded.mask.isel(time=0).to_numpy() == 0
        assert 0 < clear.sum() < clear.size, "the masks are of both classes"
        assert (loaded.red.isel(time=0).to_numpy() == red).all()
        shown = loaded.red.where(loaded.mask == 0).mean().item()
        assert shown == pytest.approx(red[clear].mean())


def test_odc_stac_stacks_the_latest_masks(read: StacWorld) -> None:
    odc = pytest.importorskip("odc.stac")
    latest = [item for item in read.items("masks") if not item.properties["deprecated"] and item.datetime]
    loaded = odc.load(latest, bands=["mask", "red"], chunks={})
    assert dict(loaded.sizes)["time"] == 2
    assert loaded.mask.nodata == 255
    assert set(np.unique(loaded.mask.compute())) <= {0, 1, 255}


def test_duckdb_reads_the_index_of_all_months(read: StacWorld) -> None:
    duckdb = pytest.importorskip("duckdb")
    files = str(read.root / "masks" / "*" / "items.parquet")
    found = duckdb.read_parquet(files, union_by_name=True).order("id")
    rows = found.project('id, version, deprecated, "eo:cloud_cover", assets.mask.href, bbox.xmin').fetchall()
    items = read.items("masks")
    assert rows == [
        (
            item.id,
            item.properties["version"],
            item.properties["deprecated"],
            item.properties["eo:cloud_cover"],
            item.assets["mask"].href,
            item.bbox[0],
        )
        for item in items
    ]


def test_geopandas_reads_the_index(read: StacWorld) -> None:
    geopandas = pytest.importorskip("geopandas")
    table = geopandas.read_parquet(read.root / "scenes" / "2024-05" / "items.parquet")
    assert list(table["id"]) == [read.scenes[0].scene_id]
    assert table.crs.to_epsg() == 4326
    west, south, east, north = table.total_bounds
    scene = read.scenes[0]
    assert (west, south) == pytest.approx((scene.min_lon, scene.min_lat), abs=1e-6)
    assert (east, north) == pytest.approx((scene.max_lon, scene.max_lat), abs=1e-6)


def test_rows_of_the_index_are_the_items(read: StacWorld) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("stac_geoparquet.arrow")
    table = parquet.read_table(read.root / "masks" / "2024-05" / "items.parquet")
    rows = {values["id"]: values for values in arrow.stac_table_to_items(table)}
    items = {item.id: item for item in read.items("masks") if item.datetime and item.datetime.month == 5}
    assert rows.keys() == items.keys()
    for item_id, values in rows.items():
        again, item = pystac.Item.from_dict(values), items[item_id]
        assert {name: asset.href for name, asset in again.assets.items()} == {
            name: asset.href for name, asset in item.assets.items()
        }
        assert again.properties["title"] == item.properties["title"]
        assert {(entry.rel, entry.href) for entry in again.links} == {(entry.rel, entry.href) for entry in item.links}


def test_gdal_opens_every_asset_by_its_address(read: StacWorld) -> None:
    for item in read.items("masks"):
        for name in ("mask", "probability", "image"):
            with rasterio.open(item.assets[name].href) as dataset:
                assert dataset.shape == tuple(item.properties["proj:shape"])
