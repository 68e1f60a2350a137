"""Features: footprints and cloud polygons as GeoJSON pages."""

import numpy as np
import pytest
import serve_world
from fastapi.testclient import TestClient
from rasterio.features import geometry_mask
from rasterio.transform import Affine
from rasterio.warp import transform_geom
from shapely.geometry import shape

PIXEL_M2 = serve_world.RESOLUTION**2


def test_footprints_are_pages(client: TestClient):
    seen, address = [], "/features/footprints?limit=4"
    while address:
        answer = client.get(address)
        assert answer.headers["content-type"] == "application/geo+json"
        page = answer.json()
        assert page["type"] == "FeatureCollection"
        assert len(page["features"]) <= 4
        seen += page["features"]
        address = next((link["href"] for link in page["links"] if link["rel"] == "next"), None)
    assert len({feature["id"] for feature in seen}) == len(seen) == 6, "masks that readers see"
    assert all(shape(feature["geometry"]).is_valid for feature in seen)
    assert seen[0]["properties"]["datetime"] == "2024-06-02T12:00:00Z"
    scenes = client.get("/features/footprints?collection=scenes&bbox=2,49,3,50").json()["features"]
    assert len(scenes) == 6
    two = client.get("/features/footprints?model_version=2&datetime=../2024-06-01T23:00:00Z").json()["features"]
    assert len(two) == 3


def test_cloud_polygons_cover_the_clouds_of_the_mask(client: TestClient):
    (footprint,) = client.get(
        "/features/footprints?model_version=1&bbox=2.3,49,2.4,50&datetime=../2024-06-01T23:00:00Z"
    ).json()["features"]
    answer = client.get(f"/features/{footprint['id']}/clouds")
    features = answer.json()["features"]
    crs, west, north = serve_world.PLACES["mgrs:31UDQ"]
    expected = serve_world.cloud_of(0, 0, 1)
    expected[:, :16] = False
    back = [transform_geom("EPSG:4326", crs, feature["geometry"]) for feature in features]
    grid = Affine(serve_world.RESOLUTION, 0, west, 0, -serve_world.RESOLUTION, north)
    found = geometry_mask(back, expected.shape, grid, invert=True)
    assert np.array_equal(found, expected)
    assert sum(feature["properties"]["area_m2"] for feature in features) == expected.sum() * PIXEL_M2
    again = client.get(f"/features/{footprint['id']}/clouds", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    large = client.get(f"/features/{footprint['id']}/clouds?min_area_m2={(expected.sum() + 1) * PIXEL_M2 * 2}")
    assert large.json()["features"] == []


def test_a_lineage_has_no_addresses(client: TestClient):
    mask = client.get("/features/footprints?limit=1").json()["features"][0]["id"]
    answer = client.get(f"/lineage/{mask}")
    found = answer.json()
    assert found["mask"]["mask_id"] == mask
    assert found["weights"]["version"] == 2, "readers see model 2"
    assert found["scene"]["name"].startswith("scene_")
    assert found["labels"] == []
    assert "file:" not in answer.text
    assert "uri" not in answer.text
    assert client.get("/lineage/mk-none").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "footprints?limit=0",
        "footprints?limit=501",
        "footprints?bbox=1,2",
        "footprints?collection=labels",
        "footprints?token=x",
        "mk-none/clouds",
        "sc-1/clouds",
        "mk-none/clouds?limit=100000",
    ],
)
def test_other_questions_are_refused(client: TestClient, path: str):
    answer = client.get(f"/features/{path}")
    assert answer.status_code in (400, 404)
    assert set(answer.json()) == {"code", "description"}
