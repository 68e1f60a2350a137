"""Files by id and by key: whole, in ranges, named by content; nothing else of the store."""

import hashlib
from pathlib import Path

import pytest
from fastapi.testclient import TestClient


@pytest.fixture
def item(client: TestClient) -> dict:
    return client.get("/stac/collections/masks/items?limit=1").json()["features"][0]


def test_an_asset_has_the_bytes_of_its_checksum(client: TestClient, item: dict):
    for name, asset in item["assets"].items():
        by_id, by_key = client.get(f"/assets/{item['id']}/{name}"), client.get(asset["href"])
        assert by_id.content == by_key.content
        assert asset["file:checksum"] == f"1220{hashlib.sha256(by_id.content).hexdigest()}"
        assert by_id.headers["content-type"] == asset["type"]
        assert by_id.headers["content-disposition"].startswith(f'attachment; filename="{item["id"]}_{name}.')
    weights = client.get("/stac/collections/models/items?limit=1").json()["features"][0]
    assert client.get(f"/assets/{weights['id']}/weights").content.startswith(b"weights ")


def test_ranges_conditions_and_heads(client: TestClient, item: dict):
    path = f"/assets/{item['id']}/mask"
    whole = client.get(path)
    part = client.get(path, headers={"Range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.content == whole.content[100:200]
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole.content)}"
    assert client.get(path, headers={"Range": "bytes=-10"}).content == whole.content[-10:]
    assert client.get(path, headers={"Range": "bytes=99999999-"}).status_code == 416
    assert client.get(path, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    head = client.head(path)
    assert head.headers["content-length"] == str(len(whole.content))
    assert head.content == b""


@pytest.mark.parametrize(
    "path",
    [
        "/assets/mk-none/mask",
        "/assets/{id}/nothing",
        "/assets/{id}/..%2Fmask",
        "/assets/sn-1/manifest",
        "/store/catalog.db",
        "/store/labels/aa/x.tif",
        "/store/runs/x/checkpoints/1.safetensors",
        "/store/masks/../catalog.db",
        "/store/masks/..%2F..%2Fcatalog.db",
        "/store/%2Fetc/passwd",
        "/store//etc/passwd",
        "/store/masks/none.tif",
        "/store/masks/",
        "/store/http://example.org/a.tif",
    ],
)
def test_nothing_else_is_handed_out(client: TestClient, item: dict, path: str):
    answer = client.get(path.format(id=item["id"]))
    assert answer.status_code in (400, 404), answer.text
    assert b"SQLite" not in answer.content


def test_what_is_not_published_has_no_file(store, catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import serve_world
    from sqlalchemy import update

    from cloudseg.catalog import tables
    from cloudseg.runtime import Runtime, read_settings
    from cloudseg.serve.app import create_app

    monkeypatch.setattr(serve_world, "DAYS", 1)
    serve_world.build(store, catalog, tmp_path)
    store.put("labels/ab/secret.tif", b"secret")
    runtime = Runtime(read_settings(), store, catalog, str(tmp_path / "inbox"), tmp_path)
    with TestClient(create_app(runtime), base_url="http://maps.test") as client:
        scene, other = client.get("/stac/collections/scenes/items").json()["features"][:2]
        paths = [f"/assets/{scene['id']}/image", scene["assets"]["image"]["href"]]
        assert [client.get(path).status_code for path in paths] == [200, 200]
        assert client.get("/store/labels/ab/secret.tif").status_code == 404
        with catalog.begin() as db:
            mine = tables.scene.c.scene_id == scene["id"]
            db.execute(update(tables.scene).where(mine).values(publishable=False))
        paths.append(f"/tiles/{scene['id']}/image/tilejson.json")
        paths.append(f"/stac/collections/scenes/items/{scene['id']}")
        assert [client.get(path).status_code for path in paths] == [404] * 4
        assert client.get(other["assets"]["image"]["href"]).status_code == 200


def test_a_html_file_of_the_store_is_not_shown_as_a_page(client_with):
    client = client_with()
    store = client.app.state.context.store
    (store.root / "models").mkdir(exist_ok=True)
    page = store.root / "models" / "card.html"
    page.write_text("<script>alert(1)</script>")
    answer = client.get("/store/models/card.html")
    page.unlink()
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_store_in_a_bucket_serves_ranges(s3_store, catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import serve_world

    from cloudseg.runtime import Runtime, read_settings
    from cloudseg.serve.app import create_app

    serve_world.build(s3_store, catalog, tmp_path)
    runtime = Runtime(read_settings(), s3_store, catalog, str(tmp_path / "inbox"), tmp_path)
    with TestClient(create_app(runtime), base_url="http://maps.test") as client:
        item = client.get("/stac/collections/masks/items?limit=1").json()["features"][0]
        path = item["assets"]["mask"]["href"]
        whole = client.get(path)
        assert item["assets"]["mask"]["file:checksum"] == f"1220{hashlib.sha256(whole.content).hexdigest()}"
        part = client.get(path, headers={"Range": "bytes=100-199"})
        assert (part.status_code, part.content) == (206, whole.content[100:200])
        assert part.headers["content-range"] == f"bytes 100-199/{len(whole.content)}"
        assert client.get(path, headers={"Range": "bytes=-10"}).content == whole.content[-10:]
        assert client.get(path, headers={"Range": "bytes=99999999-"}).status_code == 416
        end = client.get(path, headers={"Range": f"bytes=100-{len(whole.content)}"})
        assert end.headers["content-range"] == f"bytes 100-{len(whole.content) - 1}/{len(whole.content)}"
        for etag, expected in ((whole.headers["etag"], 206), ('"other"', 200)):
            asked = {"Range": "bytes=0-9", "If-Range": etag}
            assert client.get(path, headers=asked).status_code == expected, "another version is sent whole"
        assert client.head(path).headers["content-length"] == str(len(whole.content))
        tiles = client.get(f"/tiles/{item['id']}/mask/tilejson.json").json()
        assert tiles["maxzoom"] >= 10
        assert client.get("/mosaic/mask/10/518/350.png").status_code == 200
