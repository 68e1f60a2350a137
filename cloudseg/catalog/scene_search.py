"""Search for the scene of a label, by name and by acquisition, for the masks that it may correct, and for lists."""

from collections.abc import Collection, Sequence
from datetime import datetime
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, exists, func, or_, select

from cloudseg.catalog import tables as t
from cloudseg.catalog.session import fetch, fetch_one
from cloudseg.catalog.sql_text import InCodeOrder, Like, literal_pattern
from cloudseg.records import Mask, Scene

_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)
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


def such_scenes(
    *,
    name: str | None = None,
    place: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    any_case: bool = False,
) -> list[ColumnElement[bool]]:
    """Return the conditions of a list of scenes; none of them leaves all.

    Args:
        name: name of a scene; `*` stands for any letters.
        place: place of a scene; `*` stands for any letters.
        since: first moment of acquisition; with one given, scenes without a time are left out.
        until: last moment of acquisition, included.
        any_case: compare names and places in lower case.
    """
    s = t.scene.c
    return [
        *([is_like(s.name, name, any_case=any_case)] if name is not None else []),
        *([is_like(s.place, place, any_case=any_case)] if place is not None else []),
        *([s.acquired_at >= since] if since is not None else []),
        *([s.acquired_at <= until] if until is not None else []),
    ]


def such_masks(
    of_scenes: Sequence[ColumnElement[bool]], *, min_cloud: float | None = None, max_cloud: float | None = None
) -> list[ColumnElement[bool]]:
    """Return the conditions of a list of masks; none of them leaves all.

    Args:
        of_scenes: conditions on their scenes, as `such_scenes` returns them.
        min_cloud: least fraction of cloud, 0 to 1.
        max_cloud: largest fraction of cloud.
    """
    m = t.mask.c
    return [
        *([m.scene_id.in_(select(t.scene.c.scene_id).where(*of_scenes))] if of_scenes else []),
        *([m.cloud_fraction >= min_cloud] if min_cloud is not None else []),
        *([m.cloud_fraction <= max_cloud] if max_cloud is not None else []),
    ]


def find_scenes_such(db: Connection, column: Column[Any], text: str, *, most: int) -> list[str] | None:
    """Return the ids of the scenes whose name or place is like a text, in any case; None if there are more than `most`.

    Where few are, every entry of the column's index is read, and of the table only their rows.

    Args:
        db: a transaction that reads.
        column: the name or the place of scenes.
        text: `*` stands for any letters.
        most: scenes.
    """
    such = select(column).distinct().where(is_like(column, text, any_case=True)).limit(most + 1)
    # Joined, and not `IN`, whose subquery may have no limit on other databases.
    texts = such.subquery()
    statement = select(t.scene.c.scene_id).join(texts, column == texts.c[column.name]).limit(most + 1)
    found = list(db.execute(statement).scalars())
    return found if len(found) <= most else None


def find_scenes_without_mask(db: Connection, weights_id: str, *, most: int) -> list[str] | None:
    """Return the ids of publishable scenes without a mask by weights; None if there are more than `most`."""
    statement = select(t.scene.c.scene_id).where(t.scene.c.publishable, lacks_mask(weights_id)).limit(most + 1)
    found = list(db.execute(statement).scalars())
    return found if len(found) <= most else None


def lacks_mask(weights_id: str) -> ColumnElement[bool]:
    """Return the condition that a scene has no mask by weights."""
    m = t.mask.c
    return ~exists(m.scene_id).where(m.scene_id == t.scene.c.scene_id, m.weights_id == weights_id).correlate(t.scene)


def is_like(column: ColumnElement[str], text: str, *, any_case: bool = False) -> ColumnElement[bool]:
    """Return the condition that a column is like a text in which `*` stands for any letters.

    Args:
        column: what is compared.
        text: what it is compared with.
        any_case: A to Z are equal to a to z; other letters are compared as they are, as SQLite's `lower` does.
    """
    pattern = literal_pattern(text.translate(_LOWER) if any_case else text).replace("*", "%")
    # In the order of code points PostgreSQL lowers these letters only, too.
    return Like(func.lower(InCodeOrder(column)) if any_case else column, pattern)


def list_masks_of_scene(db: Connection, scene_id: str, *, limit: int) -> list[Mask]:
    """List the masks of a scene, newest first."""
    of_scene = select(t.mask).where(t.mask.c.scene_id == scene_id)
    return fetch(db, Mask, of_scene.order_by(t.mask.c.created_at.desc(), t.mask.c.mask_id).limit(limit))
