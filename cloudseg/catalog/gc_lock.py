"""The lock between transactions that write rows which name objects and the deletion of objects that no row names.

Without it maintenance could delete an object between the writer's check that it exists and the writer's row. A
transaction that names objects calls `lock_for_publish` and then checks that they exist; one that deletes calls
`lock_for_gc` and then checks which are named. So the second one sees the effect of the first one. SQLite has one writer
at a time and needs no lock.
"""

from typing import Final

from sqlalchemy import Connection, func, select

_LOCK: Final = func.hashtextextended("cloudseg objects", 0)


def lock_for_publish(db: Connection) -> None:
    """Keep maintenance from deleting objects until this transaction ends; others may publish at the same time."""
    if db.dialect.name == "postgresql":
        db.execute(select(func.pg_advisory_xact_lock_shared(_LOCK)))


def lock_for_gc(db: Connection) -> None:
    """Keep every other transaction from publishing until this one ends."""
    if db.dialect.name == "postgresql":
        db.execute(select(func.pg_advisory_xact_lock(_LOCK)))
