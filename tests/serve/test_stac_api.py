"""The STAC API: documents, searches in every form, and pystac-client against a real server."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pystac
import pystac_client
import pytest
import rasterio
import serve_world
from fastapi.testclient import TestClient
from sqlalchemy import Connection

from cloudseg.catalog import stac_rows
from cloudseg.serve.stac_api import CatalogClient

FAR_EAST = [178, -19, -178, -17]


def ids(answer) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [feature["id"] for feature in answer.json()["features"]]


def test_the_landing_page_names_everything(client: TestClient):
    page = client.get("/stac/").json()
    assert page["type"] == "Catalog"
    links = {link["rel"]: link["href"] for link in page["links"]}
    assert links["root"] == links["self"] == "http://maps.test/stac/"
    assert sum(link["rel"] == "child" for link in page["links"]) == 4
    for rel in (
        "conformance",
        "data",
        "service-desc",
        "service-doc",
        "http://www.opengis.net/def/rel/ogc/1.0/queryables",
    ):
        assert client.get(links[rel]).status_code == 200, rel
    assert client.get(links["service-desc"]).headers["content-type"] == "application/vnd.oai.openapi+json;version=3.0"
    conformance = client.get("/stac/conformance").json()["conformsTo"]
    assert conformance == page["conformsTo"]
    assert "https://api.stacspec.org/v1.0.0/item-search" in conformance
    assert not [name for name in conformance if "transaction" in name]


def test_collections_and_items_name_each_other_and_their_files(client: TestClient):
    collections = {found["id"]: found for found in client.get("/stac/collections").json()["collections"]}
    assert set(collections) == {"scenes", "masks", "models", "snapshots"}
    for name, collection in collections.items():
        pystac.Collection.from_dict(collection)
        assert not [link for link in collection["links"] if link["rel"] in ("child", "item")]
        items = client.get(f"/stac/collections/{name}/items?limit=100")
        assert len(ids(items)) == {"scenes": 9, "masks": 6, "models": 2, "snapshots": 0}[name]
        for item in items.json()["features"]:
            assert client.get(f"/stac/collections/{name}/items/{item['id']}").json() == item
            links = {link["rel"]: link["href"] for link in item["links"]}
            assert links["self"] == f"http://maps.test/stac/collections/{name}/items/{item['id']}"
            for rel in ("self", "root", "parent", "collection", "derived_from", "tilejson"):
                if rel in links:
                    assert client.get(links[rel]).status_code == 200, links[rel]
            for asset in item["assets"].values():
                assert asset["href"].startswith("http://maps.test/store/")
                assert client.get(asset["href"], headers={"Range": "bytes=0-3"}).status_code == 206


def test_items_of_the_public_address_where_it_is_set(client_with):
    client = client_with(public_url="https://cdn.example.org/clouds/")
    item = client.get("/stac/collections/masks/items?limit=1").json()["features"][0]
    assert item["assets"]["mask"]["href"].startswith("https://cdn.example.org/clouds/masks/")
    assert {link["rel"]: link["href"] for link in item["links"]}["self"].startswith("http://maps.test/stac/")


SEARCHES = {
    "bbox": ({"bbox": [2.0, 49.0, 3.0, 50.0], "collections": ["masks"]}, 4),
    "bbox across 180": ({"bbox": FAR_EAST, "collections": ["scenes"]}, 3),
    "bbox west of 180": ({"bbox": [179.5, -19, 180, -17], "collections": ["scenes"]}, 3),
    "bbox elsewhere": ({"bbox": [10, 10, 11, 11]}, 0),
    "time": ({"datetime": "2024-06-02T00:00:00Z/..", "collections": ["scenes"]}, 6),
    "one moment": ({"datetime": "2024-06-02T12:00:00Z", "collections": ["scenes"]}, 3),
    "cover": ({"filter": {"op": "<", "args": [{"property": "eo:cloud_cover"}, 8]}, "collections": ["masks"]}, None),
    "version": ({"filter": {"op": "=", "args": [{"property": "cloudseg:model_version"}, 2]}}, 6),
    "unknown collection": ({"collections": ["nothing"]}, 0),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_get_and_post_give_the_same(client: TestClient, name: str):
    asked, count = SEARCHES[name]
    by_post = ids(client.post("/stac/search", json={**asked, "limit": 100}))
    parameters = {key: ",".join(map(str, value)) if isinstance(value, list) else value for key, value in asked.items()}
    if "filter" in asked:
        parameters |= {"filter": json.dumps(asked["filter"]), "filter-lang": "cql2-json"}
    assert ids(client.get("/stac/search", params={**parameters, "limit": 100})) == by_post
    assert len(by_post) == count if count is not None else 0 < len(by_post) < 15


def test_a_filter_as_text_and_sort_orders(client: TestClient):
    text = "eo:cloud_cover < 8 AND \"cloudseg:model_version\" = 1 AND datetime > TIMESTAMP('2024-06-01T13:00:00Z')"
    found = client.get("/stac/search", params={"filter": text, "sortby": "-eo:cloud_cover", "limit": 100})
    covers = [feature["properties"]["eo:cloud_cover"] for feature in found.json()["features"]]
    assert covers == sorted(covers, reverse=True)
    assert covers
    assert all(cover < 8 for cover in covers)
    by_post = client.post(
        "/stac/search",
        json={
            "filter": text,
            "filter-lang": "cql2-text",
            "limit": 100,
            "sortby": [{"field": "properties.eo:cloud_cover", "direction": "desc"}],
        },
    )
    assert ids(by_post) == ids(found)


def test_a_geometry(client: TestClient):
    x, y = 2.0, 49.65
    triangle = {"type": "Polygon", "coordinates": [[[x, y - 1], [x + 1, y], [x, y + 1], [x, y - 1]]]}
    by_post = ids(client.post("/stac/search", json={"intersects": triangle, "limit": 100}))
    assert ids(client.get("/stac/search", params={"intersects": json.dumps(triangle), "limit": 100})) == by_post
    assert len(by_post) == 10


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_by_token(client: TestClient, method: str):
    everything = ids(client.get("/stac/search?limit=100"))
    assert len(everything) == 15, "masks that readers see: model 2 has not seen the last day"
    seen, link = [], {"href": "http://maps.test/stac/search?limit=5", "method": "GET"}
    if method == "POST":
        link = {"href": "http://maps.test/stac/search", "method": "POST", "body": {"limit": 5}}
    while link:
        assert link["method"] == method
        answer = client.request(method, link["href"], json=link.get("body"))
        seen += ids(answer)
        link = next((found for found in answer.json()["links"] if found["rel"] == "next"), None)
    assert seen == everything


REFUSED = [
    "bbox=1,2,3",
    "bbox=0,0,200,1",
    "bbox=a,b,c,d",
    "datetime=yesterday",
    "datetime=2024-06-02T00:00:00Z/2024-06-01T00:00:00Z",
    "limit=0",
    "limit=-1",
    "token=nonsense",
    "filter=eo:cloud_cover%20<",
    "filter=source_uri%3D'x'",
    "filter=" + "(" * 40,
    "sortby=source_uri",
    "intersects={}",
    "intersects=%5B" + "%5B" * 2000,
    'intersects={"type":"Point","coordinates":[500,0]}',
    'bbox=0,0,1,1&intersects={"type":"Point","coordinates":[0,0]}',
    "collections=models,masks",
]


@pytest.mark.parametrize("query", REFUSED)
def test_wrong_searches_are_refused_with_a_reason(client: TestClient, query: str):
    answer = client.get(f"/stac/search?{query}")
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"code", "description"}


def test_unknown_ids(client: TestClient):
    for path in ("masks/items/mk-none", "nothing/items/x", "nothing", "nothing/items", "models/items/w-1"):
        answer = client.get(f"/stac/collections/{path}")
        assert answer.status_code == 404, path
        assert set(answer.json()) == {"code", "description"}
    assert client.put("/stac/search", json={}).status_code == 405
    assert client.delete("/stac/collections/masks").status_code == 405


def test_queryables_are_what_a_filter_may_name(client: TestClient):
    schema = client.get("/stac/collections/masks/queryables").json()
    assert schema["$id"] == "http://maps.test/stac/collections/masks/queryables"
    values = {"string": "'x'", "number": "1", "integer": "1"}
    for name, found in schema["properties"].items():
        value = "TIMESTAMP('2024-01-01T00:00:00Z')" if found.get("format") else values[found["type"]]
        answer = client.get("/stac/search", params={"filter": f'"{name}" = {value}'})
        assert answer.status_code == 200, (name, answer.text)
        assert client.get("/stac/search", params={"sortby": name}).status_code == 200, name


@pytest.mark.filterwarnings("ignore:The item .* is deprecated")
def test_pystac_client_against_a_real_server(server: str):
    catalog = pystac_client.Client.open(f"{server}/stac/")
    assert {found.id for found in catalog.get_collections()} == {"scenes", "masks", "models", "snapshots"}
    assert {child.id for child in catalog.get_children()} == {"scenes", "masks", "models", "snapshots"}
    search = catalog.search(
        collections=["masks"],
        bbox=[2, 49, 3, 50],
        datetime="2024-06-01/2024-06-02",
        filter={"op": "=", "args": [{"property": "cloudseg:model_version"}, 2]},
        sortby=["-eo:cloud_cover"],
        limit=1,
    )
    found = list(search.items())
    assert len(found) == 4
    assert len({item.id for item in found}) == 4
    by_get = catalog.search(method="GET", filter='"cloudseg:model_version" = 2', limit=2, collections=["masks"])
    assert len(list(by_get.items())) == 6
    assert len(list(catalog.get_collection("models").get_items())) == 2
    item = found[0]
    assert item.get_parent().id == "masks"
    with rasterio.open(f"/vsicurl/{item.assets['mask'].href}") as mask:  # another process than the server's
        assert set(map(int, set(mask.read(1).ravel()))) == {0, 1, 255}
    assert item.assets["mask"].extra_fields["file:size"] == len(_bytes(item.assets["mask"].href))


def _bytes(address: str) -> bytes:
    import urllib.request

    with urllib.request.urlopen(address) as answer:
        return answer.read()


def test_every_search_of_the_catalog_is_read_only(client: TestClient, published: Path):
    before = (published / "catalog.db").read_bytes()
    catalog = client.app.state.context.catalog
    with pytest.raises(Exception, match=r"readonly|read-only"), catalog.begin() as db:
        db.exec_driver_sql("DELETE FROM mask")
    assert (published / "catalog.db").read_bytes() == before
    assert serve_world.DAYS == 3


def test_while_one_request_reads_a_summary_the_others_get_the_one_before(client: TestClient, monkeypatch):
    now, started, go, read = [0.0], threading.Event(), threading.Event(), []
    api = CatalogClient(context=client.app.state.context, clock=lambda: now[0])
    first = api._summary("masks")

    def slow(_: Connection, name: str) -> stac_rows.Overview:
        read.append(name)
        started.set()
        assert go.wait(20)
        return replace(first, count=99)

    monkeypatch.setattr(stac_rows, "overview", slow)
    assert api._summary("masks") is first
    now[0] = 61
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(api._summary, "masks")
        assert started.wait(20)
        assert api._summary("masks") is first
        go.set()
        assert reading.result(20).count == 99
    assert api._summary("masks").count == 99
    assert read == ["masks"]
