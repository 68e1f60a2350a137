"""Snapshots, runs, epochs and checkpoints."""

from sqlalchemy import Connection, delete, select, update
from sqlalchemy import insert as plain_insert

from cloudseg.catalog import tables as t
from cloudseg.catalog.removal_rows import find_retired, is_whole
from cloudseg.catalog.session import fetch, fetch_one, get_by, insert, now
from cloudseg.errors import NotInCatalog, StateError
from cloudseg.records import Checkpoint, Epoch, Run, RunStatus, Snapshot, Split


def add_snapshot(db: Connection, snapshot: Snapshot, labels: dict[str, Split]) -> bool:
    """Add a snapshot with its labels (label id to split); return False if it already exists."""
    if not insert(db, t.snapshot, snapshot):
        return False
    rows = [
        {"snapshot_id": snapshot.snapshot_id, "label_id": label_id, "split": split}
        for label_id, split in sorted(labels.items())
    ]
    if rows:  # an empty list would insert one row of defaults
        db.execute(plain_insert(t.snapshot_label), rows)
    return True


def get_snapshot(db: Connection, snapshot_id: str) -> Snapshot:
    """Return a snapshot.

    Raises:
        NotInCatalog: there is no such row.
        StateError: its chips are deleted, because a scene of it was removed.
    """
    if (retired := find_retired(db, snapshot_id)) is not None:
        raise StateError(
            "this snapshot is retired: a scene that it held was removed",
            subject=snapshot_id,
            found=f"removal {retired.removal_id}",
            next_step="Build another one: `cloudseg snapshot`.",
        )
    return get_by(db, Snapshot, t.snapshot, "snapshot_id", snapshot_id)


def list_snapshots(db: Connection, *, limit: int | None = None) -> list[Snapshot]:
    """List the snapshots that are not retired, newest first."""
    whole = select(t.snapshot).where(is_whole())
    return fetch(db, Snapshot, whole.order_by(t.snapshot.c.created_at.desc(), t.snapshot.c.snapshot_id).limit(limit))


def list_snapshot_labels(db: Connection, snapshot_id: str) -> dict[str, Split]:
    """Return the labels of a snapshot: label id to split."""
    rows = db.execute(
        select(t.snapshot_label)
        .where(t.snapshot_label.c.snapshot_id == snapshot_id)
        .order_by(t.snapshot_label.c.label_id)
    )
    return {row.label_id: row.split for row in rows}


def list_snapshots_of_label(db: Connection, label_id: str) -> list[str]:
    """List the ids of the snapshots that hold a label, newest first."""
    joined = t.snapshot_label.join(t.snapshot, t.snapshot.c.snapshot_id == t.snapshot_label.c.snapshot_id)
    statement = select(t.snapshot.c.snapshot_id).select_from(joined).where(t.snapshot_label.c.label_id == label_id)
    return list(db.execute(statement.order_by(t.snapshot.c.created_at.desc(), t.snapshot.c.snapshot_id)).scalars())


def add_run(db: Connection, run: Run) -> Run:
    """Add a run, or return the one of this id: a run begins once and is resumed afterwards."""
    insert(db, t.run, run)
    return get_run(db, run.run_id)


def get_run(db: Connection, run_id: str) -> Run:
    """Return a run.

    Raises:
        NotInCatalog: there is no such row.
    """
    return get_by(db, Run, t.run, "run_id", run_id)


def find_run(db: Connection, run_id: str) -> Run | None:
    """Return a run or None."""
    return fetch_one(db, Run, select(t.run).where(t.run.c.run_id == run_id))


def list_runs(db: Connection, *, limit: int | None = None) -> list[Run]:
    """List runs, newest first."""
    return fetch(db, Run, select(t.run).order_by(t.run.c.created_at.desc(), t.run.c.run_id).limit(limit))


def list_compared_run_ids(db: Connection) -> set[str]:
    """Return the ids of the runs whose weights have a verdict."""
    join = t.verdict.c.challenger_id == t.weights.c.weights_id
    return set(db.execute(select(t.weights.c.run_id).join(t.verdict, join)).scalars())


def set_run_status(db: Connection, run_id: str, status: RunStatus, *, error: str | None = None) -> None:
    """Write the status of a run.

    Raises:
        NotInCatalog: there is no such row.
    """
    finished_at = None if status == "running" else now()
    changed = db.execute(
        update(t.run).where(t.run.c.run_id == run_id).values(status=status, error=error, finished_at=finished_at)
    )
    if changed.rowcount == 0:
        raise NotInCatalog("no such run", subject=run_id, next_step="Begin it with add_run.")


def add_epoch(db: Connection, epoch: Epoch) -> bool:
    """Add an epoch; return False if a resumed run repeats it."""
    return insert(db, t.epoch, epoch)


def list_epochs(db: Connection, run_id: str) -> list[Epoch]:
    """List the epochs of a run in order."""
    return fetch(db, Epoch, select(t.epoch).where(t.epoch.c.run_id == run_id).order_by(t.epoch.c.epoch))


def add_checkpoint(db: Connection, checkpoint: Checkpoint) -> bool:
    """Add a checkpoint, after its object; return False if a resumed run repeats it."""
    return insert(db, t.checkpoint, checkpoint)


def list_checkpoints(db: Connection, run_id: str) -> list[Checkpoint]:
    """List the checkpoints of a run, newest first."""
    return fetch(
        db, Checkpoint, select(t.checkpoint).where(t.checkpoint.c.run_id == run_id).order_by(t.checkpoint.c.step.desc())
    )


def delete_checkpoint(db: Connection, run_id: str, step: int) -> None:
    """Delete the row of a checkpoint; maintenance deletes its object."""
    db.execute(delete(t.checkpoint).where(t.checkpoint.c.run_id == run_id, t.checkpoint.c.step == step))
