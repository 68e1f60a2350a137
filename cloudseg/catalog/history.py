"""The history of decisions: promotions, approvals, rollbacks, verdicts against weights, switches of readers."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select

from cloudseg.catalog import model_rows, reader_rows
from cloudseg.catalog import tables as t

KINDS: Final = {
    "promote": "promoted",
    "approve": "approved",
    "rollback": "rolled back",
    "asked": "approval requested",
    "declined": "declined",
    "held": "held by the gate",
    "rejected": "rejected by the gate",
    "readers": "readers switched",
}
"""What can be decided, and how people are told. `approve`: a promotion that answers a request for approval."""
GATE: Final = "the gate"
_OF_OUTCOME: Final = {"HOLD": "held", "REJECT": "rejected"}


@dataclass(frozen=True)
class Event:
    """One decision."""

    kind: str
    """A key of `KINDS`."""
    at: datetime
    weights_id: str | None
    """None: readers see the newest champion."""
    actor: str
    reason: str
    verdict_id: str | None = None
    outcome: str | None = None
    """Of the verdict."""
    replaces_id: str | None = None
    """The champion before a promotion or a rollback."""


def list_events(db: Connection, *, limit: int | None = None) -> list[Event]:
    """List decisions, newest first."""
    found = [*_promotions(db, limit), *_manual_decisions(db, limit), *_verdicts(db, limit)]
    found += [
        Event("readers", entry.created_at, entry.weights_id, entry.actor, entry.reason)
        for entry in reader_rows.list_switches(db)
    ]
    return sorted(found, key=lambda event: (event.at, event.kind), reverse=True)[:limit]


def describe_decision_on(db: Connection, weights_id: str) -> str | None:
    """Return the newest manual decision on weights: `asked`, `declined`, or `approved` if a promotion followed it."""
    newest = next(iter(model_rows.list_decisions(db, weights_id)), None)
    if newest is None:
        return None
    p = t.promotion.c
    followed = select(p.generation).where(
        p.weights_id == weights_id, p.action == "promote", p.created_at >= newest.created_at
    )
    return "approved" if db.execute(followed.limit(1)).first() else newest.decision


def _promotions(db: Connection, limit: int | None) -> list[Event]:
    p, v, d = t.promotion.c, t.verdict.c, t.decision.c
    # All of them, whatever the limit: an older promotion may be the one that answered a request.
    outcomes = select(t.promotion, v.outcome).outerjoin(t.verdict, v.verdict_id == p.verdict_id)
    rows = db.execute(outcomes.order_by(p.generation)).all()
    asked = select(v.challenger_id, d.created_at).join(t.verdict, v.verdict_id == d.verdict_id)
    requests = sorted((row.challenger_id, row.created_at) for row in db.execute(asked.where(d.decision == "asked")))
    found = []
    for row in rows:  # the oldest first: a request is answered by the first promotion that follows it
        answered = [entry for entry in requests if entry[0] == row.weights_id and entry[1] <= row.created_at]
        kind = "approve" if answered and row.action == "promote" else row.action
        if row.action == "promote":
            requests = [entry for entry in requests if entry not in answered]
        words = (row.actor, row.reason, row.verdict_id, row.outcome, row.previous_weights_id)
        found.append(Event(kind, row.created_at, row.weights_id, *words))
    return found[-limit:] if limit else found


def _manual_decisions(db: Connection, limit: int | None) -> list[Event]:
    v, d = t.verdict.c, t.decision.c
    joined = select(t.decision, v.challenger_id, v.outcome).join(t.verdict, v.verdict_id == d.verdict_id)
    return [
        Event(row.decision, row.created_at, row.challenger_id, row.actor, row.reason, row.verdict_id, row.outcome)
        for row in db.execute(joined.order_by(d.created_at.desc(), d.verdict_id).limit(limit))
    ]


def _verdicts(db: Connection, limit: int | None) -> list[Event]:
    """Return the verdicts that were against weights."""
    v = t.verdict.c
    against = select(v.verdict_id, v.challenger_id, v.outcome, v.created_at).where(v.outcome.in_(_OF_OUTCOME))
    return [
        Event(_OF_OUTCOME[row.outcome], row.created_at, row.challenger_id, GATE, "", row.verdict_id, row.outcome)
        for row in db.execute(against.order_by(v.created_at.desc(), v.verdict_id).limit(limit))
    ]
