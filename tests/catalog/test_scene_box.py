"""The spatial index over the bounds of scenes finds what a plain loop finds, on every database, and is used."""

import random

import pytest
import rows
from sqlalchemy import URL, text

from benchmarks.catalog_scale import plan
from cloudseg.catalog import Catalog, scene_rows
from cloudseg.catalog import tables as t
from cloudseg.catalog.scene_box import find_near

SCENES = 60
BEFORE = "0007_reader_switch"


def _bounds(i: int) -> dict[str, float | None]:
    """Every seventh scene crosses the antimeridian, every fifteenth has no place."""
    if i % 15 == 14:
        return dict.fromkeys(("min_lon", "min_lat", "max_lon", "max_lat"))
    rng = random.Random(i)  # noqa: S311
    west, south = rng.uniform(-170, 168), rng.uniform(-80, 78)
    east = west + rng.uniform(0.1, 2)
    if i % 7 == 3:
        west, east = 180 - rng.uniform(0.1, 3), -180 + rng.uniform(0.1, 3)
    return {"min_lon": west, "min_lat": south, "max_lon": east, "max_lat": south + rng.uniform(0.1, 2)}


def _fill(catalog: Catalog, numbers: range) -> None:
    with catalog.begin() as db:
        for i in numbers:
            scene_rows.add_scene(db, rows.scene(i, **_bounds(i)))


def _touching(box: tuple[float, float, float, float], numbers: range = range(SCENES)) -> list[str]:
    west, south, east, north = box
    found = []
    for i in numbers:
        bounds = _bounds(i)
        if bounds["min_lon"] is None:
            continue
        low, high = bounds["min_lon"], bounds["max_lon"]
        sides = [(low, high)] if low <= high else [(low, 180.0), (-180.0, high)]
        if bounds["min_lat"] <= north and bounds["max_lat"] >= south:
            found += [rows.scene(i).scene_id] if any(a <= east and b >= west for a, b in sides) else []
    return sorted(found)


def _boxes() -> list[tuple[float, float, float, float]]:
    rng = random.Random(0)  # noqa: S311
    boxes = [(-180.0, -90.0, 180.0, 90.0), (179.0, -90.0, 180.0, 90.0), (-180.0, -90.0, -179.0, 90.0)]
    for _ in range(60):
        west, south, side = rng.uniform(-180, 140), rng.uniform(-90, 50), rng.uniform(0.1, 40)
        boxes.append((west, south, west + side, south + side))
    return boxes


def check(catalog: Catalog, numbers: range = range(SCENES)) -> None:
    for box in _boxes():
        with catalog.read() as db:
            assert find_near(db, [box], most=SCENES) == _touching(box, numbers), box


def test_finds_what_a_plain_loop_finds(catalog: Catalog):
    _fill(catalog, range(SCENES))
    check(catalog)
    one, other = _boxes()[1:3]
    with catalog.read() as db:
        assert find_near(db, [one, other], most=SCENES) == sorted({*_touching(one), *_touching(other)})
        assert find_near(db, [], most=SCENES) == []


def test_more_than_wanted_is_none(catalog: Catalog):
    _fill(catalog, range(SCENES))
    everywhere = _boxes()[0]
    placed = len(_touching(everywhere))
    with catalog.read() as db:
        assert find_near(db, [everywhere], most=placed - 1) is None
        assert len(find_near(db, [everywhere], most=placed) or []) == placed


def test_an_upgrade_indexes_the_scenes_that_are_there(catalog: Catalog):
    catalog.downgrade(BEFORE)
    _fill(catalog, range(SCENES // 2))
    catalog.upgrade()
    check(catalog, range(SCENES // 2))
    _fill(catalog, range(SCENES // 2, SCENES))
    check(catalog)


def test_a_scene_that_moves_or_goes_is_not_found_where_it_was(catalog: Catalog):
    _fill(catalog, range(SCENES))
    with catalog.begin() as db:
        for i in range(SCENES):
            of_scene = t.scene.c.scene_id == rows.scene(i).scene_id
            if i % 2:
                db.execute(t.scene.delete().where(of_scene))
            else:
                db.execute(t.scene.update().where(of_scene).values(**_bounds(i + SCENES)))
        sqlite = db.dialect.name == "sqlite"
        if sqlite:
            boxes = db.execute(text("SELECT scene_id, COUNT(*) FROM scene_box GROUP BY scene_id")).all()
    for box in _boxes():
        moved = _touching(box, range(SCENES, 2 * SCENES))
        wanted = [rows.scene(i).scene_id for i in range(0, SCENES, 2) if rows.scene(i + SCENES).scene_id in moved]
        with catalog.read() as db:
            assert find_near(db, [box], most=SCENES) == wanted, box
    if sqlite:
        assert len(boxes) == sum(_bounds(i + SCENES)["min_lon"] is not None for i in range(0, SCENES, 2))
        assert max(count for _, count in boxes) == 2


@pytest.mark.parametrize("backend", ["sqlite"])
def test_new_rowids_change_nothing(catalog: Catalog):
    """VACUUM may renumber the rows of a table without an integer primary key."""
    _fill(catalog, range(SCENES))
    with catalog.begin() as db:
        db.execute(t.scene.delete().where(t.scene.c.scene_id == rows.scene(0).scene_id))
    with catalog.engine.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA query_only=OFF")
        connection.connection.driver_connection.execute("VACUUM")
    check(catalog, range(1, SCENES))


@pytest.mark.parametrize("backend", ["sqlite"])
def test_an_upgrade_creates_triggers_that_are_missing(catalog: Catalog):
    with catalog.begin() as db:
        for name in ("add", "move", "remove"):
            db.execute(text(f"DROP TRIGGER scene_box_{name}"))
    catalog.upgrade()
    _fill(catalog, range(SCENES))
    check(catalog)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_later_upgrade_can_be_checked(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    """The schema is copied for that, and the tree makes some of its tables itself."""
    monkeypatch.setattr(catalog, "head_revision", lambda: "9999_later")
    catalog.check_upgrade()


def test_the_index_is_used(catalog_url: URL, backend: str):
    url = catalog_url if backend == "sqlite" else catalog_url.update_query_dict({"options": "-c enable_seqscan=off"})
    catalog = Catalog(url)
    _fill(catalog, range(SCENES))
    found = "\n".join(plan(catalog, lambda db: find_near(db, [(0.0, 0.0, 1.0, 1.0)], most=10), analyze=False))
    assert ("SCAN scene_box VIRTUAL TABLE INDEX" if backend == "sqlite" else "ix_scene_box") in found, found
    catalog.engine.dispose()
