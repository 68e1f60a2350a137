"""Clients of the STAC API: the forms in which they ask, on SQLite and PostGIS, and what is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import odc.stac
import pystac.validation
import pystac_client
import pytest
import serve_world
from fastapi.testclient import TestClient

from tests.stac_schemas import validate_extensions

OF_ALL_MODELS = {"op": ">=", "args": [{"property": "cloudseg:model_version"}, 1]}
MASKS = {"collections": ["masks"], "limit": 100, "filter": OF_ALL_MODELS}
ALL_AS_TEXT = {"filter": '"cloudseg:model_version" >= 1', "filter-lang": "cql2-text"}
SQUARE = {"type": "Polygon", "coordinates": [[[2.2, 49.5], [2.4, 49.5], [2.4, 49.8], [2.2, 49.8], [2.2, 49.5]]]}
NEAR_FIJI = {
    "op": "s_intersects",
    "args": [{"property": "geometry"}, {"bbox": [178, -19, -178, -17]}],
}


def ids(answer) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [feature["id"] for feature in answer.json()["features"]]


def post(client: TestClient, **asked) -> list[str]:
    return ids(client.post("/stac/search", json={"limit": 100, **asked}))


SAME: dict[str, dict] = {
    "everything": {},
    "bbox": {"bbox": [2.0, 49.0, 2.4, 50.0]},
    "bbox with heights": {"bbox": [2.0, 49.0, -100, 2.4, 50.0, 9000]},
    "bbox across 180": {"bbox": [178, -19, -178, -17]},
    "intersects": {"intersects": SQUARE},
    "open begin": {"datetime": "../2024-06-02T12:00:00Z"},
    "open end": {"datetime": "2024-06-02T12:00:00Z/.."},
    "empty begin": {"datetime": "/2024-06-02T12:00:00Z"},
    "geometry of a filter": {"filter": NEAR_FIJI},
    "not there": {"filter": {"op": "not", "args": [NEAR_FIJI]}},
    "like": {"filter": "\"cloudseg:place\" LIKE 'mgrs:31_%'", "filter-lang": "cql2-text"},
    "like minds case": {"filter": "\"cloudseg:place\" LIKE 'MGRS%'", "filter-lang": "cql2-text"},
    "between": {"filter": "eo:cloud_cover BETWEEN 5 AND 9", "filter-lang": "cql2-text"},
    "time": {"filter": "T_AFTER(datetime, TIMESTAMP('2024-06-02T00:00:00Z'))", "filter-lang": "cql2-text"},
    "during": {
        "filter": "T_DURING(datetime, INTERVAL('2024-06-02T00:00:00Z', '2024-06-03T00:00:00Z'))",
        "filter-lang": "cql2-text",
    },
    "nested": {
        "filter": '(eo:cloud_cover < 4 OR NOT ("cloudseg:model_version" = 1 AND created IS NOT NULL)) AND '
        "S_INTERSECTS(geometry, POLYGON((2 49, 3 49, 3 50, 2 50, 2 49)))",
        "filter-lang": "cql2-text",
    },
    "query": {"query": {"eo:cloud_cover": {"gte": 6, "lt": 9}, "cloudseg:place": {"startsWith": "mgrs:31"}}},
    "sorted": {"sortby": [{"field": "eo:cloud_cover", "direction": "desc"}, {"field": "id", "direction": "asc"}]},
    "nothing": {"bbox": [10, 10, 11, 11]},
    "models": {"collections": ["models"]},
    "every collection": {"collections": ["snapshots", "models", "masks", "scenes"]},
    "no collection": {"collections": ["nothing"]},
}


@pytest.mark.parametrize("name", SAME)
def test_sqlite_and_postgis_answer_the_same(client: TestClient, client_on_postgis: TestClient, name: str):
    answers = [one.post("/stac/search", json={"limit": 100, **SAME[name]}) for one in (client, client_on_postgis)]
    assert answers[0].status_code == 200, answers[0].text
    assert answers[0].json() == answers[1].json()
    found = len(answers[0].json()["features"])
    few = name in ("nothing", "no collection", "like minds case")
    assert (found == 0) == few, found
    if name not in ("everything", "sorted", "every collection"):
        assert found < len(ids(client.get("/stac/search?limit=100")))


def test_documents_are_the_same_on_postgis(client: TestClient, client_on_postgis: TestClient):
    for path in ("", "collections", "conformance", "queryables", "collections/masks/items?limit=3", "api"):
        assert client.get(f"/stac/{path}").json() == client_on_postgis.get(f"/stac/{path}").json(), path


def test_models_and_snapshots_come_after_scenes_and_masks_on_every_page(client: TestClient):
    everything = post(client)
    assert [item_id.partition("-")[0] for item_id in everything[-2:]] == ["w", "w"]
    count = len(everything)
    assert len(set(everything)) == count > 12
    for size in (1, 5, count - 2, count - 1, count):
        seen, answer = [], client.get(f"/stac/search?limit={size}")
        while True:
            page = ids(answer)
            assert 0 < len(page) <= size
            seen += page
            following = [link["href"] for link in answer.json()["links"] if link["rel"] == "next"]
            if not following:
                break
            answer = client.get(following[0])
        assert seen == everything, size


def test_models_are_filtered_sorted_and_found_by_id(client: TestClient):
    newest, oldest = post(client, collections=["models"])
    assert post(client, collections=["models"], sortby=[{"field": "created", "direction": "asc"}]) == [oldest, newest]
    assert post(client, ids=[oldest]) == [oldest]
    created = {"op": ">", "args": [{"property": "created"}, {"timestamp": "2024-06-03T00:00:00Z"}]}
    assert post(client, collections=["models"], filter=created) == [newest]
    assert post(client, collections=["models"], filter={"op": "not", "args": [NEAR_FIJI]}) == []  # no place: unknown
    assert client.get("/stac/search?collections=models&sortby=source_uri").status_code == 400
    assert client.get("/stac/search?collections=models&filter=source_uri%3D1").status_code == 400


@pytest.mark.parametrize(
    ("fields", "present", "absent"),
    [
        ("id", {"id", "type", "collection"}, {"properties", "geometry", "links"}),
        ("+geometry,-geometry", {"geometry", "id"}, {"properties"}),
        ("-geometry", {"id", "assets", "properties", "links", "bbox"}, {"geometry"}),
        ("properties.eo:cloud_cover", {"properties", "id"}, {"assets", "geometry"}),
        ("-properties,+properties.datetime,-type", {"properties", "id"}, {"type", "assets"}),
        ("", {"id", "assets", "properties", "geometry"}, set()),
        ("nothing.at.all", {"id"}, {"nothing", "assets"}),
    ],
)
def test_fields(client: TestClient, fields: str, present: set[str], absent: set[str]):
    by_get = client.get("/stac/search", params={"fields": fields, "collections": "masks", "limit": 3}).json()
    names = [name for name in fields.split(",") if name]
    asked = {
        "include": [name.lstrip("+") for name in names if not name.startswith("-")],
        "exclude": [name[1:] for name in names if name.startswith("-")],
    }
    by_post = client.post("/stac/search", json={"collections": ["masks"], "limit": 3, "fields": asked}).json()
    of_collection = client.get("/stac/collections/masks/items", params={"fields": fields, "limit": 3}).json()
    assert by_get["features"] == by_post["features"] == of_collection["features"]
    for item in by_get["features"]:
        assert present <= item.keys()
        assert not absent & item.keys()
    if "properties." in fields:
        assert len(by_get["features"][0]["properties"]) == 1
    whole = client.get("/stac/search", params={"collections": "masks", "limit": 3}).json()["features"]
    assert "geometry" in whole[0]


def test_the_query_extension_in_every_operator(client: TestClient):
    masks = client.post("/stac/search", json=MASKS).json()["features"]
    middle = sorted(item["properties"]["eo:cloud_cover"] for item in masks)[7]
    scene_id = masks[0]["properties"]["cloudseg:scene_id"]
    cases: dict[str, tuple[str, object, Callable]] = {
        "eq": ("eo:cloud_cover", middle, lambda value: value == middle),
        "neq": ("eo:cloud_cover", middle, lambda value: value != middle),
        "lt": ("eo:cloud_cover", middle, lambda value: value < middle),
        "lte": ("eo:cloud_cover", middle, lambda value: value <= middle),
        "gt": ("eo:cloud_cover", middle, lambda value: value > middle),
        "gte": ("eo:cloud_cover", middle, lambda value: value >= middle),
        "startsWith": ("cloudseg:place", "mgrs:31U", lambda value: value.startswith("mgrs:31U")),
        "endsWith": ("cloudseg:place", "XF", lambda value: value.endswith("XF")),
        "contains": ("cloudseg:place", "31UD", lambda value: "31UD" in value),
        "in": ("cloudseg:scene_id", [scene_id, "sc-x"], lambda value: value == scene_id),
    }
    for op, (name, value, keep) in cases.items():
        expected = [item["id"] for item in masks if keep(item["properties"][name])]
        assert 0 < len(expected) < 15, op
        query = {name: {op: value}}
        assert post(client, **MASKS, query=query) == expected, op
        asked = {"query": json.dumps(query), "collections": "masks", "limit": 100, **ALL_AS_TEXT}
        assert ids(client.get("/stac/search", params=asked)) == expected, op
    assert post(client, query={"cloudseg:place": {"contains": "%"}}) == []
    assert post(client, query={"cloudseg:place": {"contains": "_"}}) == []


REFUSED = {
    "a bad sort direction": {"sortby": [{"field": "id", "direction": "down"}]},
    "an order by geometry": {"sortby": [{"field": "geometry", "direction": "asc"}]},
    "no fields": {"fields": None},
    "too many fields": {"fields": {"include": [f"f{i}" for i in range(200)]}},
    "fields of another kind": {"fields": {"only": ["id"]}},
    "an unknown operator of a query": {"query": {"eo:cloud_cover": {"near": 1}}},
    "a text for a number": {"query": {"eo:cloud_cover": {"lt": "low"}}},
    "a query of an unknown field": {"query": {"source_uri": {"eq": "x"}}},
    "a filter of an unknown field": {"filter": {"op": "=", "args": [{"property": "source_uri"}, "x"]}},
    "a filter in another language": {"filter": "<Filter/>", "filter-lang": "cql2-text"},
    "NUL": {"filter": {"op": "=", "args": [{"property": "id"}, "a\0b"]}},
    "two areas": {"bbox": [0, 0, 1, 1], "intersects": SQUARE},
    "a bbox of five": {"bbox": [0, 0, 1, 1, 1]},
    "limit 0": {"limit": 0},
    "a negative limit": {"limit": -1},
    "a token": {"token": "nonsense"},
    "a token of the few": {"token": "few-x"},
    "a date without a time": {"datetime": "2024-06-01"},
    "two open ends": {"datetime": "../.."},
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_searches_say_what_is_wrong(client: TestClient, name: str):
    answer = client.post("/stac/search", json=REFUSED[name])
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"code", "description"}
    assert len(answer.json()["description"]) > 10


@pytest.mark.parametrize(
    "body", [b"[" * 200_000, b'{"filter":' + b'{"op":"not","args":[' * 40_000, b"\xff\xfe", b"nonsense"]
)
def test_hostile_bodies_are_refused(client: TestClient, body: bytes):
    answer = client.post("/stac/search", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 413), answer.text


def test_hostile_ids_find_nothing(client: TestClient, client_on_postgis: TestClient):
    for one in (client, client_on_postgis):
        assert one.post("/stac/search", json={"ids": ["a\0b", "x' OR 1=1"]}).status_code in (200, 400)
        assert one.get("/stac/collections/masks/items/a%00b").status_code == 404
        assert one.get("/stac/search", params={"ids": "mk-\ud7ff"}).status_code == 200


def test_a_large_limit_is_cut(client: TestClient):
    assert ids(client.get("/stac/search?limit=10001")) == post(client)
    assert client.get("/stac/search?limit=1e9").status_code == 400


def test_media_types_and_documents(client: TestClient):
    types = {
        "": "application/json",
        "conformance": "application/json",
        "collections": "application/json",
        "collections/masks": "application/json",
        "queryables": "application/schema+json",
        "collections/masks/queryables": "application/schema+json",
        "collections/masks/items": "application/geo+json",
        "search": "application/geo+json",
        "api": "application/vnd.oai.openapi+json;version=3.0",
        "api.html": "text/html; charset=utf-8",
    }
    for path, media_type in types.items():
        assert client.get(f"/stac/{path}").headers["content-type"] == media_type, path
    item = client.get("/stac/collections/masks/items?limit=1").json()["features"][0]
    own = next(link["href"] for link in item["links"] if link["rel"] == "self")
    assert client.get(own).headers["content-type"] == "application/geo+json"
    page = client.get("/stac/api.html").text
    assert "/stac/search" in page
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", page)  # nothing from another host


def test_items_that_are_served_follow_the_schemas_that_they_name(client: TestClient, shared_data: Path):
    used: dict[str, set[str]] = {}
    for item in client.get("/stac/search?limit=100").json()["features"]:
        # The core schema, which pystac brings along. As a dict: an object of pystac would ask the host for its root.
        pystac.validation.validate_dict({**item, "stac_extensions": []})
        for asset in item["assets"].values():
            asset.pop("eo:bands", None)  # EO 2.0, whose schema is at hand, does away with it
        found = validate_extensions(item, shared_data / "stac_schemas", classification="2.0.0", eo="1.1.0")
        used.setdefault(item["collection"], set()).update(found)
    assert {"mlm", "file", "version", "classification"} <= used["models"]
    assert {"projection", "raster", "eo", "file"} <= used["masks"] & used["scenes"]


def test_documents_are_fetched_once_and_then_confirmed(client: TestClient):
    for path in ("", "collections/masks", "collections/masks/items?limit=2", "search?limit=2", "queryables"):
        first = client.get(f"/stac/{path}")
        tag = first.headers["etag"]
        again = client.get(f"/stac/{path}", headers={"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content) == (304, b""), path
        assert again.headers["etag"] == tag
        assert client.get(f"/stac/{path}", headers={"If-None-Match": '"other"'}).content == first.content
        head = client.head(f"/stac/{path}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(first.content))
        assert head.headers["etag"] == tag
    assert client.get("/stac/search?limit=1").headers["etag"] != client.get("/stac/search?limit=2").headers["etag"]
    assert client.head("/stac/collections/nothing").status_code == 404
    assert "etag" not in client.get("/stac/collections/nothing").headers


def test_stac_browser_asks_from_another_origin(client_with):
    client = client_with(serve_cors_origins="https://radiantearth.github.io", serve_api_keys="k" * 20)
    asks = {
        "Origin": "https://radiantearth.github.io",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-api-key",
    }
    answer = client.options("/stac/search", headers=asks)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://radiantearth.github.io"
    assert "POST" in answer.headers["access-control-allow-methods"]
    refused = client.options("/stac/search", headers={**asks, "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in refused.headers
    found = client.get("/stac/", headers={"Origin": asks["Origin"], "X-API-Key": "k" * 20})
    assert found.headers["access-control-allow-origin"] == asks["Origin"]
    assert "etag" in found.headers["access-control-expose-headers"].lower()


def test_as_a_plugin_of_qgis_asks(client: TestClient):
    """QGIS STAC API Browser: POST with box, time, filter and order; pages by the link of the answer."""
    asked = {
        "collections": ["masks"],
        "bbox": [1.9, 49.4, 2.7, 49.9],
        "datetime": "2024-06-01T00:00:00Z/2024-06-30T00:00:00Z",
        "filter": {"op": "and", "args": [{"op": "<=", "args": [{"property": "eo:cloud_cover"}, 50]}, OF_ALL_MODELS]},
        "filter-lang": "cql2-json",
        "sortby": [{"field": "properties.datetime", "direction": "desc"}],
        "limit": 2,
    }
    seen = []
    link: dict | None = {"href": "/stac/search", "method": "POST", "body": asked}
    while link:
        answer = client.post(link["href"], json=link["body"])
        seen += [feature["properties"]["datetime"] for feature in answer.json()["features"]]
        link = next((found for found in answer.json()["links"] if found["rel"] == "next"), None)
    assert len(seen) == 10
    assert seen == sorted(seen, reverse=True)


@pytest.mark.filterwarnings("ignore:The item .* is deprecated")
def test_pystac_client_pages_sorts_and_chooses_fields(server: str):
    catalog = pystac_client.Client.open(f"{server}/stac/")
    for class_ in ("ITEM_SEARCH", "FILTER", "SORT", "FIELDS", "QUERY", "FEATURES", "COLLECTIONS"):
        assert catalog.conforms_to(class_), class_
    masks = {"collections": ["masks"], "filter": OF_ALL_MODELS}
    search = catalog.search(**masks, limit=4, sortby=[{"field": "eo:cloud_cover", "direction": "asc"}])
    pages = list(search.pages())
    assert [len(page) for page in pages] == [4, 4, 4, 3]
    covers = [item.properties["eo:cloud_cover"] for page in pages for item in page]
    assert covers == sorted(covers)
    assert len({item.id for page in pages for item in page}) == 15
    small = catalog.search(**masks, fields=["id", "properties.eo:cloud_cover", "-type"], limit=100)
    for item in small.items_as_dicts():
        assert set(item) == {"id", "collection", "properties"}
    by_query = catalog.search(query=["eo:cloud_cover<5"], **masks, limit=100)
    text = 'eo:cloud_cover < 5 AND "cloudseg:model_version" >= 1'
    by_filter = catalog.search(filter=text, collections=["masks"], limit=100, method="GET", filter_lang="cql2-text")
    assert 0 < len(found := [item.id for item in by_query.items()]) < 15
    assert [item.id for item in by_filter.items()] == found
    dates = catalog.search(**masks, datetime="2024-06-02", limit=100)  # the client sends the whole day
    assert len(list(dates.items())) == 6
    assert len(list(catalog.get_collection("masks").get_items())) > 5
    collected = catalog.search(limit=5, max_items=12).item_collection()
    assert len(collected) == 12
    assert isinstance(collected[0], pystac.Item)


@pytest.mark.filterwarnings("ignore:The item .* is deprecated")
def test_odc_stac_loads_what_a_search_finds(server: str):
    catalog = pystac_client.Client.open(f"{server}/stac/")
    asked = {"collections": ["masks"], "bbox": [2.3, 49.6, 2.34, 49.64], "query": {"cloudseg:model_version": {"eq": 1}}}
    cube = odc.stac.load(catalog.search(**asked).items(), ["mask"], chunks=None, bbox=asked["bbox"])
    assert cube.sizes["time"] == serve_world.DAYS
    assert {0, 1} <= set(map(int, set(cube["mask"].values.ravel())))
