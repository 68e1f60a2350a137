"""Rows of the alerts: opened when something is found to hold, changed while it holds, resolved when it ends."""

from sqlalchemy import Connection, select, update

from cloudseg.catalog import tables as t
from cloudseg.catalog.session import advisory_lock, fetch, fetch_one, insert
from cloudseg.records import Alert


def lock_alerts(db: Connection) -> None:
    """Hold all alerts until the transaction ends: what one process decides to send, no other one sends."""
    advisory_lock(db, "alerts")


def add_alert(db: Connection, alert: Alert) -> bool:
    """Add an alert; return False if one of this name and subject is open, or this very one exists."""
    return insert(db, t.alert, alert)


def change_alert(db: Connection, alert: Alert) -> None:
    """Replace everything of an alert but its name, its subject and its time of opening."""
    kept = {"alert_id", "name", "subject", "opened_at"}
    values = alert.model_dump(exclude=kept)
    db.execute(update(t.alert).where(t.alert.c.alert_id == alert.alert_id).values(**values))


def find_alert(db: Connection, alert_id: str) -> Alert | None:
    """Return the alert, or None."""
    return fetch_one(db, Alert, select(t.alert).where(t.alert.c.alert_id == alert_id))


def find_open_alert(db: Connection, name: str, subject: str) -> Alert | None:
    """Return the open alert of this name and subject, or None."""
    a = t.alert.c
    return fetch_one(db, Alert, select(t.alert).where(a.name == name, a.subject == subject, a.resolved_at.is_(None)))


def has_happened(db: Connection, name: str, subject: str) -> bool:
    """Return whether there is an alert of this name and subject, open or not."""
    a = t.alert.c
    return db.execute(select(a.alert_id).where(a.name == name, a.subject == subject).limit(1)).first() is not None


def list_open_alerts(db: Connection) -> list[Alert]:
    """List the alerts that hold, the oldest first."""
    a = t.alert.c
    return fetch(db, Alert, select(t.alert).where(a.resolved_at.is_(None)).order_by(a.opened_at, a.alert_id))


def list_alerts(db: Connection, *, limit: int | None = None) -> list[Alert]:
    """List all alerts, newest first."""
    a = t.alert.c
    return fetch(db, Alert, select(t.alert).order_by(a.opened_at.desc(), a.alert_id).limit(limit))


def list_unsettled_alerts(db: Connection) -> list[Alert]:
    """List the alerts about which a message may have to be sent, the oldest first."""
    a = t.alert.c
    return fetch(db, Alert, select(t.alert).where(~a.settled).order_by(a.opened_at, a.alert_id))
