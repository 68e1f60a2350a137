"""The search of masks and scenes gives the same answers on every database, and those of a plain loop over the rows."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import rows
import shapely
from shapely import box, to_wkb

from cloudseg.catalog import Catalog, model_rows, scene_rows, training_rows
from cloudseg.catalog import mask_query as mq
from cloudseg.catalog import mask_search as ms
from cloudseg.catalog.search_area import area_of_box
from cloudseg.errors import InputError

SCENES = 40
FIJI = shapely.MultiPolygon([box(179, -18, 180, -17), box(-180, -18, -179, -17)])
TRIANGLE = shapely.Polygon([(10, 10), (20, 10), (10, 20)])
"""Its bounds reach to 20, 20, where it does not."""


def _scene(i: int):
    if i == 7:
        shape, bounds = FIJI, {"min_lon": 179.0, "max_lon": -179.0, "min_lat": -18.0, "max_lat": -17.0}
    elif i == 8:
        shape, bounds = TRIANGLE, {"min_lon": 10.0, "max_lon": 20.0, "min_lat": 10.0, "max_lat": 20.0}
    else:
        west, south = -60 + i * 3.0, -30 + i * 1.5
        shape = box(west, south, west + 2, south + 2)
        bounds = {"min_lon": west, "max_lon": west + 2, "min_lat": south, "max_lat": south + 2}
    facts = {"acquired_at": None} if i % 10 == 3 else {"acquired_at": rows.START + timedelta(days=i // 2)}
    return rows.scene(i, footprint_wkb=to_wkb(shape), place=f"mgrs:{i % 6}", **bounds, **facts)


def _mask(i: int, by: int):
    return rows.mask(1000 * by + i, of=i, by=by).model_copy(
        update={"mask_id": f"mk-{by}{i:04d}", "cloud_fraction": (i * 7 % 20) / 20}
    )


@pytest.fixture
def searched(catalog: Catalog) -> Catalog:
    """Return a catalog with 40 scenes; model 1 masked all of them, model 2 every third. Two more are not published.

    Readers see the masks of model 1.
    """
    with catalog.begin() as db:
        training_rows.add_snapshot(db, rows.snapshot(), {})
        training_rows.add_run(db, rows.run())
        for i in range(SCENES):
            scene_rows.add_scene(db, _scene(i))
        scene_rows.add_scene(db, rows.scene(500, publishable=False))
        scene_rows.add_scene(db, rows.scene(501, footprint_wkb=None, min_lon=None, crs=None))
        model_rows.add_weights(db, rows.weights(1, run_id="run-1"))
        model_rows.add_weights(db, rows.weights(2))
        model_rows.add_promotion(db, rows.promotion(1, of=1, previous=None))
        for i in range(SCENES):
            model_rows.add_mask(db, _mask(i, 1))
            if i % 3 == 0:
                model_rows.add_mask(db, _mask(i, 2))
    return catalog


def _everything() -> list[dict]:
    found = []
    for i in range(SCENES):
        scene = _scene(i)
        common = {"at": scene.acquired_at, "created": scene.created_at, "shape": shapely.from_wkb(scene.footprint_wkb)}
        found.append({"kind": "scenes", "id": scene.scene_id, "cover": None, "version": None, **common})
        for by in (1, 2) if i % 3 == 0 else (1,):
            mask = _mask(i, by)
            cover = round(100 * mask.cloud_fraction, 4)
            found.append({"kind": "masks", "id": mask.mask_id, "cover": cover, "version": by, **common})
    return found


def _expected(keep=lambda row: True, kinds=("masks", "scenes"), key=None) -> list[str]:
    kept = [row for row in _everything() if row["kind"] in kinds and keep(row)]
    newest = key or (lambda row: (row["at"] is None, -(row["at"] or rows.START).timestamp(), row["id"]))
    return [row["id"] for row in sorted(kept, key=newest)]


def _pages(catalog: Catalog, query: mq.Query, limit: int = 7) -> list[str]:
    """Return the ids of every page, read in one transaction each, of all models."""
    query = replace(query, any_model=True)
    ids, token = [], None
    for _ in range(100):
        with catalog.read() as db:
            page = ms.search(db, query, limit=limit, token=token)
        ids += [row.id for row in page.rows]
        assert len(page.rows) <= limit
        token = page.token
        if token is None:
            return ids
    raise AssertionError("the pages do not end")


def test_pages_hold_every_row_once_newest_first_and_undated_last(searched: Catalog):
    assert _pages(searched, mq.Query()) == _expected()
    assert _pages(searched, mq.Query(), limit=500) == _expected()
    assert _pages(searched, mq.Query(("masks",)), limit=1) == _expected(kinds=("masks",))


@pytest.mark.parametrize("descending", [False, True])
def test_every_order_is_that_of_a_plain_sort(searched: Catalog, descending: bool):
    sign = -1 if descending else 1
    cover = (mq.SortKey("eo:cloud_cover", descending), mq.SortKey("created"))
    assert _pages(searched, mq.Query(sort=cover)) == _expected(
        key=lambda row: (row["cover"] is None, sign * (row["cover"] or 0), _created(row), row["id"])
    )
    version = (mq.SortKey("cloudseg:model_version", descending), mq.SortKey("datetime", descending))
    assert _pages(searched, mq.Query(sort=version)) == _expected(
        key=lambda row: (
            row["version"] is None,
            sign * (row["version"] or 0),
            row["at"] is None,
            sign * (row["at"] or rows.START).timestamp(),
            row["id"],
        )
    )
    oldest = (mq.SortKey("datetime"),)
    assert _pages(searched, mq.Query(("scenes",), sort=oldest)) == _expected(
        kinds=("scenes",),
        key=lambda row: (row["at"] is None, (row["at"] or rows.START).timestamp(), row["id"]),
    )
    assert _pages(searched, mq.Query(sort=(mq.SortKey("id", descending),)))[::sign] == sorted(
        row["id"] for row in _everything()
    )


def _created(row: dict) -> datetime:
    return row["created"] if row["kind"] == "scenes" else rows.START


AREAS = {
    "box": (-10, -10, 10, 10),
    "across 180": (178, -20, -178, -10),
    "west of 180": (179.5, -20, 180, -10),
    "east of 180": (-180, -20, -179.5, -10),
    "bounds of the triangle without it": (18, 18, 19.5, 19.5),
    "everywhere": (-180, -90, 180, 90),
    "a point": (11, 11, 11, 11),
}


@pytest.mark.parametrize("name", AREAS)
def test_areas_are_compared_with_footprints(searched: Catalog, name: str):
    area = area_of_box(AREAS[name])
    expected = _expected(lambda row: area.intersects(row["shape"]))
    assert _pages(searched, mq.Query(area=area), limit=3) == expected
    if name in ("across 180", "west of 180", "east of 180"):
        assert _scene(7).scene_id in expected
    if name == "bounds of the triangle without it":
        assert expected == [] or _scene(8).scene_id not in expected


def test_a_geometry_and_a_box_with_heights(searched: Catalog):
    area = shapely.Polygon([(-60, -30), (0, -30), (-60, 40)])
    assert _pages(searched, mq.Query(area=area)) == _expected(lambda row: area.intersects(row["shape"]))
    assert area_of_box((1, 2, 0, 3, 4, 100)).equals(box(1, 2, 3, 4))


def test_times_are_inclusive_and_undated_scenes_are_found_since_their_ingest(searched: Catalog):
    since, until = rows.START + timedelta(days=3), rows.START + timedelta(days=6)

    def keep(row: dict) -> bool:
        return since <= row["at"] <= until if row["at"] else row["created"] >= since

    for kinds in (("masks",), ("scenes",), mq.KINDS):
        query = mq.Query(kinds, since=since, until=until)
        assert _pages(searched, query, limit=4) == _expected(keep, kinds)
        by_id = mq.Query(kinds, since=since, until=until, sort=(mq.SortKey("id"),))
        assert _pages(searched, by_id, limit=4) == sorted(_expected(keep, kinds))
    before = mq.Query(until=datetime(1960, 1, 1, tzinfo=UTC))
    assert _pages(searched, before) == []


FILTERS = {
    "cover": (
        {"op": "<=", "args": [{"property": "eo:cloud_cover"}, 35]},
        lambda r: r["cover"] is not None and r["cover"] <= 35,
    ),
    "equal": ({"op": "=", "args": [{"property": "eo:cloud_cover"}, 30]}, lambda r: r["cover"] == 30),
    "mirrored": (
        {"op": "<", "args": [60, {"property": "properties.eo:cloud_cover"}]},
        lambda r: (r["cover"] or 0) > 60,
    ),
    "version": ({"op": "=", "args": [{"property": "cloudseg:model_version"}, 2]}, lambda r: r["version"] == 2),
    "between versions": (
        {"op": ">", "args": [{"property": "cloudseg:model_version"}, 1.5]},
        lambda r: (r["version"] or 0) > 1.5,
    ),
    "not": (
        {"op": "not", "args": [{"op": "=", "args": [{"property": "cloudseg:model_version"}, 2]}]},
        lambda r: r["version"] == 1,
    ),
    "null": ({"op": "isNull", "args": [{"property": "cloudseg:weights_id"}]}, lambda r: r["kind"] == "scenes"),
    "or": (
        {
            "op": "or",
            "args": [
                {"op": "in", "args": [{"property": "cloudseg:weights_id"}, ["w-2", "w-9"]]},
                {"op": "=", "args": [{"property": "collection"}, "scenes"]},
            ],
        },
        lambda r: r["version"] == 2 or r["kind"] == "scenes",
    ),
    "between": (
        {"op": "between", "args": [{"property": "eo:cloud_cover"}, 20, 50]},
        lambda r: r["cover"] is not None and 20 <= r["cover"] <= 50,
    ),
    "time": (
        {"op": ">", "args": [{"property": "datetime"}, {"timestamp": "2024-06-11T10:30:00Z"}]},
        lambda r: r["at"] is not None and r["at"] > rows.START + timedelta(days=10),
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters(searched: Catalog, name: str):
    where, keep = FILTERS[name]
    expected = _expected(keep)
    assert 0 < len(expected) < len(_everything())
    assert _pages(searched, mq.Query(where=where)) == expected


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize(
    "where",
    [
        "eo:cloud_cover < 10",
        {"op": "<"},
        {"op": "=", "args": [{"property": "source_uri"}, "x"]},
        {"op": "=", "args": [{"property": "eo:cloud_cover"}, "x"]},
        {"op": "=", "args": [{"property": "id"}, 1]},
        {"op": "=", "args": [{"property": "id"}, {"property": "collection"}]},
        {"op": "casei", "args": [{"property": "id"}]},
        {"op": "s_intersects", "args": [{"property": "geometry"}, {}]},
        {"op": "in", "args": [{"property": "id"}, []]},
        {"op": "and", "args": [{"op": "isNull", "args": [{"property": "id"}]}] * 200},
        {"op": "=", "args": [{"property": "datetime"}, "yesterday"]},
    ],
)
def test_other_filters_are_refused(searched: Catalog, where: object):
    with searched.read() as db, pytest.raises(InputError):
        ms.search(db, mq.Query(where=where))


@pytest.mark.parametrize("most", [0, 1000])
def test_names_and_places_and_what_waits(searched: Catalog, most: int, monkeypatch: pytest.MonkeyPatch):
    """Few scenes are found first, many are walked in order: the answers are the same."""
    monkeypatch.setattr(ms, "MAX_NEAR", most)
    names = {_scene(i).scene_id: _scene(i).name for i in range(SCENES)}
    name = names[_scene(12).scene_id]
    assert len(set(names.values())) == SCENES

    def of(keep) -> list[str]:
        kept = {_scene(i).scene_id for i in range(SCENES) if keep(i)}
        masks = {_mask(i, by).mask_id for i in range(SCENES) if keep(i) for by in (1, 2)}
        return _expected(lambda row: row["id"] in kept | masks)

    assert _pages(searched, mq.Query(name=f"*{name.upper()[2:]}")) == of(
        lambda i: names[_scene(i).scene_id].endswith(name[2:])
    )
    assert _pages(searched, mq.Query(place="MGRS:4")) == of(lambda i: i % 6 == 4)
    assert _pages(searched, mq.Query(place="mgrs:*")) == of(lambda i: True)
    assert _pages(searched, mq.Query(place="mgrs:%")) == _pages(searched, mq.Query(name="scene_")) == []
    assert _pages(searched, mq.Query(place="m*:2", name="*1*")) == of(
        lambda i: i % 6 == 2 and "1" in names[_scene(i).scene_id]
    )
    waiting = mq.Query(("scenes",), without_mask_of=rows.weights(2).weights_id)
    assert _pages(searched, waiting) == _expected(
        lambda row: row["id"] in {_scene(i).scene_id for i in range(SCENES) if i % 3}, kinds=("scenes",)
    )
    assert _pages(searched, replace(waiting, without_mask_of=rows.weights(1).weights_id)) == []


@pytest.mark.parametrize("text", ["a\0", "\ud800", "*" * 11])
def test_texts_that_no_name_is_like_are_refused(searched: Catalog, text: str):
    for query in (mq.Query(name=text), mq.Query(place=text)):
        with searched.read() as db, pytest.raises(InputError, match="cannot be searched for"):
            ms.search(db, query)


def test_letters_outside_ascii_are_compared_as_they_are(searched: Catalog):
    with searched.begin() as db:
        scene_rows.add_scene(db, _scene(90).model_copy(update={"name": "ÄTNA_é", "place": "mgrs:1"}))
    assert [len(_pages(searched, mq.Query(name=name))) for name in ("Ätna_é", "ätna_é", "ÄTNA_É")] == [1, 0, 0]


def test_ids(searched: Catalog):
    wanted = (_scene(4).scene_id, "mk-10004", "mk-nothing")
    assert sorted(_pages(searched, mq.Query(ids=wanted))) == sorted(wanted[:2])
    assert _pages(searched, mq.Query(ids=())) == []


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_token_of_another_order_or_from_elsewhere_is_refused(searched: Catalog):
    with searched.read() as db:
        token = ms.search(db, mq.Query(), limit=3).token
        by_id = ms.search(db, mq.Query(sort=(mq.SortKey("id"),)), limit=3).token
    assert token is not None
    assert by_id is not None
    for wrong in (by_id, "", "x", "!!", token[:-4], "A" * 5000, "WzFd"):
        if wrong:
            with searched.read() as db, pytest.raises(InputError, match="not a token"):
                ms.search(db, mq.Query(), token=wrong)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_rows_added_between_two_pages_neither_repeat_nor_hide_others(searched: Catalog):
    with searched.read() as db:
        first = ms.search(db, mq.Query(("scenes",)), limit=10)
    with searched.begin() as db:
        scene_rows.add_scene(db, rows.scene(900, acquired_at=rows.START + timedelta(days=900)))
    ids, token = [row.id for row in first.rows], first.token
    while token:
        with searched.read() as db:
            page = ms.search(db, mq.Query(("scenes",)), limit=10, token=token)
        ids, token = ids + [row.id for row in page.rows], page.token
    assert ids == _expected(kinds=("scenes",))


@pytest.mark.parametrize("box_", [(0, 0, 200, 1), (0, 5, 1, 4), (0, 0, 1), (float("nan"), 0, 1, 1), (0, -91, 1, 0)])
def test_impossible_boxes_are_refused(box_: tuple):
    with pytest.raises(InputError, match="not a box"):
        area_of_box(box_)


def test_the_newest_mask_of_each_place(searched: Catalog):
    everywhere = area_of_box((-180, -90, 180, 90))

    def expected(version: int | None) -> dict[str, str]:
        newest: dict[str, tuple] = {}
        for i, by in itertools.product(range(SCENES), (1, 2)):
            scene = _scene(i)
            if (by == 2 and i % 3) or by != (version or 1):  # readers see model 1
                continue
            at = scene.acquired_at.timestamp() if scene.acquired_at else float("-inf")
            rank = (at, by)
            place = newest.setdefault(scene.place, (rank, ""))
            if rank > place[0] or place[1] == "" or (rank == place[0] and _mask(i, by).mask_id < place[1]):
                newest[scene.place] = (rank, _mask(i, by).mask_id)
        return {place: mask_id for place, (_, mask_id) in newest.items()}

    for version in (None, 1, 2):
        with searched.read() as db:
            found = ms.newest_of_each_place(db, everywhere, since=None, until=None, version=version, limit=50)
            few = ms.newest_of_each_place(db, everywhere, since=None, until=None, version=version, limit=2)
        assert {row.scene.place: row.id for row in found} == expected(version)
        assert [row.id for row in few] == [row.id for row in found][:2]
