"""Which items a search wants, and the options of the command that make one."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cloudseg.cli import root
from cloudseg.errors import InputError
from cloudseg.ingest.stac_source.search import make_search


def item(moment: str | None = "2024-06-15T10:00:00Z", cover: Any = 10, **more: Any) -> dict[str, Any]:
    properties = {"datetime": moment, "eo:cloud_cover": cover} | more.pop("properties", {})
    return {"collection": "c", "bbox": [3.0, 50.0, 4.0, 51.0], "geometry": None, "properties": properties, **more}


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("2024", "2024-01-01T00:00:00Z/2024-12-31T23:59:59Z"),
        ("2024-02", "2024-02-01T00:00:00Z/2024-02-29T23:59:59Z"),
        ("2024-12", "2024-12-01T00:00:00Z/2024-12-31T23:59:59Z"),
        ("2024-06-15", "2024-06-15T00:00:00Z/2024-06-15T23:59:59Z"),
        ("2024-06-15T10:00:00Z", "2024-06-15T10:00:00Z/2024-06-15T10:00:00Z"),
        ("2024-06/2024-07-02", "2024-06-01T00:00:00Z/2024-07-02T23:59:59Z"),
        ("2024-06-01/..", "2024-06-01T00:00:00Z/.."),
        ("../2024-06-01", "../2024-06-01T23:59:59Z"),
    ],
)
def test_times(text: str, interval: str) -> None:
    assert make_search(datetime=text).interval == interval


@pytest.mark.parametrize(
    "arguments",
    [
        {"datetime": "yesterday"},
        {"datetime": "2024-13"},
        {"datetime": "../.."},
        {"datetime": "2024-07/2024-06"},
        {"bbox": [3, 51, 4, 50]},
        {"bbox": [3, 50, 4]},
        {"bbox": [3, 50, float("nan"), 51]},
        {"bbox": [3, 50, 3, 51]},
        {"bbox": [1, 2, 3, 4], "aoi": "x.geojson"},
        {"aoi": "/no/such/file.geojson"},
        {"max_cloud_cover": 101},
    ],
)
def test_invalid_searches(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        make_search(**arguments)


_SPAN = {"start_datetime": "2024-05-30T00:00:00Z", "end_datetime": "2024-06-02T00:00:00Z"}
_CORNER = {"type": "Polygon", "coordinates": [[[3, 50], [3.1, 50], [3, 50.1], [3, 50]]]}


@pytest.mark.parametrize(
    ("arguments", "values", "wanted"),
    [
        ({}, item(), True),
        ({"collections": ["c"]}, item(), True),
        ({"collections": ["d"]}, item(), False),
        ({"max_cloud_cover": 10}, item(), True),
        ({"max_cloud_cover": 9.9}, item(), False),
        ({"max_cloud_cover": 50}, item(cover=None), False),
        ({"max_cloud_cover": 50}, item(cover=True), False),
        ({"max_cloud_cover": 50}, item(cover=float("nan")), False),
        ({"datetime": "2024-06"}, item(), True),
        ({"datetime": "2024-07/.."}, item(), False),
        ({"datetime": "2024-06"}, item(None), False),
        ({"datetime": "2024-06"}, item(None, properties=_SPAN), True),
        ({"bbox": [3.5, 50.5, 3.6, 50.6]}, item(), True),
        ({"bbox": [5, 50, 6, 51]}, item(), False),
        ({"bbox": [3, 50, 4, 51]}, item(bbox=None), False),
        ({"bbox": [170, 50, -170, 51]}, item(bbox=[175, 50, -179, 51]), True),
        ({"bbox": [170, 50, -170, 51]}, item(bbox=[0, 50, 1, 51]), False),
        ({"bbox": [3, 50, 4, 51]}, item(bbox=["a", 1, 2, 3]), False),
        ({"bbox": [3, 50, 4, 51]}, item(bbox=[10**400, 50, 4, 51]), False),
        ({"bbox": [3.5, 50.5, 3.6, 50.6]}, item(geometry={"type": "Point", "coordinates": [10**400, 1]}), True),
        ({"bbox": [3.5, 50.5, 3.6, 50.6]}, item(geometry={"type": "Point", "coordinates": [float("nan"), 1]}), True),
        ({"bbox": [3.5, 50.5, 3.6, 50.6]}, item(geometry=_CORNER), False),
        ({"bbox": [3.5, 50.5, 3.6, 50.6]}, item(geometry={"type": "Polygon", "coordinates": "none"}), True),
    ],
)
def test_matching(arguments: dict[str, Any], values: dict[str, Any], wanted: bool) -> None:
    assert make_search(**arguments).matches(values) is wanted


def test_a_footprint_of_many_vertices_costs_no_time() -> None:
    """Whether this zigzag is valid takes GEOS minutes: the bounds of its edges all overlap. Its box counts instead."""
    count = 20_000
    zigzag = [[at * 1e-9 + 50 * (at % 2), 50.0 * (at % 2)] for at in range(count)]
    ring = [*zigzag, [60, -1], [-1, -1], zigzag[0]]
    values = item(geometry={"type": "Polygon", "coordinates": [ring]})
    began = time.process_time()
    assert make_search(bbox=[3.5, 50.5, 3.6, 50.6]).matches(values)
    assert time.process_time() - began < 1


def test_an_extent_of_absurd_numbers_prunes_nothing() -> None:
    extent = {"spatial": {"bbox": [[10**400, 50, 4, 51]]}}
    assert make_search(bbox=[3, 50, 4, 51]).may_hold({"type": "Collection", "extent": extent})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '{"type": "Point", "coordinates": [3, 50]}',
        '{"type": "FeatureCollection", "features": []}',
        '{"type": "Polygon", "coordinates": [[[500000, 0], [500010, 0], [500000, 10], [500000, 0]]]}',
    ],
)
def test_areas_that_are_no_areas(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.geojson").write_text(content)
    with pytest.raises(InputError, match="area cannot be read"):
        make_search(aoi=tmp_path / "a.geojson")


def test_the_command_makes_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    from cloudseg import stages

    seen: dict[str, Any] = {}

    def ingest(source: str | None, **arguments: Any) -> Any:
        seen.update(arguments, source=source)
        raise InputError("seen")

    monkeypatch.setattr(stages, "ingest", ingest)
    text = "ingest stac+https://example.org --bbox=-3.5,50,4,51 --datetime 2024-06 --collection a --collection b"
    CliRunner().invoke(root, [*text.split(), "--max-cloud-cover", "20", "--limit", "5", "--whole"])
    assert seen["bbox"] == [-3.5, 50, 4, 51]
    assert (seen["collections"], seen["max_cloud_cover"], seen["limit"], seen["whole"]) == (("a", "b"), 20, 5, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stac+https://example.org", "--bbox", "a,b"], "numbers"),
        (["stac+https://example.org", "--datetime", "never"], "not a time"),
        (["stac+file:///etc/passwd"], "not read"),
        (["stac+http://127.0.0.1:1/"], "plain http"),
        (["stac+https://127.0.0.1:1/"], "no public address"),
        (["stac+https://example.org", "--layout", "pairs"], "layout of its own"),
        (["--limit", "5"], "choose items of a STAC source"),
    ],
)
def test_wrong_use_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("CLOUDSEG_HOME", str(tmp_path))
    result = CliRunner().invoke(root, ["ingest", *arguments])
    assert message in str(result.exception) + result.output
    assert result.exit_code != 0


def test_footprints_and_json_stay_json(tmp_path: Path) -> None:
    """What is sent to an API is JSON."""
    shape = {"type": "Polygon", "coordinates": [[[3, 50], [4, 50], [4, 51], [3, 50]]]}
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "Feature", "geometry": shape, "properties": {}}))
    found = make_search(aoi=tmp_path / "a.geojson")
    assert json.loads(json.dumps(found.geometry))["type"] == "Polygon"
    assert found.bounds == (3, 50, 4, 51)
