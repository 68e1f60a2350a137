"""A STAC API and a static catalog as sources, over real HTTP on loopback."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from cloudseg.ingest.stac_source.hosts import HostPolicy
from cloudseg.ingest.stac_source.http_client import USER_AGENT, HttpOptions
from cloudseg.ingest.stac_source.options import StacOptions
from cloudseg.ingest.stac_source.search import make_search
from cloudseg.records import IngestRecord, Scene
from tests.ingest.conftest import Service
from tests.ingest.stac_server import StacServer, run_server
from tests.ingest.stac_tiles import BLOCK, SIDE, box_of, box_of_pixels, dn, landsat, sentinel2, static_catalog


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StacServer]:
    with run_server(tmp_path / "www") as running:
        yield running


class Source:
    """Ingests from the server into a service."""

    def __init__(self, service: Service, server: StacServer) -> None:
        self.service, self.server = service, server
        host = server.url.removeprefix("http://")
        self.http = HttpOptions(HostPolicy(private=(host,)), timeout_s=5, attempts=3)
        self.folder = service.home / "fetch"

    def options(
        self, *, limit: int = 100, whole: bool = False, max_item_bytes: int = 1 << 30, **search: Any
    ) -> StacOptions:
        return StacOptions(self.folder, make_search(**search), limit, whole, max_item_bytes, self.http)

    def ingest(
        self, path: str = "/api", *, dry_run: bool = False, bands: list[str] | None = None, **more: Any
    ) -> IngestRecord:
        return self.service.ingest(
            f"stac+{self.server.url}{path}", stac=self.options(**more), dry_run=dry_run, bands=bands
        )

    def pixels(self, scene: Scene) -> tuple[np.ndarray, Any]:
        """Return the canonical digital numbers `(band, row, col)` and the transform."""
        with self.service.store.local_file(scene.key) as path, rasterio.open(path) as raster:
            return raster.read(), raster.transform


@pytest.fixture
def source(service: Service, server: StacServer) -> Source:
    return Source(service, server)


def only(service: Service) -> Scene:
    (scene,) = service.scenes().values()
    return scene


def test_a_sentinel2_item_of_an_api(source: Source, server: StacServer) -> None:
    """Only red, green, blue and the quality layer are read; scale and offset are those of the item."""
    server.items = [sentinel2(server.folder, server.url)]
    record = source.ingest()
    assert (len(record.added), record.quarantined) == (1, [])
    scene = only(source.service)
    assert (scene.sensor, scene.place, scene.bands) == ("sentinel-2-l2a", "mgrs:31UDQ", ["red", "green", "blue"])
    assert str(scene.acquired_at) == "2024-06-01 10:56:21+00:00"
    assert scene.source_uri == f"{server.url}/api/collections/sentinel-2-l2a/items/{scene.name}"
    assert scene.tags["stac_item"] == scene.source_uri
    assert scene.tags["stac_fetched"] == "whole"
    assert "offset -0.1" in scene.radiometry
    assert {path.rpartition("/")[2] for path in server.paths()} == {"red.tif", "green.tif", "blue.tif", "scl.tif"}
    assert server.agents == {USER_AGENT}
    found, _ = source.pixels(scene)
    assert found[:, :128, :32].max() == 0  # the quality layer says that nothing was observed
    assert np.array_equal(found[0][128:], dn(0)[128:] - 1000)


def test_a_landsat_item_of_a_static_catalog(source: Source, server: StacServer) -> None:
    static_catalog(server.folder, [landsat(server.folder, server.url)])
    record = source.ingest("/catalog.json", bands=["red", "green", "blue", "nir"])
    assert (len(record.added), record.quarantined) == (1, [])
    scene = only(source.service)
    assert (scene.sensor, scene.bands) == ("landsat-9", ["red", "green", "blue", "nir"])
    assert "scale 2.75e-05, offset -0.2" in scene.radiometry
    found, _ = source.pixels(scene)
    assert found[:, :10, :10].max() == 0
    expected = np.rint((dn(0, low=9000) * 2.75e-5 - 0.2) * 10_000)
    assert np.abs(found[0][20:].astype(int) - expected[20:]).max() <= 1
    assert not any("secret" in text for text in (scene.source_uri, *scene.tags.values()))


def test_what_is_known_is_not_fetched_again(source: Source, server: StacServer) -> None:
    server.items = [sentinel2(server.folder, server.url)]
    source.ingest()
    server.requests.clear()
    server.sent = 0
    record = source.ingest()
    assert (record.known, record.added) == (1, [])
    assert server.sent == 4  # one byte of each file, for its ETag
    path = f"/{server.items[0]['id']}/red.tif"
    server.faults[path] = lambda handler: handler.send_bytes(b"", 404) or True  # type: ignore[attr-defined]
    assert len(source.ingest().quarantined) == 1
    server.faults.clear()
    assert source.ingest().known == 1
    assert source.service.quarantine() == {}
    changed = server.folder / server.items[0]["id"] / "red.tif"
    changed.write_bytes((server.folder / server.items[0]["id"] / "nir.tif").read_bytes())
    assert len(source.ingest().added) == 1


def test_checksums_of_the_item_make_asking_unnecessary(source: Source, server: StacServer) -> None:
    import hashlib

    made = sentinel2(server.folder, server.url)
    for key, asset in made["assets"].items():
        file = server.folder / made["id"] / f"{key}.tif"
        if file.exists():
            asset["file:checksum"] = "1220" + hashlib.sha256(file.read_bytes()).hexdigest()
    server.items = [made]
    assert len(source.ingest().added) == 1
    server.requests.clear()
    assert source.ingest().known == 1
    assert server.paths() == []
    made["assets"]["red"]["file:checksum"] = "1220" + "0" * 64
    source.ingest()
    (entry,) = source.service.quarantine().values()
    assert "another checksum" in entry.what


@pytest.mark.parametrize("path", ["/api", "/catalog.json"])
def test_a_window_is_a_crop_of_the_whole(
    source: Source, server: StacServer, make_service: Any, tmp_path: Path, path: str
) -> None:
    server.items = [sentinel2(server.folder, server.url)]
    static_catalog(server.folder, server.items)
    server.sent = 0
    source.ingest(path, bbox=box_of_pixels(150, 300, 60, 60))
    part_bytes = server.sent
    part = only(source.service)
    assert part.tags["stac_fetched"] == "rows 0+256, columns 256+256"  # one block of the layer at 20 m
    found, transform = source.pixels(part)
    other = Source(Service(tmp_path / "other"), server)
    server.sent = 0
    other.ingest(path)
    whole, origin = other.pixels(only(other.service))
    col, row = (int(value) for value in ~origin * (transform.c, transform.f))
    assert (row, col) == (0, 256)
    assert np.array_equal(found, whole[:, row : row + 256, col : col + 256])
    assert part.crs == only(other.service).crs
    assert part_bytes < server.sent / 2


def test_a_window_at_the_far_edge(source: Source, server: StacServer) -> None:
    made = sentinel2(server.folder, server.url)
    server.items = [made]
    source.ingest(bbox=box_of_pixels(500, 490, 40, 100))
    found, _ = source.pixels(only(source.service))
    assert found.shape == (3, 256, 256)
    assert np.array_equal(found[0], dn(0)[256:, 256:] - 1000)


def test_the_whole_files_of_an_area(source: Source, server: StacServer) -> None:
    server.items = [sentinel2(server.folder, server.url)]
    source.ingest(bbox=box_of_pixels(150, 300, 60, 60), whole=True)
    assert only(source.service).height == SIDE


def test_an_area_from_a_file(source: Source, server: StacServer, tmp_path: Path) -> None:
    import json

    from shapely.geometry import box, mapping

    server.items = [sentinel2(server.folder, server.url)]
    area = tmp_path / "area.geojson"
    area.write_text(
        json.dumps({"type": "Feature", "properties": {}, "geometry": mapping(box(*box_of_pixels(10, 10, 9, 9)))})
    )
    source.ingest(aoi=area)
    assert only(source.service).height == 2 * BLOCK
    assert server.searches[0]["intersects"]["type"] == "Polygon"
    far = box(10, 10, 11, 11)
    area.write_text(json.dumps(mapping(far)))
    server.filters = False
    assert source.ingest(aoi=area).known == 0


def test_pages_limit_and_filters(source: Source, server: StacServer) -> None:
    """Every page is read; a limit counts what is new; a server that ignores filters changes nothing."""
    server.items = [
        sentinel2(
            server.folder,
            server.url,
            f"S2A_31UDQ_202406{day:02d}_0_L2A",
            seed=day,
            **{
                "datetime": f"2024-06-{day:02d}T10:00:00Z",
                "eo:cloud_cover": 10 * day,
            },
        )
        for day in (1, 2, 3, 4, 5)
    ]
    server.page = 1
    for _ in (1, 2):
        assert len(source.ingest(limit=1, max_cloud_cover=30, collections=["sentinel-2-l2a"]).added) == 1
    names = sorted(source.service.scenes())
    assert names == ["S2A_31UDQ_20240601_0_L2A", "S2A_31UDQ_20240602_0_L2A"]
    assert server.searches[0]["query"] == {"eo:cloud_cover": {"lte": 30}}
    assert server.searches[0]["collections"] == ["sentinel-2-l2a"]
    server.filters = False
    record = source.ingest(datetime="2024-06-02/2024-06-04", max_cloud_cover=30)
    assert (record.known, len(record.added)) == (1, 1)
    assert source.ingest(collections=["other"]).known == 0
    assert source.ingest(bbox=[10, 10, 11, 11]).known == 0
    assert len(source.ingest().added) == 2


def test_a_static_catalog_is_pruned_by_extents(source: Source, server: StacServer) -> None:
    static_catalog(server.folder, [sentinel2(server.folder, server.url)])
    assert source.ingest("/catalog.json", datetime="2020").known == 0
    assert source.ingest("/catalog.json", bbox=[50, 50, 51, 51]).known == 0
    assert source.ingest("/catalog.json", collections=["other"]).known == 0
    assert server.paths("L2A.json") == []
    assert len(source.ingest("/catalog.json", datetime="2024-06").added) == 1


@pytest.mark.parametrize("kind", ["item", "collection"])
def test_an_item_and_a_collection_are_sources_too(source: Source, server: StacServer, kind: str) -> None:
    made = sentinel2(server.folder, server.url)
    static_catalog(server.folder, [made])
    path = f"/collection/{made['id']}/{made['id']}.json" if kind == "item" else "/collection/collection.json"
    assert len(source.ingest(path).added) == 1
    assert only(source.service).source_uri == f"{server.url}/collection/{made['id']}/{made['id']}.json"


def test_a_dry_run_says_what_would_be_fetched(source: Source, server: StacServer) -> None:
    server.items = [sentinel2(server.folder, server.url)]
    record = source.ingest(dry_run=True)
    assert "would be fetched" in record.notes[0]
    assert server.sent == 4
    assert source.service.scenes() == {}


def test_a_bad_item_never_stops_the_others(source: Source, server: StacServer) -> None:
    good = sentinel2(server.folder, server.url)
    lost = sentinel2(server.folder, server.url, "S2A_31UDQ_20240602_0_L2A", seed=7)
    (server.folder / lost["id"] / "red.tif").unlink()
    damaged = sentinel2(server.folder, server.url, "S2A_31UDQ_20240603_0_L2A", seed=8)
    (server.folder / damaged["id"] / "red.tif").write_bytes(b"II*\0" + bytes(5000))
    bandless = sentinel2(server.folder, server.url, "S2A_31UDQ_20240604_0_L2A", seed=9)
    bandless["assets"] = {"visual": {"href": f"{server.url}/x.tif"}}
    server.items = [lost, damaged, bandless, good, {"type": "Feature", "id": "broken", "properties": {}}]
    server.filters = False
    record = source.ingest()
    assert len(record.added) == 1
    found = source.service.quarantine()
    assert found[lost["id"]].found == "status 404"
    assert "bands" in found[bandless["id"]].what
    assert damaged["id"] in found
    assert found[lost["id"]].source_uri.endswith(lost["id"])
    server.requests.clear()
    again = source.ingest()
    assert again.quarantined == []
    assert again.still_quarantined == len(record.quarantined) == 4
    whole = sentinel2(server.folder, server.url, lost["id"], seed=7)
    assert whole["id"] == lost["id"]
    assert len(source.ingest().added) == 1
    assert lost["id"] not in source.service.quarantine()


def test_the_box_of_the_tile_fetches_it_whole(source: Source, server: StacServer) -> None:
    server.items = [sentinel2(server.folder, server.url)]
    source.ingest(bbox=box_of())
    assert only(source.service).tags["stac_fetched"] == "whole"


def test_files_that_need_a_token(source: Source, server: StacServer) -> None:
    """One token is asked for, and it is neither stored nor shown."""
    made = sentinel2(server.folder, server.url)
    server.items = [made]

    def token(handler: Any) -> bool:
        handler.send_json({"token": "sv=2024&sig=se%2Fcret", "msft:expiry": "2999-01-01T00:00:00Z"})
        return True

    def needs_token(handler: Any) -> bool:
        if handler.path.endswith("?sv=2024&sig=se%2Fcret"):
            return False
        handler.send_bytes(b"", 403)
        return True

    server.faults["/token/sentinel-2-l2a"] = token
    server.faults |= {f"/{made['id']}/{band}.tif": needs_token for band in ("red", "green", "blue", "scl")}
    assert len(source.ingest().quarantined) == 1
    source.http = replace(source.http, token_url=f"{server.url}/token/{{collection}}")
    assert len(source.ingest().added) == 1
    assert [path for _, path, _ in server.requests].count("/token/sentinel-2-l2a") == 1
    assert "se%2Fcret" not in str(only(source.service).model_dump())
    assert source.service.quarantine() == {}
