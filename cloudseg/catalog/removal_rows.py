"""Removal of a scene: what the catalog holds of it, the deletion of those rows, and the row that remains.

The row that remains (`removal`) names the scene by its id and by the hash of its source only. It keeps the same bytes
from being ingested again. Snapshots that held the scene are retired: their row stays for the lineage of the weights,
their manifest and chips are deleted.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, func, select, update

from cloudseg.catalog import tables as t
from cloudseg.catalog.session import fetch, fetch_one, insert, now
from cloudseg.errors import NotInCatalog
from cloudseg.records import Evaluation, Json, Label, Mask, Removal, RetiredSnapshot, Scene, Snapshot, Split, Weights


@dataclass(frozen=True)
class Holdings:
    """Every row that was made from a scene."""

    scene: Scene
    labels: list[Label]
    masks: list[Mask]
    quarantine_ids: list[str]
    """Entries for the scene's files and for those of its labels."""
    snapshots: list[Snapshot]
    """Those that hold a label of the scene and are not retired yet."""
    splits: dict[str, Split]
    """By snapshot id: the split in which it held the scene."""
    label_counts: dict[str, int]
    """By snapshot id: how many labels of the scene it held."""
    evaluations: list[Evaluation]
    """On these snapshots and that split: their reports name the scene and may show it."""
    golden: list[Weights]
    """Weights whose golden sample may be a chip of the scene: it is one of their validation places."""


def find_holdings(db: Connection, scene_id: str) -> Holdings | None:
    """Return what the catalog holds of a scene, or None if there is no such scene."""
    scene = fetch_one(db, Scene, select(t.scene).where(t.scene.c.scene_id == scene_id))
    if scene is None:
        return None
    labels = fetch(db, Label, select(t.label).where(t.label.c.scene_id == scene_id).order_by(t.label.c.version))
    masks = fetch(db, Mask, select(t.mask).where(t.mask.c.scene_id == scene_id).order_by(t.mask.c.mask_id))
    held = t.snapshot_label.c
    of_snapshots = select(held.snapshot_id, held.split, func.count().label("labels")).where(
        held.label_id.in_([label.label_id for label in labels])
    )
    rows = db.execute(of_snapshots.group_by(held.snapshot_id, held.split)).all()
    splits: dict[str, Split] = {row.snapshot_id: row.split for row in rows}
    s, w = t.snapshot.c, t.weights.c
    snapshots = fetch(
        db,
        Snapshot,
        select(t.snapshot).where(s.snapshot_id.in_(list(splits)), is_whole()).order_by(s.snapshot_id),
    )
    of_validation = [snapshot_id for snapshot_id, split in splits.items() if split == "validation"]
    e = t.evaluation.c
    # In order, so that two reads of the same rows are equal (`cloudseg.stages.remove`).
    on_these = select(t.evaluation).where(e.snapshot_id.in_(list(splits))).order_by(e.evaluation_id)
    evaluations = fetch(db, Evaluation, on_these)
    uris = _uris(scene, labels)
    q = t.quarantine.c
    return Holdings(
        scene=scene,
        labels=labels,
        masks=masks,
        quarantine_ids=list(
            db.execute(select(q.quarantine_id).where(q.source_uri.in_(uris)).order_by(q.quarantine_id)).scalars()
        ),
        snapshots=snapshots,
        splits=splits,
        label_counts={row.snapshot_id: row.labels for row in rows},
        evaluations=[entry for entry in evaluations if entry.split == splits[entry.snapshot_id]],
        golden=fetch(db, Weights, select(t.weights).where(w.snapshot_id.in_(of_validation)).order_by(w.version)),
    )


def delete_rows(db: Connection, held: Holdings) -> None:
    """Delete every row of a scene; what refers to a row is deleted before it."""
    scene_id, label_ids = held.scene.scene_id, [label.label_id for label in held.labels]
    evaluation_ids = [entry.evaluation_id for entry in held.evaluations]
    db.execute(delete(t.evaluation).where(t.evaluation.c.evaluation_id.in_(evaluation_ids)))
    db.execute(delete(t.snapshot_label).where(t.snapshot_label.c.label_id.in_(label_ids)))
    db.execute(delete(t.label_event).where(t.label_event.c.label_id.in_(label_ids)))
    db.execute(delete(t.label).where(t.label.c.scene_id == scene_id))
    db.execute(delete(t.backfill_scene).where(t.backfill_scene.c.scene_id == scene_id))
    db.execute(delete(t.prediction_lease).where(t.prediction_lease.c.scene_id == scene_id))
    db.execute(delete(t.mask).where(t.mask.c.scene_id == scene_id))
    db.execute(delete(t.quarantine).where(t.quarantine.c.quarantine_id.in_(held.quarantine_ids)))
    db.execute(
        delete(t.quarantine_release).where(t.quarantine_release.c.source_uri.in_(_uris(held.scene, held.labels)))
    )
    db.execute(delete(t.scene_brightness).where(t.scene_brightness.c.scene_id == scene_id))
    # One that still holds is opened again, without the scene, when it is next looked for.
    db.execute(delete(t.alert).where(t.alert.c.alert_id.in_(_alerts_that_name(db, held))))
    db.execute(delete(t.scene).where(t.scene.c.scene_id == scene_id))


def _alerts_that_name(db: Connection, held: Holdings) -> list[str]:
    """Return the ids of alerts that name a scene or one of its objects.

    A name counts as a whole word only: alerts about `scene_12` are none about `scene_1`. The sentence of an alert is
    made of its facts, so these suffice.
    """
    stored: list[Scene | Label | Mask] = [held.scene, *held.labels, *held.masks]
    words = sorted({held.scene.scene_id, held.scene.name, *(row.key for row in stored)})
    named = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)")
    a = t.alert.c
    rows = db.execute(select(a.alert_id, a.subject, a.link, a.facts))
    return [row.alert_id for row in rows if any(map(named.search, _texts([row.subject, row.link, row.facts])))]


def _texts(value: object) -> Iterator[str]:
    """Yield the values of a JSON value as text."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
    else:
        yield str(value)


def _uris(scene: Scene, labels: Sequence[Label]) -> list[str]:
    return sorted({scene.source_uri, *(label.source_uri for label in labels)})


def add_removal(db: Connection, removal: Removal, held: Holdings) -> None:
    """Add the row of a removal, and retire the snapshots that held the scene, also those of an earlier removal."""
    insert(db, t.removal, removal)
    for snapshot_id, count in sorted(held.label_counts.items()):
        row = RetiredSnapshot(
            snapshot_id=snapshot_id,
            removal_id=removal.removal_id,
            labels=count,
            created_at=removal.created_at,
        )
        insert(db, t.retired_snapshot, row)


def replace_assets(db: Connection, weights_id: str, companions: Json) -> None:
    """Write which assets weights have."""
    db.execute(update(t.weights).where(t.weights.c.weights_id == weights_id).values(companions=companions))


def set_finished(db: Connection, removal_id: str) -> None:
    """Record that nothing of the scene is left: the keys that were to be deleted are forgotten, too."""
    db.execute(
        update(t.removal)
        .where(t.removal.c.removal_id == removal_id, t.removal.c.finished_at.is_(None))
        .values(pending=None, finished_at=now())
    )


def lift(db: Connection, removal_id: str, *, actor: str, reason: str) -> Removal:
    """Allow the removed bytes to be ingested again; a removal that was lifted before keeps its row."""
    db.execute(
        update(t.removal)
        .where(t.removal.c.removal_id == removal_id, t.removal.c.lifted_at.is_(None))
        .values(lifted_at=now(), lifted_by=actor, lift_reason=reason)
    )
    found = fetch_one(db, Removal, select(t.removal).where(t.removal.c.removal_id == removal_id))
    if found is None:
        raise NotInCatalog("no such removal", subject=removal_id, next_step="`cloudseg remove list` lists them.")
    return found


def find_standing(db: Connection, source_sha256: str) -> Removal | None:
    """Return the removal that keeps these source bytes out, or None."""
    r = t.removal.c
    standing = select(t.removal).where(r.source_sha256 == source_sha256, r.lifted_at.is_(None))
    return fetch_one(db, Removal, standing.order_by(r.created_at.desc(), r.removal_id))


def list_of_scene(db: Connection, scene_id: str) -> list[Removal]:
    """List the removals of a scene, newest first; there are several if one was lifted."""
    r = t.removal.c
    return fetch(
        db, Removal, select(t.removal).where(r.scene_id == scene_id).order_by(r.created_at.desc(), r.removal_id)
    )


def list_removals(db: Connection, *, limit: int | None = None, unfinished: bool = False) -> list[Removal]:
    """List removals, newest first; with `unfinished` those whose bytes are not all deleted yet."""
    r = t.removal.c
    wanted = select(t.removal).order_by(r.created_at.desc(), r.removal_id).limit(limit)
    return fetch(db, Removal, wanted.where(r.finished_at.is_(None)) if unfinished else wanted)


def is_whole() -> ColumnElement[bool]:
    """Return the condition that a snapshot is not retired."""
    return t.snapshot.c.snapshot_id.not_in(select(t.retired_snapshot.c.snapshot_id))


def find_retired(db: Connection, snapshot_id: str) -> RetiredSnapshot | None:
    """Return why a snapshot is retired, or None."""
    retired = t.retired_snapshot
    return fetch_one(db, RetiredSnapshot, select(retired).where(retired.c.snapshot_id == snapshot_id))


def count_removed_labels(db: Connection, snapshot_id: str | None) -> int:
    """Count the labels that a snapshot lost to removals."""
    retired = t.retired_snapshot.c
    lost = select(func.coalesce(func.sum(retired.labels), 0)).where(retired.snapshot_id == snapshot_id)
    return int(db.execute(lost).scalar_one())


def find_oldest_removal(db: Connection, snapshot_id: str | None) -> datetime | None:
    """Return when a snapshot first lost a label to a removal, None if it lost none."""
    retired = t.retired_snapshot.c
    lost = select(func.min(retired.created_at)).where(retired.snapshot_id == snapshot_id, retired.labels > 0)
    return db.execute(lost).scalar()


def list_snapshots_retired_by(db: Connection, removal_id: str) -> list[str]:
    """List the ids of the snapshots that a removal retired."""
    retired = t.retired_snapshot.c
    found = select(retired.snapshot_id).where(retired.removal_id == removal_id).order_by(retired.snapshot_id)
    return list(db.execute(found).scalars())


def list_taught(db: Connection, snapshot_ids: Collection[str]) -> tuple[list[str], list[str]]:
    """List the weights that snapshots taught, by version.

    Returns:
        Those trained on one of them, and those whose warm start began, over any number of weights, from such ones.
    """
    w = t.weights.c
    rows = db.execute(
        select(w.weights_id, w.snapshot_id, t.run.c.parent_weights_id)
        .select_from(t.weights.outerjoin(t.run, t.run.c.run_id == w.run_id))
        .order_by(w.version)
    ).all()
    direct = [row.weights_id for row in rows if row.snapshot_id in snapshot_ids]
    return direct, _descendants([(row.weights_id, row.parent_weights_id) for row in rows], direct)


def _descendants(parents: Sequence[tuple[str, str | None]], direct: Sequence[str]) -> list[str]:
    """Return who descends from the direct ones; a parent has a lower version, so one pass suffices."""
    taught, found = set(direct), []
    for weights_id, parent in parents:
        if parent in taught and weights_id not in taught:
            taught.add(weights_id)
            found.append(weights_id)
    return found
