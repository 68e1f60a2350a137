"""What a client can send to the STAC API: a reason and 400, never 500."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

HUGE = 10**400
"""An integer that JSON has and no float can hold."""
SQUARE = [[0, 0], [1, 0], [1, 1], [0, 0]]
BODIES: list[Any] = [
    {"intersects": {"type": "Point", "coordinates": [HUGE, 1]}},
    {"intersects": {"type": "Polygon", "coordinates": [SQUARE] * 3_000}},
    {"bbox": [HUGE, 0, 1, 1]},
    {"ids": ["a"] * 501},
    {"filter": {"op": "=", "args": [{"property": "id"}, HUGE]}, "filter-lang": "cql2-json"},
    {"filter": {"op": "<", "args": [{"property": "eo:cloud_cover"}, HUGE]}, "filter-lang": "cql2-json"},
    {"filter": {"op": "in", "args": [{"property": "id"}, ["a"] * 10_000]}, "filter-lang": "cql2-json"},
    {"datetime": 5},
    {"limit": "many"},
    {"token": 5},
    {"sortby": [5]},
    [],
    "text",
    None,
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: json.dumps(body)[:40])
def test_bodies_that_are_no_search(client: TestClient, body: Any):
    answer = client.post("/stac/search", json=body)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"code", "description"}


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"limit": 1}'])
def test_a_body_without_its_type(client: TestClient, content: bytes):
    """`curl --data` sends another type, and a client that meant JSON must read that."""
    answer = client.post("/stac/search", content=content, headers={"content-type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 400
    assert "application/json" in answer.json()["description"]
    assert client.post("/stac/search", content=b"[" * 100_000, headers={"content-type": "application/json"}).is_error


@pytest.mark.parametrize("text", ["\0", "\ud800"])
def test_texts_that_no_database_holds(client: TestClient, text: str):
    for body in ({"ids": [text]}, {"collections": [text]}):
        answer = client.post("/stac/search", content=json.dumps(body), headers={"content-type": "application/json"})
        assert answer.status_code in (200, 400), answer.text
        if answer.status_code == 200:
            assert answer.json()["features"] == []
    where = {"op": "=", "args": [{"property": "id"}, text]}
    refused = json.dumps({"filter": where, "filter-lang": "cql2-json"})
    answer = client.post("/stac/search", content=refused, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert client.get("/stac/collections/masks/items/%00").status_code == 404
