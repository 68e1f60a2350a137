"""Bounds and times of the training scenes of a snapshot: one query for a model's STAC item and card."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, case, func, select

from cloudseg.catalog import tables as t


@dataclass(frozen=True)
class Extent:
    """Bounds and times of scenes; None if no scene has them."""

    bounds: tuple[float, float, float, float] | None
    """West, south, east, north in lon/lat degrees; -180 to 180 if a scene crosses the antimeridian."""
    begins_at: datetime | None
    ends_at: datetime | None
    scenes: int


NO_EXTENT: Final = Extent(None, None, None, 0)


def training_extent(db: Connection, snapshot_id: str | None) -> Extent:
    """Return the extent of the scenes that a snapshot trains on (None: nowhere)."""
    if snapshot_id is None:
        return NO_EXTENT
    s = t.scene.c
    crosses = func.coalesce(func.max(case((s.max_lon < s.min_lon, 1), else_=0)), 0)
    times = (func.min(s.acquired_at).label("begins_at"), func.max(s.acquired_at).label("ends_at"))
    statement = (
        select(
            func.min(s.min_lon),
            func.min(s.min_lat),
            func.max(s.max_lon),
            func.max(s.max_lat),
            crosses,
            *times,
            func.count(),
        )
        .select_from(t.snapshot_label.join(t.label, t.label.c.label_id == t.snapshot_label.c.label_id).join(t.scene))
        .where(t.snapshot_label.c.snapshot_id == snapshot_id, t.snapshot_label.c.split == "train")
    )
    west, south, east, north, crossing, begins_at, ends_at, scenes = db.execute(statement).one()
    if west is None or south is None:
        return Extent(None, begins_at, ends_at, scenes)
    return Extent((-180.0, south, 180.0, north) if crossing else (west, south, east, north), begins_at, ends_at, scenes)
