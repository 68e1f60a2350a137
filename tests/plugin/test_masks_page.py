"""The page of masks: its filters, what it says about them, paging, and values that cannot be read."""

import html
import re
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient
from plugin_rows import EVIL, NOON
from sqlalchemy import delete

from cloudseg.catalog import mask_search, model_rows, scene_rows
from cloudseg.catalog import tables as t
from cloudseg.runtime import Runtime

MANY = 60


def names_of(page: str) -> list[str]:
    """Return the names of the scenes on a page, in order."""
    return [html.unescape(name) for name in re.findall(r'<(?:span class="name"|td) title="([^"]*)"', page)]


@pytest.fixture
def several(filled: Runtime) -> Runtime:
    """Ten scenes a day apart at two places, the later ones cloudier; the last two wait for a mask, one has two."""
    with filled.catalog.begin() as db:
        mask, scene = model_rows.get_mask(db, "mk-1"), scene_rows.find_scene(db, f"sc-{1:020x}")
        assert scene is not None
        db.execute(delete(t.mask))
        for number in range(100, 110):
            scene_rows.add_scene(
                db,
                scene.model_copy(
                    update={
                        "scene_id": f"sc-{number:020x}",
                        "name": f"S2A_MSIL1C_{number}",
                        "place": "alps" if number % 2 else "prairie_1",
                        "acquired_at": NOON + timedelta(days=number - 100),
                        "created_at": NOON + timedelta(days=number - 50),
                        "source_sha256": f"{number:064x}",
                    }
                ),
            )
            for weights_id in ("w-1", "w-2") if number == 100 else ("w-1",) if number < 108 else ():
                found = {
                    "mask_id": f"mk-{number}-{weights_id}",
                    "scene_id": f"sc-{number:020x}",
                    "weights_id": weights_id,
                    "cloud_fraction": (number - 100) / 10,
                    "created_at": NOON + timedelta(days=100, hours=number - 100),
                }
                model_rows.add_mask(db, mask.model_copy(update=found))
    return filled


def numbers(page: str) -> list[int]:
    return [int(name.removeprefix("S2A_MSIL1C_")) - 100 for name in names_of(page) if name.startswith("S2A")]


@pytest.mark.parametrize(
    ("query", "found", "said"),
    [
        ("", [7, 6, 5, 4, 3, 2, 1, 0, 0], "Masks; newest mask first."),
        ("place=ALPS", [7, 5, 3, 1], "place contains “ALPS”"),
        ("name=l1c_103", [3], "scene name contains “l1c_103”"),
        ("name=%25", [], "No mask fits this filter."),
        ("name=S2A*_105", [5], "scene name contains"),
        ("since=2026-03-03&until=2026-03-04", [3, 2], "acquired 2026-03-03 to 2026-03-04; newest acquisition first"),
        ("since=2026-03-07", [7, 6], "acquired on or after 2026-03-07"),
        ("until=2026-03-01", [0, 0], "acquired on or before 2026-03-01"),
        ("cloud_from=50", [7, 6, 5], "cloud at least 50 %"),
        ("cloud_from=20&cloud_to=40%25", [4, 3, 2], "cloud 20 to 40 %"),
        ("model=v2", [0], "made by model v2"),
        ("model=2", [0], "made by model v2"),
        (
            "model=champion&place=alps&cloud_to=40",
            [3, 1],
            "place contains “alps”, cloud at most 40 %, made by model v1",
        ),
        ("state=waiting&name=S2A", [9, 8], "Scenes without a mask by model v1"),
        ("state=waiting&model=v2&since=2026-03-06", [9, 8, 7, 6, 5], "Scenes without a mask by model v2"),
        ("state=waiting&place=prairie", [8], "newest ingest first"),
    ],
)
def test_a_filter_leaves_what_it_says(client: TestClient, several: Runtime, query: str, found: list[int], said: str):
    answer = client.get(f"/masks?{query}")
    assert answer.status_code == 200
    assert numbers(answer.text) == found
    assert said in answer.text
    if query and found:
        assert f"1–{len(found)} of {len(found)} {'scenes' if 'waiting' in query else 'masks'}" in answer.text


def test_the_form_holds_what_was_typed_and_can_be_cleared(client: TestClient, several: Runtime) -> None:
    page = client.get("/masks", params={"place": EVIL, "cloud_from": "5", "since": "2026-03-01"}).text
    assert (EVIL in page, html.escape(EVIL) in page) == (False, True)
    assert 'name="cloud_from" value="5"' in page
    assert 'name="since" value="2026-03-01"' in page
    assert '<a class="button" href="/masks">Clear</a>' in page
    assert ">Clear</a>" not in client.get("/masks").text


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("since=yesterday", 400, "Not a time interval"),
        ("since=2026-03-02&until=2026-03-01", 400, "The interval ends before it begins"),
        ("since=2026-02-30", 400, "Not a time interval"),
        ("cloud_from=many", 400, "Not a fraction of cloud</b> (cloud from). Found: many"),
        ("cloud_to=nan", 400, "percent, 0 to 100"),
        ("cloud_to=101", 400, "percent, 0 to 100"),
        ("cloud_from=60&cloud_to=50", 400, "Found: 60 to 50 %"),
        ("model=v99", 404, "v99"),
        ("model=%3Cscript%3Ealert(1)%3C/script%3E", 404, "&lt;script&gt;"),
        ("name=%00", 422, "The address is not valid"),
        ("place=" + "*" * 50, 400, "This text cannot be searched for"),
        ("state=waiting&cloud_to=5", 400, "A scene without a mask has no cloud fraction"),
        ("after=nonsense", 400, "Not a token of this search"),
        ("after=" + "x" * 3000, 422, "The address is not valid"),
        ("place=" + "x" * 200, 422, "The address is not valid"),
        ("state=lost", 422, "The address is not valid"),
        ("seen=-1", 422, "The address is not valid"),
    ],
)
def test_a_value_that_cannot_be_read_is_named(client: TestClient, several: Runtime, query: str, status: int, said: str):
    answer = client.get(f"/masks?{query}")
    assert answer.status_code == status
    assert said in answer.text
    assert EVIL not in answer.text
    if status != 422:
        assert '<form class="filters"' in answer.text, "what was typed can be mended"
        assert 'role="alert"' in answer.text


def test_an_empty_page_says_why(client: TestClient, runtime: Runtime) -> None:
    assert "Masks are predicted as soon as there is a champion." in client.get("/masks").text
    waiting = client.get("/masks?state=waiting")
    assert waiting.status_code == 404
    assert "hampion" in waiting.text


def test_nothing_waits(client: TestClient, several: Runtime) -> None:
    page = client.get("/masks?state=waiting&name=S2A_MSIL1C_103").text
    assert "No scene waits for a mask by v1 with this filter." in page


def test_pages_follow_each_other_and_keep_the_filter(client: TestClient, filled: Runtime) -> None:
    with filled.catalog.begin() as db:
        mask, scene = model_rows.get_mask(db, "mk-1"), scene_rows.find_scene(db, f"sc-{1:020x}")
        assert scene is not None
        for number in range(100, 100 + MANY):
            changed = {"scene_id": f"sc-{number:020x}", "name": f"many_{number}", "source_sha256": f"{number:064x}"}
            scene_rows.add_scene(db, scene.model_copy(update=changed))
            of = {"mask_id": f"mk-{number}", "scene_id": f"sc-{number:020x}"}
            model_rows.add_mask(db, mask.model_copy(update=of))
    page, seen, pages = client.get("/masks?name=many").text, list[str](), 1
    assert "1–24 masks, and older ones" in page
    while True:
        seen += names_of(page)
        link = re.search(r'rel="next" href="([^"]*)"', page)
        if link is None:
            break
        address = html.unescape(link[1])
        assert parse_qs(urlsplit(address).query)["name"] == ["many"]
        page, pages = client.get(address).text, pages + 1
    assert pages == 3
    assert sorted(seen) == [f"many_{number}" for number in range(100, 100 + MANY)]
    assert f"49–{MANY} of {MANY} masks" in page
    assert 'rel="first" href="/masks?name=many"' in page
    assert f"1–24 of {MANY + 2} masks" in client.get("/masks").text


def test_a_filter_reads_no_more_scenes_than_a_page_needs(
    client: TestClient, several: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More scenes than `MAX_NEAR` are walked in order; the answer is the same."""
    narrowed = [numbers(client.get(f"/masks?{query}").text) for query in ("place=alps", "state=waiting&name=S2A")]
    monkeypatch.setattr(mask_search, "MAX_NEAR", 0)
    assert [
        numbers(client.get(f"/masks?{query}").text) for query in ("place=alps", "state=waiting&name=S2A")
    ] == narrowed
