"""Rows that come to name objects and maintenance that deletes objects which no row names: never both at one moment.

Without this an object could go between the writer's "it is there already" and the writer's row. A transaction that
names objects calls `lock_for_publish` first and then looks whether they are there; one that deletes calls `lock_for_gc`
first and then looks which ones are named. Whoever comes second sees what the first one did. SQLite has one writer at a
time anyway.
"""

from typing import Final

from sqlalchemy import Connection, func, select

_LOCK: Final = func.hashtextextended("cloudseg objects", 0)


def lock_for_publish(db: Connection) -> None:
    """Keep maintenance from deleting until this transaction ends; others may name objects at the same time."""
    if db.dialect.name == "postgresql":
        db.execute(select(func.pg_advisory_xact_lock_shared(_LOCK)))


def lock_for_gc(db: Connection) -> None:
    """Keep everybody from naming objects until this transaction ends."""
    if db.dialect.name == "postgresql":
        db.execute(select(func.pg_advisory_xact_lock(_LOCK)))
