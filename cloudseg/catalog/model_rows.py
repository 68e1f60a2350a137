"""Weights, evaluations, verdicts, promotions and masks."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Connection, Select, Text, column, func, select, table

from cloudseg.catalog import tables as t
from cloudseg.catalog.session import fetch, fetch_one, get_by, insert
from cloudseg.errors import StateError
from cloudseg.records import Decision, Evaluation, Mask, Promotion, Split, Verdict, Weights

_PAGE = 1000
"""Values in one statement; SQLite allows 32 766 (sqlite.org/limits.html)."""


def add_weights(db: Connection, weights: Weights) -> Weights:
    """Register weights under the next version (`weights.version` is overwritten), or return the row that exists.

    If another transaction took that version first, the next one is tried.

    Raises:
        StateError: the run has registered other weights.
    """
    while (
        known := fetch_one(db, Weights, select(t.weights).where(t.weights.c.weights_id == weights.weights_id))
    ) is None:
        other = find_weights_of_run(db, weights.run_id) if weights.run_id is not None else None
        if other is not None:
            raise StateError(
                "the run has registered other weights",
                subject=weights.run_id or "",
                found=other.weights_id,
                expected=weights.weights_id,
                next_step="Use those weights, or train again under another run id.",
            )
        newest = db.execute(select(func.max(t.weights.c.version))).scalar()
        insert(db, t.weights, weights.model_copy(update={"version": (newest or 0) + 1}))
    return known


def get_weights(db: Connection, weights_id: str) -> Weights:
    """Return weights.

    Raises:
        NotInCatalog: there is no such row.
    """
    return get_by(db, Weights, t.weights, "weights_id", weights_id)


def find_weights_of_run(db: Connection, run_id: str) -> Weights | None:
    """Return the weights of a run, or None."""
    return fetch_one(db, Weights, select(t.weights).where(t.weights.c.run_id == run_id))


def list_weights(db: Connection, *, limit: int | None = None) -> list[Weights]:
    """List weights, newest version first."""
    return fetch(db, Weights, select(t.weights).order_by(t.weights.c.version.desc()).limit(limit))


def list_versions(db: Connection) -> dict[str, int]:
    """Return the version of all weights by id."""
    w = t.weights.c
    return {row.weights_id: row.version for row in db.execute(select(w.weights_id, w.version))}


def add_evaluation(db: Connection, evaluation: Evaluation) -> Evaluation:
    """Add an evaluation, or return the one that exists: the same weights are evaluated once on the same chips."""
    insert(db, t.evaluation, evaluation)
    return get_evaluation(db, evaluation.evaluation_id)


def get_evaluation(db: Connection, evaluation_id: str) -> Evaluation:
    """Return an evaluation.

    Raises:
        NotInCatalog: there is no such row.
    """
    return get_by(db, Evaluation, t.evaluation, "evaluation_id", evaluation_id)


def find_evaluation(db: Connection, weights_id: str, snapshot_id: str, split: Split) -> Evaluation | None:
    """Return the evaluation of weights on a split, or None."""
    e = t.evaluation.c
    return fetch_one(
        db,
        Evaluation,
        select(t.evaluation).where(e.weights_id == weights_id, e.snapshot_id == snapshot_id, e.split == split),
    )


def list_evaluations(db: Connection, weights_id: str) -> list[Evaluation]:
    """List the evaluations of weights, newest first."""
    return fetch(
        db,
        Evaluation,
        select(t.evaluation)
        .where(t.evaluation.c.weights_id == weights_id)
        .order_by(t.evaluation.c.created_at.desc(), t.evaluation.c.evaluation_id),
    )


def add_verdict(db: Connection, verdict: Verdict) -> bool:
    """Add a verdict; return False if it already exists."""
    return insert(db, t.verdict, verdict)


def get_verdict(db: Connection, verdict_id: str) -> Verdict:
    """Return a verdict.

    Raises:
        NotInCatalog: there is no such row.
    """
    return get_by(db, Verdict, t.verdict, "verdict_id", verdict_id)


def list_verdicts(db: Connection, *, challenger_id: str | None = None, limit: int | None = None) -> list[Verdict]:
    """List verdicts, all of them or those about one challenger, newest first."""
    statement = select(t.verdict).order_by(t.verdict.c.created_at.desc(), t.verdict.c.verdict_id).limit(limit)
    return fetch(
        db, Verdict, statement if challenger_id is None else statement.where(t.verdict.c.challenger_id == challenger_id)
    )


def find_verdict(db: Connection, challenger_id: str) -> Verdict | None:
    """Return the newest verdict about a challenger, or None."""
    return next(iter(list_verdicts(db, challenger_id=challenger_id, limit=1)), None)


def add_decision(db: Connection, decision: Decision) -> bool:
    """Add a manual decision on a verdict; return False if it already exists."""
    return insert(db, t.decision, decision)


def list_decisions(db: Connection, challenger_id: str) -> list[Decision]:
    """List decisions on any verdict about these weights, newest first."""
    of_weights = select(t.decision).join(t.verdict).where(t.verdict.c.challenger_id == challenger_id)
    return fetch(
        db,
        Decision,
        of_weights.order_by(t.decision.c.created_at.desc(), t.decision.c.verdict_id, t.decision.c.decision.desc()),
    )


def find_champion(db: Connection) -> Promotion | None:
    """Return the newest promotion, whose weights are the champion, or None before the first."""
    return fetch_one(db, Promotion, select(t.promotion).order_by(t.promotion.c.generation.desc()))


def list_promotions(db: Connection) -> list[Promotion]:
    """List the history of the champion, newest first."""
    return fetch(db, Promotion, select(t.promotion).order_by(t.promotion.c.generation.desc()))


def add_promotion(db: Connection, promotion: Promotion) -> bool:
    """Add a generation; return False where another promotion took it first."""
    return insert(db, t.promotion, promotion)


def add_mask(db: Connection, mask: Mask) -> bool:
    """Add a mask, after its objects; return False if it already exists.

    `mask.is_variant` is overwritten: the first mask of a scene by its weights is the one that readers see.
    """
    if insert(db, t.mask, mask.model_copy(update={"is_variant": False})):
        return True
    return find_mask_by_id(db, mask.mask_id) is None and insert(
        db, t.mask, mask.model_copy(update={"is_variant": True})
    )


def find_mask(db: Connection, scene_id: str, weights_id: str) -> Mask | None:
    """Return the mask of a scene by certain weights that readers see, or None; no variant of it."""
    m = t.mask.c
    statement = select(t.mask).where(m.scene_id == scene_id, m.weights_id == weights_id, ~m.is_variant)
    return fetch_one(db, Mask, statement)


def find_masked(db: Connection, weights_id: str, scene_ids: Sequence[str], *, cleaning: str | None = None) -> set[str]:
    """Return those of the scenes that have a mask by these weights.

    Args:
        db: the catalog.
        weights_id: the weights.
        scene_ids: the scenes.
        cleaning: only masks that were cleaned just so (`Mask.cleaning`).
    """
    m, found = t.mask.c, set[str]()
    such = [] if cleaning is None else [m.cleaning == cleaning]
    for at in range(0, len(scene_ids), _PAGE):
        asked = scene_ids[at : at + _PAGE]
        of_scenes = select(m.scene_id).where(m.weights_id == weights_id, m.scene_id.in_(asked), *such)
        found.update(db.execute(of_scenes).scalars())
    return found


def find_mask_by_id(db: Connection, mask_id: str) -> Mask | None:
    """Return a mask or None."""
    return fetch_one(db, Mask, select(t.mask).where(t.mask.c.mask_id == mask_id))


def find_mask_of_scene(db: Connection, scene_id: str) -> Mask | None:
    """Return the newest mask of a scene by any weights, or None; no variant."""
    statement = select(t.mask).where(t.mask.c.scene_id == scene_id, ~t.mask.c.is_variant)
    return fetch_one(db, Mask, statement.order_by(t.mask.c.created_at.desc(), t.mask.c.mask_id))


def find_disputed(db: Connection, mask_ids: Sequence[str]) -> set[str]:
    """Return those of the masks that are disputed."""
    found = set[str]()
    for at in range(0, len(mask_ids), _PAGE):
        found.update(db.execute(disputed_masks(mask_ids[at : at + _PAGE])).scalars())
    return found


def disputed_masks(mask_ids: Sequence[str]) -> Select[Any]:
    """Return the query for those of the masks that are disputed, as the view `published_mask` defines it."""
    view = table("published_mask", column("mask_id", Text), column("disputed", Boolean))
    return select(view.c.mask_id).where(view.c.mask_id.in_(mask_ids), view.c.disputed)


def get_mask(db: Connection, mask_id: str) -> Mask:
    """Return a mask.

    Raises:
        NotInCatalog: there is no such row.
    """
    return get_by(db, Mask, t.mask, "mask_id", mask_id)


def list_masks(
    db: Connection,
    *,
    weights_id: str | None = None,
    such: Sequence[ColumnElement[bool]] = (),
    limit: int | None = None,
) -> list[Mask]:
    """List masks, all or such as `scene_search.such_masks` says, newest first."""
    statement = select(t.mask).where(*such).order_by(t.mask.c.created_at.desc(), t.mask.c.mask_id).limit(limit)
    return fetch(db, Mask, statement if weights_id is None else statement.where(t.mask.c.weights_id == weights_id))
