"""The scenes of an area, from a spatial index over their bounds: an R-tree on SQLite, GiST on PostgreSQL.

Migration 0008 creates both. SQLite's R-tree is a table of its own, which triggers keep up to date.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Double, Select, Text, column, or_, select, table, text

from cloudseg.catalog import tables as t
from cloudseg.catalog.search_area import Box

TRIGGERS: Final = ("scene_box_add", "scene_box_move", "scene_box_remove")
_ADD: Final = """
    INSERT INTO scene_box (west, east, south, north, scene_id)
    SELECT NEW.min_lon, NEW.max_lon, NEW.min_lat, NEW.max_lat, NEW.scene_id WHERE NEW.min_lon <= NEW.max_lon
    UNION ALL SELECT NEW.min_lon, 180, NEW.min_lat, NEW.max_lat, NEW.scene_id WHERE NEW.min_lon > NEW.max_lon
    UNION ALL SELECT -180, NEW.max_lon, NEW.min_lat, NEW.max_lat, NEW.scene_id WHERE NEW.min_lon > NEW.max_lon;
"""
# Found through the tree, by latitude: the id of the scene has no index there. Its numbers are rounded outwards to 32
# bits (sqlite.org/rtree.html, "Roundoff error").
_REMOVE: Final = """
    DELETE FROM scene_box WHERE id IN (
        SELECT id FROM scene_box WHERE scene_id = OLD.scene_id
        AND south <= OLD.min_lat AND south >= OLD.min_lat - 1e-4
        AND north >= OLD.max_lat AND north <= OLD.max_lat + 1e-4
    );
"""
_STATEMENTS: Final = (
    f"CREATE TRIGGER IF NOT EXISTS scene_box_add AFTER INSERT ON scene BEGIN {_ADD} END",
    "CREATE TRIGGER IF NOT EXISTS scene_box_move "
    "AFTER UPDATE OF scene_id, min_lon, max_lon, min_lat, max_lat ON scene "
    f"BEGIN {_REMOVE} {_ADD} END",
    f"CREATE TRIGGER IF NOT EXISTS scene_box_remove AFTER DELETE ON scene BEGIN {_REMOVE} END",
)
# The expression of the index `ix_scene_box`, word for word: otherwise the planner does not use it.
_BOUNDS: Final = (
    "box(point(CASE WHEN scene.max_lon < scene.min_lon THEN -180 ELSE scene.min_lon END, scene.min_lat), "
    "point(CASE WHEN scene.max_lon < scene.min_lon THEN 180 ELSE scene.max_lon END, scene.max_lat))"
)


def create_triggers(db: Connection) -> None:
    """Create the triggers of the R-tree that are missing; a migration that copies the table `scene` loses them."""
    if db.dialect.name == "sqlite":
        for statement in _STATEMENTS:
            db.exec_driver_sql(statement)


def find_near(db: Connection, boxes: Sequence[Box], *, most: int) -> list[str] | None:
    """Return the ids of the scenes whose bounds touch one of these boxes; None if there are more than `most`.

    A scene that is a rounding error away may be among them.

    Args:
        db: a transaction that reads.
        boxes: none of them crosses the antimeridian.
        most: scenes.
    """
    found: set[str] = set()
    for box in boxes:
        # Across the antimeridian a scene has two boxes in the tree.
        sqlite = db.dialect.name == "sqlite"
        asked = _in_tree(box).limit(2 * most + 1) if sqlite else _in_index(box).limit(most + 1)
        found.update(db.execute(asked).scalars())
        if len(found) > most:
            return None
    return sorted(found)


def _in_tree(box: Box) -> Select[Any]:
    west, east, south, north = (column(name, Double) for name in ("west", "east", "south", "north"))
    touched = (west <= box[2]) & (east >= box[0]) & (south <= box[3]) & (north >= box[1])
    return select(column("scene_id", Text)).select_from(table("scene_box")).where(touched)


def _in_index(box: Box) -> Select[Any]:
    asked = dict(zip(("west", "south", "east", "north"), box, strict=True))
    touched = text(f"{_BOUNDS} && box(point(:west, :south), point(:east, :north))").bindparams(**asked)
    s = t.scene.c
    # In the index, a scene across the antimeridian reaches around the Earth.
    is_there = or_(s.max_lon >= s.min_lon, s.min_lon <= box[2], s.max_lon >= box[0])
    return select(s.scene_id).where(touched, is_there)
