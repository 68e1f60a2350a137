"""Whose masks readers see, now and at any moment before: the append-only switch, and which mask follows which.

The newest decision in effect names weights; without one, or where it says `newest`, they are the newest champion. The
views `reader_model`, `current_mask` and `mask_version` and the function `mask_as_of` are the same for SQL clients.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    ScalarSelect,
    Select,
    Text,
    and_,
    column,
    exists,
    func,
    or_,
    select,
    table,
    text,
)

from cloudseg.catalog import tables as t
from cloudseg.catalog.planner import NotByIndex
from cloudseg.catalog.session import fetch, fetch_one, insert, now
from cloudseg.errors import NotInCatalog
from cloudseg.records import Mask, ReaderSwitch, utc_iso

_PAGE: Final = 1000
"""Values in one statement; SQLite allows 32 766 (sqlite.org/limits.html)."""


class MaskVersion(NamedTuple):
    """A mask between those of the same scene before and after it (the view `mask_version`)."""

    mask_id: str
    predecessor_mask_id: str | None
    """By the next older model that was ever champion or shown to readers."""
    successor_mask_id: str | None
    """By the next newer one."""
    current_mask_id: str | None
    """The mask of the scene that readers see now, None if they see none."""
    is_current: bool


def list_switches(db: Connection) -> list[ReaderSwitch]:
    """List the decisions, newest first."""
    return fetch(db, ReaderSwitch, select(t.reader_switch).order_by(t.reader_switch.c.sequence.desc()))


def add_switch(db: Connection, switch: ReaderSwitch) -> bool:
    """Add a decision; return False where another one took its sequence first."""
    return insert(db, t.reader_switch, switch)


def find_switch(db: Connection, moment: datetime | None = None) -> ReaderSwitch | None:
    """Return the decision that is in effect at a moment, by default now, or None."""
    r = t.reader_switch.c
    statement = select(t.reader_switch).where(_in_effect(moment)).order_by(r.sequence.desc())
    return fetch_one(db, ReaderSwitch, statement)


def find_shown(db: Connection, moment: datetime | None = None) -> str | None:
    """Return the id of the weights whose masks readers see at a moment, by default now; None before any champion."""
    found: str | None = db.execute(select(shown_weights(moment))).scalar()
    return found


def get_shown(db: Connection, moment: datetime | None = None) -> str:
    """Return the id of the weights whose masks readers see at a moment, by default now.

    Raises:
        NotInCatalog: no weights had been promoted.
    """
    found = find_shown(db, moment)
    if found is None:
        raise NotInCatalog(
            "there is no champion yet" if moment is None else "there was no champion then",
            subject="champion" if moment is None else f"as of {utc_iso(moment)}",
            next_step="Run `cloudseg retrain`, or name the weights of the masks with --weights.",
        )
    return found


def list_ever_shown(db: Connection, moment: datetime | None = None) -> set[str]:
    """Return the ids of the weights that were champion or that a decision named until a moment, by default now."""
    p, r = t.promotion.c, t.reader_switch.c
    champions, named = select(p.weights_id), select(r.weights_id).where(r.weights_id.is_not(None))
    if moment is not None:
        champions, named = champions.where(p.created_at <= moment), named.where(r.created_at <= moment)
    return set(db.execute(champions.union(named)).scalars())


def shown_weights(moment: datetime | None = None) -> ScalarSelect[Any]:
    """Return the query for the id of the weights whose masks readers see at a moment, by default now."""
    r, p = t.reader_switch.c, t.promotion.c
    switched = select(r.weights_id).where(_in_effect(moment)).order_by(r.sequence.desc()).limit(1).scalar_subquery()
    champion = select(p.weights_id).order_by(p.generation.desc()).limit(1)
    if moment is not None:
        champion = champion.where(p.created_at <= moment)
    return select(func.coalesce(switched, champion.scalar_subquery())).scalar_subquery()


def shown_masks(moment: datetime | None = None) -> Select[Any]:
    """Return the query for the masks that readers see at a moment, by default now: at most one for each scene."""
    statement = select(t.mask).where(t.mask.c.weights_id == shown_weights(moment), ~t.mask.c.is_variant)
    return statement if moment is None else statement.where(t.mask.c.created_at <= moment)


def list_shown_masks(
    db: Connection,
    moment: datetime | None = None,
    *,
    such: Sequence[ColumnElement[bool]] = (),
    limit: int | None = None,
) -> list[Mask]:
    """List the masks that readers see at a moment, by default now: all or such as `scene_search.such_masks` says."""
    newest_first = (t.mask.c.created_at.desc(), t.mask.c.mask_id)
    return fetch(db, Mask, shown_masks(moment).where(*such).order_by(*newest_first).limit(limit))


def count_shown(db: Connection, moment: datetime | None = None) -> int:
    """Count the masks that readers see at a moment, by default now."""
    return db.execute(select(func.count()).select_from(shown_masks(moment).subquery())).scalar_one()


def count_masks(db: Connection, weights_id: str) -> int:
    """Count the masks of weights, without variants."""
    # SQLite takes the partial index `ix_mask_main` for exactly this condition, and reads no row.
    of_weights = (NotByIndex(t.mask.c.weights_id) == weights_id, text("NOT mask.is_variant"))
    return db.execute(select(func.count()).select_from(t.mask).where(*of_weights)).scalar_one()


def count_lost(db: Connection, before: str, after: str) -> int:
    """Count the scenes that have a mask by the weights `before` and none by `after`: readers would lose these."""
    other = t.mask.alias("other")
    kept = exists(other.c.scene_id).where(and_(other.c.scene_id == t.mask.c.scene_id, other.c.weights_id == after))
    return db.execute(
        select(func.count()).where(t.mask.c.weights_id == before, ~t.mask.c.is_variant, ~kept)
    ).scalar_one()


def find_versions(db: Connection, mask_ids: Sequence[str]) -> dict[str, MaskVersion]:
    """Return by mask id what came before and after each mask."""
    ids = [column(name, Text) for name in MaskVersion._fields[:-1]]
    view = table("mask_version", *ids, column("is_current", Boolean))
    found: dict[str, MaskVersion] = {}
    for at in range(0, len(mask_ids), _PAGE):
        rows = db.execute(select(view).where(view.c.mask_id.in_(mask_ids[at : at + _PAGE])))
        found.update((row.mask_id, MaskVersion(*row)) for row in rows)
    return found


def _in_effect(moment: datetime | None) -> Any:
    r = t.reader_switch.c
    if moment is not None:
        return r.effective_at <= moment
    # A decision that is in effect as soon as it is made does not depend on this machine's clock.
    return or_(r.effective_at <= r.created_at, r.effective_at <= now())
