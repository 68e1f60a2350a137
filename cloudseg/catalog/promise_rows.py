"""The thresholds with a promise of weights, and the masks of scenes that are not as bright as training scenes."""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from cloudseg.catalog import tables as t
from cloudseg.catalog.session import fetch
from cloudseg.records import Evaluation, Mask, Promise

_MOST_IDS = 500
"""Ids in one statement."""


def find_promise(db: Connection, weights_id: str) -> Promise | None:
    """Return the promise of weights, None if no evaluation of them has one.

    That of the first evaluation that has one counts, and evaluations never change: a mask that is made again gets the
    same one, however many evaluations follow.
    """
    e = t.evaluation.c
    statement = select(t.evaluation).where(e.weights_id == weights_id, e.split == "held_out")
    evaluations = fetch(db, Evaluation, statement.order_by(e.created_at, e.evaluation_id))
    found = next((row.metrics["promise"] for row in evaluations if row.metrics.get("promise")), None)
    return Promise.model_validate(found) if found else None


def list_outside(db: Connection, mask_ids: Sequence[str]) -> list[tuple[Mask, str]]:
    """List those of the masks whose scene is not as bright as the training scenes, each with the name of its scene."""
    joined = t.mask.join(t.scene, t.scene.c.scene_id == t.mask.c.scene_id)
    found: list[tuple[Mask, str]] = []
    for start in range(0, len(mask_ids), _MOST_IDS):
        such = (t.mask.c.mask_id.in_(mask_ids[start : start + _MOST_IDS]), t.mask.c.radiometry == "outside")
        names = select(t.mask.c.mask_id, t.scene.c.name).select_from(joined).where(*such)
        name_of = {str(row[0]): str(row[1]) for row in db.execute(names)}
        found += [(mask, name_of[mask.mask_id]) for mask in fetch(db, Mask, select(t.mask).where(*such))]
    return found
