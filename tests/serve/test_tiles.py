"""Tiles: right to the pixel, named by content, bounded; mosaics of the newest mask of each place."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
import serve_world
import web_mercator as grid
from defusedxml.ElementTree import fromstring
from fastapi.testclient import TestClient
from PIL import Image
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from cloudseg import keys
from cloudseg.raster.thumbnail import OUTLINE
from cloudseg.serve import render
from cloudseg.stac.mask import COLORS
from cloudseg.storage import LocalStore

ZOOM = 14


def item_of(client: TestClient, place: str, day: int, version: int | None = None) -> str:
    """Return the id of a mask, or of a scene without a version."""
    where = f"\"cloudseg:place\" = '{place}'" + (f' AND "cloudseg:model_version" = {version}' if version else "")
    moment = f"2024-06-{day + 1:02}T12:00:00Z"
    collection = "masks" if version else "scenes"
    asked = {"collections": collection, "filter": where, "datetime": moment}
    (found,) = client.get("/stac/search", params=asked).json()["features"]
    return found["id"]


def pixels_of(answer) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA"))


def lonlat(place: str, row: int, col: int) -> tuple[float, float]:
    """Return the center of a pixel of a scene."""
    crs, west, north = serve_world.PLACES[place]
    x, y = west + (col + 0.5) * serve_world.RESOLUTION, north - (row + 0.5) * serve_world.RESOLUTION
    (lon,), (lat,) = transform_points(crs, "EPSG:4326", [x], [y])
    return lon, lat


def color_at(client: TestClient, address: str, place: str, row: int, col: int, size: int = 256) -> tuple[int, ...]:
    """Return the color of a tile layer where a pixel of a scene is. `address` holds `{tile}`."""
    tile, x, y = grid.pixel_of(*lonlat(place, row, col), ZOOM, size)
    return tuple(map(int, pixels_of(client.get(address.format(tile=tile)))[y, x]))


PLACE = "mgrs:31UDQ"
CLOUD = (128, 64)
"""Center of the disc of day 0."""
CLEAR = (20, 200)
NO_DATA = (128, 4)


def test_a_mask_has_its_own_colors_and_no_data_is_transparent(client: TestClient):
    address = f"/tiles/{item_of(client, PLACE, 0, 1)}/mask/{{tile}}.png"
    assert color_at(client, address, PLACE, *CLOUD) == (*COLORS[1], 255)
    assert color_at(client, address, PLACE, *CLEAR) == (*COLORS[0], 255)
    assert color_at(client, address, PLACE, *NO_DATA)[3] == 0


def test_every_pixel_of_a_mask_is_a_class(client: TestClient):
    """A smooth resampling would mix the colors at the edge of a cloud."""
    mask = item_of(client, PLACE, 0, 1)
    for zoom in (9, 11, 12, 13):
        tile, _, _ = grid.pixel_of(*lonlat(PLACE, *CLOUD), zoom)
        for image_format in ("png", "webp"):
            colors = pixels_of(client.get(f"/tiles/{mask}/mask/{tile}.{image_format}")).reshape(-1, 4)
            seen = {tuple(color) for color in colors.tolist() if color[3]}
            assert seen <= {(*COLORS[0], 255), (*COLORS[1], 255)}, (zoom, image_format, seen)
            assert seen


def test_the_edge_of_a_cloud_is_where_the_file_has_it(client: TestClient):
    address = f"/tiles/{item_of(client, PLACE, 0, 1)}/mask/{{tile}}.png"
    cloud = serve_world.cloud_of(0, 0, 1)
    cols = np.flatnonzero(cloud[128])
    for col, expected in ((cols[0] - 1, 0), (cols[0] + 1, 1), (cols[-1] - 1, 1), (cols[-1] + 2, 0)):
        assert color_at(client, address, PLACE, 128, col) == (*COLORS[expected], 255), col


def test_the_overlay_shows_the_scene_under_clear_pixels(client: TestClient):
    address = f"/tiles/{item_of(client, PLACE, 0, 1)}/mask/{{tile}}.png?style=overlay"
    assert color_at(client, address, PLACE, *CLOUD)[:3] == OUTLINE
    assert 0 < color_at(client, address, PLACE, *CLOUD)[3] < 255
    assert color_at(client, address, PLACE, *CLEAR)[3] == 0


def test_probability_is_a_colormap_and_larger_where_it_is_cloud(client: TestClient):
    address = f"/tiles/{item_of(client, PLACE, 0, 1)}/probability/{{tile}}.png"
    high, low = color_at(client, address, PLACE, *CLOUD), color_at(client, address, PLACE, *CLEAR)
    assert high[0] > 180, "viridis ends in yellow"
    assert low[0] < 90, "and begins in violet"
    assert color_at(client, address, PLACE, *NO_DATA)[3] == 0


@pytest.mark.parametrize("by", ["scene", "mask"])
def test_a_scene_in_true_color_has_one_stretch(client: TestClient, by: str):
    item = item_of(client, PLACE, 0, 1 if by == "mask" else None)
    address = f"/tiles/{item}/image/{{tile}}.png"
    # Reflectance x 10 000 from 1 to 3558 becomes 0 to 255: 800 is 57; 6000 is beyond.
    assert color_at(client, address, PLACE, *CLEAR)[:3] == pytest.approx((57, 57, 57), abs=1)
    assert color_at(client, address, PLACE, *CLOUD) == (255, 255, 255, 255)
    assert color_at(client, address, PLACE, *NO_DATA)[3] == 0


def test_tiles_of_512_pixels(client: TestClient):
    tile, _, _ = grid.pixel_of(*lonlat(PLACE, *CLOUD), ZOOM)
    answer = client.get(f"/tiles/{item_of(client, PLACE, 0, 1)}/mask/{tile}.png?scale=2")
    assert pixels_of(answer).shape == (512, 512, 4)


def test_a_tile_that_the_client_has_is_not_read_again(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    first, second = item_of(client, PLACE, 0, 1), item_of(client, PLACE, 0, 2)
    tile, _, _ = grid.pixel_of(*lonlat(PLACE, *CLOUD), ZOOM)
    answer = client.get(f"/tiles/{first}/mask/{tile}.png")
    etag = answer.headers["etag"]
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    others = [
        client.get(f"/tiles/{second}/mask/{tile}.png"),
        client.get(f"/tiles/{first}/probability/{tile}.png"),
        client.get(f"/tiles/{first}/mask/{tile}.webp"),
        client.get(f"/tiles/{first}/mask/{tile}.png?style=overlay"),
    ]
    assert len({etag, *(other.headers["etag"] for other in others)}) == 5
    monkeypatch.setattr("cloudseg.serve.render.draw_tile", None)
    again = client.get(f"/tiles/{first}/mask/{tile}.png", headers={"If-None-Match": f'W/"x", {etag}'})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == etag


def test_tilejson_names_tiles_that_exist(client: TestClient):
    for place in serve_world.PLACES:
        mask = item_of(client, place, 0, 1)
        found = client.get(f"/tiles/{mask}/mask/tilejson.json?style=overlay").json()
        assert found["tilejson"] == "3.0.0"
        west, south, east, north = found["bounds"]
        assert -180 <= west < east <= 180
        assert south < north
        assert (found["minzoom"], found["maxzoom"]) == (13, 13), "20 m; 9.6 m at 49.6° north is zoom 13"
        lon, lat = lonlat(place, *CLOUD)
        tile, x, y = grid.pixel_of(lon, lat, found["maxzoom"])
        z, column, row = tile.split("/")
        address = found["tiles"][0].replace("{z}", z).replace("{x}", column).replace("{y}", row)
        assert tuple(pixels_of(client.get(address))[y, x])[:3] == OUTLINE, (place, address, x, y, found)
        # In the middle too, on whichever side of the antimeridian that is.
        lon, lat, zoom = found["center"]
        at = client.get(f"/point/{mask}", params={"lon": lon, "lat": lat}).json()
        assert at["class"] in ("clear", "cloud"), (place, found["center"])
        z, column, row = grid.pixel_of(lon, lat, zoom)[0].split("/")
        address = found["tiles"][0].replace("{z}", z).replace("{x}", column).replace("{y}", row)
        assert client.get(address).status_code == 200, (place, found["center"])


def test_wmts_names_tiles_that_exist(client: TestClient):
    mask = item_of(client, PLACE, 0, 1)
    root = fromstring(client.get(f"/tiles/{mask}/mask/WMTSCapabilities.xml").content)
    names = {"w": "http://www.opengis.net/wmts/1.0", "ows": "http://www.opengis.net/ows/1.1"}
    template = root.find(".//w:ResourceURL", names).get("template")
    (matrix,) = [
        found for found in root.iterfind(".//w:TileMatrix", names) if found.find("ows:Identifier", names).text == "12"
    ]
    # GoogleMapsCompatible, zoom 12 (OGC 07-057r7, table E.4).
    assert float(matrix.find("w:ScaleDenominator", names).text) == pytest.approx(136494.693366)
    tile, x, y = grid.pixel_of(*lonlat(PLACE, *CLOUD), 12)
    z, column, row = tile.split("/")
    address = template.replace("{TileMatrix}", z).replace("{TileCol}", column).replace("{TileRow}", row)
    assert tuple(pixels_of(client.get(address))[y, x]) == (*COLORS[1], 255)


def test_the_mosaic_shows_the_newest_mask_of_each_place(client: TestClient):
    newest = "/mosaic/mask/{tile}.png"
    day = {0: (128, 64), 1: (128, 124), 2: (128, 184)}
    for place in list(serve_world.PLACES)[:2]:
        assert color_at(client, newest, place, *day[1]) == (*COLORS[1], 255), "readers see model 2"
        assert color_at(client, newest, place, *day[0]) == (*COLORS[0], 255), "a cloud of an older day"
        until = newest + "?datetime=../2024-06-01T23:00:00Z"
        assert color_at(client, until, place, *day[0]) == (*COLORS[1], 255)
        assert color_at(client, until, place, *day[2]) == (*COLORS[0], 255)
        first = newest + "?model_version=1"
        assert color_at(client, first, place, *day[2]) == (*COLORS[1], 255), "model 2 has not seen day 2"
        assert color_at(client, until, place, 128, 64 + 34) == (*COLORS[1], 255), "cloud by the newer model only"
        second = newest + "?model_version=2"
        assert color_at(client, second, place, *day[1]) == (*COLORS[1], 255), "model 2 has not seen day 2"


def test_the_mosaic_of_an_area_without_masks_is_transparent(client: TestClient):
    answer = client.get("/mosaic/mask/10/5/5.png")
    assert pixels_of(answer)[..., 3].max() == 0
    assert answer.headers["cache-control"] == "public, max-age=60"
    again = client.get("/mosaic/mask/10/5/5.png", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_the_mosaic_joins_both_sides_of_the_antimeridian(client: TestClient):
    place = "mgrs:60KXF"
    sides = set()
    for col in (20, 40, 200, 240):
        lon, _ = lonlat(place, 5, col)
        sides.add(lon > 0)
        assert color_at(client, "/mosaic/mask/{tile}.png", place, 5, col) == (*COLORS[0], 255)
    assert sides == {True, False}


def test_the_value_at_a_point(client: TestClient):
    mask = item_of(client, PLACE, 0, 1)

    def at(row: int, col: int) -> dict:
        lon, lat = lonlat(PLACE, row, col)
        return client.get(f"/point/{mask}", params={"lon": lon, "lat": lat}).json()

    assert at(*CLOUD) == {"mask_id": mask, "class": "cloud", "probability": 0.9, "threshold": 0.5}
    assert at(*CLEAR)["class"] == "clear"
    assert at(*CLEAR)["probability"] == 0.1
    assert at(*NO_DATA)["class"] is None
    assert client.get(f"/point/{mask}?lon=100&lat=0").json()["class"] is None


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("{mask}/mask/23/0/0.png", 404),
        ("{mask}/mask/5/32/0.png", 404),
        ("{mask}/mask/5/-1/0.png", 404),
        ("{mask}/mask/5/0/0.png", 404),
        ("{mask}/mask/5/x/0.png", 400),
        ("{mask}/mask/5/0/0.gif", 400),
        ("{mask}/mask/5/0/0.png?scale=3", 400),
        ("{mask}/mask/5/0/0.png?style=red", 400),
        ("{mask}/nothing/5/0/0.png", 400),
        ("{scene}/mask/5/0/0.png", 404),
        ("mk-none/mask/5/0/0.png", 404),
        ("http:%2F%2Fexample.org%2Fa.tif/mask/5/0/0.png", 404),
        ("mk-..%2F..%2Fetc/mask/5/0/0.png", 404),
        ("MK-1/mask/5/0/0.png", 400),
    ],
)
def test_other_tiles_are_refused(client: TestClient, path: str, status: int):
    path = path.format(mask=item_of(client, PLACE, 0, 1), scene=item_of(client, PLACE, 0))
    answer = client.get(f"/tiles/{path}")
    assert answer.status_code == status, answer.text
    assert set(answer.json()) <= {"code", "description"}


def test_a_mosaic_of_half_the_world_is_refused(client: TestClient):
    assert client.get("/mosaic/mask/5/0/0.png").status_code == 400
    assert client.get("/mosaic/mask/6/99/0.png").status_code == 404
    assert client.get("/mosaic/mask/8/0/0.png?datetime=soon").status_code == 400


def test_a_lost_raster_is_no_secret_path(client_with, published, monkeypatch: pytest.MonkeyPatch):
    client = client_with()
    mask = item_of(client, PLACE, 0, 1)
    tile, _, _ = grid.pixel_of(*lonlat(PLACE, *CLOUD), ZOOM)
    monkeypatch.setattr(client.app.state.context.store, "root", published / "nowhere")
    answer = client.get(f"/tiles/{mask}/mask/{tile}.png")
    assert answer.status_code == 500, "to a map, 404 is a place without anything to draw"
    assert answer.json()["description"] == "the store lacks this object"
    assert str(published) not in answer.text
    assert "masks/" not in answer.text


@pytest.mark.parametrize("layer", ["mask", "probability", "image"])
def test_a_tile_in_which_the_scene_is_small_is_drawn_at_once(client: TestClient, layer: str):
    """At zoom 8 a pixel is 396 m there, so 12.9 x 12.1 of them; rio-tiler alone needed minutes, and hours at zoom 0."""
    path = f"/tiles/{item_of(client, PLACE, 0, 1)}/{layer}"
    tile, _, _ = grid.pixel_of(*lonlat(PLACE, 128, 136), 8)
    began = time.monotonic()
    assert 130 < int((pixels_of(client.get(f"{path}/{tile}.png"))[..., 3] > 0).sum()) < 180
    assert pixels_of(client.get(f"{path}/0/0/0.png")).shape == (256, 256, 4)
    assert time.monotonic() - began < 20
    assert client.get(f"{path}/3/0/0.png").status_code == 404


def test_a_raster_with_overviews_that_is_small_in_a_tile_is_where_it_belongs(tmp_path: Path):
    """1536 pixels of 20 m, the west half cloud, at zoom 6: a pixel is 1.58 km, so 19.4 a side."""
    store = LocalStore(tmp_path / "store")
    classes = np.zeros((1, 1536, 1536), np.uint8)
    classes[..., :768] = 1
    west, north = 450_000.0, 5_500_000.0
    data = serve_world._cog(
        tmp_path, classes, ("EPSG:32631", Affine(20, 0, west, 0, -20, north)), 255, ["mask"], {0: (0, 0, 0, 255)}
    )
    stored = store.put(keys.scene(keys.sha256_of(data)), data)
    (lon,), (lat,) = transform_points("EPSG:32631", "EPSG:4326", [west + 15_360], [north - 15_360])
    tile, x, y = grid.pixel_of(lon, lat, 6)
    z, column, row = map(int, tile.split("/"))
    picture = render.draw_tile(store, render.Source(stored.key, stored.sha256, "mask"), render.Tile(z, column, row))
    drawn = np.asarray(Image.open(io.BytesIO(picture)).convert("RGBA"))
    assert 330 < int((drawn[..., 3] > 0).sum()) < 420
    assert tuple(drawn[y, x - 5]) == (*COLORS[1], 255)
    assert tuple(drawn[y, x + 5]) == (*COLORS[0], 255)
