"""Scenes that two models have masked."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, select

from cloudseg.catalog import tables as t


class MaskedTwice(NamedTuple):
    """A scene with its masks by two models: only ids and facts, so that a list of many scenes is small."""

    scene_id: str
    name: str
    place: str
    sensor: str
    acquired_at: datetime | None
    before_mask_id: str
    after_mask_id: str


def list_masked_twice(
    db: Connection, before: str, after: str, *, scene_ids: Sequence[str] = (), limit: int
) -> list[MaskedTwice]:
    """List scenes that both weights have masked, latest acquisition first.

    Args:
        db: the catalog.
        before: weights.
        after: other weights.
        scene_ids: only these scenes; none: all.
        limit: maximum number of scenes.
    """
    old, new, s = t.mask.alias("old"), t.mask.alias("new"), t.scene.c
    statement = (
        select(s.scene_id, s.name, s.place, s.sensor, s.acquired_at, old.c.mask_id, new.c.mask_id)
        .join(old, old.c.scene_id == s.scene_id)
        .join(new, new.c.scene_id == s.scene_id)
        .where(old.c.weights_id == before, ~old.c.is_variant, new.c.weights_id == after, ~new.c.is_variant)
        .order_by(s.acquired_at.is_(None), s.acquired_at.desc(), s.scene_id)
        .limit(limit)
    )
    rows = db.execute(statement.where(s.scene_id.in_(scene_ids)) if scene_ids else statement)
    return [MaskedTwice(*row) for row in rows]
