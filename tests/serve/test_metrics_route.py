"""/metrics: not there by default, a key of its own, the figures of the service and nothing about who asks."""

import urllib.request

import pytest
from conftest import running_server
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from cloudseg.errors import SettingsError

KEY, READER = "m" * 20, "r" * 20


def test_there_is_no_such_route_without_a_key(client: TestClient):
    assert client.get("/metrics").status_code == 404


@pytest.mark.parametrize("reader_keys", [None, READER])
def test_only_the_metrics_key_opens_it(client_with, reader_keys: str | None):
    settings = {"serve_api_keys": reader_keys} if reader_keys else {}
    client = client_with(serve_metrics_key=KEY, **settings)
    for headers in ({}, {"Authorization": f"Bearer {READER}"}, {"X-API-Key": KEY}, {"Authorization": f"Basic {KEY}"}):
        answer = client.get("/metrics", headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert client.get(f"/metrics?api_key={KEY}").status_code == 401, "a key in an address ends in logs"
    answer = client.get("/metrics", headers={"Authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    samples = {s.name: s.value for family in text_string_to_metric_families(answer.text) for s in family.samples}
    assert samples["cloudseg_masks"] == 15
    assert "cloudseg_catalog_bytes" in samples, "the file of a catalog that is opened read-only is found"


def test_the_metrics_key_opens_nothing_else(client_with):
    client = client_with(serve_metrics_key=KEY, serve_api_keys=READER)
    assert client.get("/stac/", headers={"Authorization": f"Bearer {KEY}"}).status_code == 401


def test_a_short_key_is_refused_by_name(client_with):
    with pytest.raises(SettingsError, match="CLOUDSEG_SERVE_METRICS_KEY"):
        client_with(serve_metrics_key="short")


def test_a_real_server_answers_a_scrape(published):
    with running_server(published, serve_metrics_key=KEY) as address:
        request = urllib.request.Request(f"{address}/metrics", headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert b"\ncloudseg_masks 15.0\n" in answer.read()
