"""Search for the scene of a label, by name and by acquisition, and for the masks that it may correct."""

from collections.abc import Collection
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, or_, select

from cloudseg.catalog import tables as t
from cloudseg.catalog.session import fetch, fetch_one
from cloudseg.records import Mask, Scene

MAX_CANDIDATES: Final = 2_000
"""More scenes than this are never compared; a search that reaches it is ambiguous."""


def find_scene(db: Connection, scene_id: str) -> Scene | None:
    """Return a scene or None."""
    return fetch_one(db, Scene, select(t.scene).where(t.scene.c.scene_id == scene_id))


def find_scenes_by_name(db: Connection, names: Collection[str]) -> list[Scene]:
    """Return the scenes that have exactly one of these names, at most `MAX_CANDIDATES`; names are not unique."""
    statement = select(t.scene).where(t.scene.c.name.in_(sorted(set(names))))
    return fetch(db, Scene, statement.order_by(t.scene.c.scene_id).limit(MAX_CANDIDATES))


def find_scenes_by_name_end(db: Connection, ends: Collection[str]) -> list[Scene]:
    """Return the scenes whose name ends in `_` and one of these, at most `MAX_CANDIDATES`. Reads every name."""
    name = t.scene.c.name
    wanted = or_(*(name.endswith(f"_{end}", autoescape=True) for end in sorted(set(ends))))
    of_name = select(t.scene.c.scene_id).where(wanted)
    statement = select(t.scene).where(t.scene.c.scene_id.in_(of_name))
    return fetch(db, Scene, statement.order_by(t.scene.c.scene_id).limit(MAX_CANDIDATES))


def find_scenes_by_acquisition(db: Connection, sensor: str, since: datetime, until: datetime) -> list[Scene]:
    """Return the scenes of a sensor that were acquired in `[since, until)`, at most `MAX_CANDIDATES`."""
    s = t.scene.c
    statement = select(t.scene).where(s.acquired_at >= since, s.acquired_at < until, s.sensor == sensor)
    return fetch(db, Scene, statement.order_by(s.scene_id).limit(MAX_CANDIDATES))


def list_masks_of_scene(db: Connection, scene_id: str, *, limit: int) -> list[Mask]:
    """List the masks of a scene, newest first."""
    of_scene = select(t.mask).where(t.mask.c.scene_id == scene_id)
    return fetch(db, Mask, of_scene.order_by(t.mask.c.created_at.desc(), t.mask.c.mask_id).limit(limit))
