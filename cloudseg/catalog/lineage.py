"""From a published mask back to the labels and source files that its model learned from."""

from typing import Any

from sqlalchemy import Connection, Row, Select, literal, select

from cloudseg.catalog import tables as t
from cloudseg.catalog.label_rows import state_of
from cloudseg.catalog.model_rows import disputed_masks
from cloudseg.errors import NotInCatalog
from cloudseg.records import Json, utc_iso

_MODEL = {
    "weights": ("weights_id", "version", "architecture", "key", "sha256", "created_at"),
    "run": (
        "run_id",
        "recipe_name",
        "recipe_hash",
        "seed",
        "status",
        "device",
        "device_reason",
        "parent_weights_id",
        "finished_at",
    ),
    "snapshot": (
        "snapshot_id",
        "manifest_key",
        "manifest_sha256",
        "chip_size",
        "bands",
        "working_resolution_m",
        "created_at",
    ),
}
_SCENE = ("scene_id", "name", "sensor", "acquired_at", "place", "source_uri", "source_sha256", "key", "sha256")
_MASK = (
    "mask_id",
    "threshold",
    "cleaning",
    "cloud_fraction",
    "valid_fraction",
    "radiometry",
    "key",
    "sha256",
    "created_at",
)
_LABEL = ("label_id", "version", "source", "source_uri", "source_sha256", "key", "sha256")


def lineage_of_mask(db: Connection, mask_id: str) -> Json:
    """Return `{mask, scene, weights, run, snapshot, labels, ancestors}` of a mask as JSON values, times as ISO 8601.

    `labels` lists every label of the snapshot by split and id, each with its `split`, its `state` today and its `scene`
    (source address and checksum). `mask.disputed`: a label corrects the mask, and its scene has no newer one.
    `ancestors` lists the weights that warm starts began from, nearest first, with run and snapshot ids: their labels
    influenced the mask too. `run` and `snapshot` are None and `labels` is empty for imported weights. One query finds
    everything but the ancestors; a second, recursive one runs only for a warm start.

    Raises:
        NotInCatalog: there is no such mask.
    """
    rows = db.execute(_statement(mask_id)).all()
    if not rows:
        raise NotInCatalog("no such mask", subject=mask_id, next_step="`cloudseg masks` lists the masks.")
    first = rows[0]
    found = {name: _part(first, name, columns) for name, columns in {"mask": _MASK, "scene": _SCENE, **_MODEL}.items()}
    labels = [_label(row) for row in rows if row.label__label_id is not None]
    parent = found["run"]["parent_weights_id"] if found["run"] else None
    return {
        **found,
        "mask": {**(found["mask"] or {}), "disputed": bool(first.disputed)},
        "labels": labels,
        "ancestors": _ancestors(db, parent) if parent else [],
    }


def _statement(mask_id: str) -> Select[Any]:
    """Return the query that joins mask, scene and model with the labels of the snapshot: one row per label."""
    source = t.scene.alias("source")
    tables = {"mask": t.mask, "scene": t.scene, "weights": t.weights, "run": t.run, "snapshot": t.snapshot}
    wanted = {"mask": _MASK, "scene": _SCENE, **_MODEL}
    columns = [tables[name].c[column].label(f"{name}__{column}") for name, names in wanted.items() for column in names]
    columns += [t.label.c[column].label(f"label__{column}") for column in _LABEL]
    columns += [disputed_masks([mask_id]).exists().label("disputed")]
    columns += [state_of(t.label.c.label_id).label("label__state")]
    columns += [source.c[column].label(f"source__{column}") for column in _SCENE]
    joined = (
        t.mask.join(t.scene, t.scene.c.scene_id == t.mask.c.scene_id)
        .join(t.weights, t.weights.c.weights_id == t.mask.c.weights_id)
        .outerjoin(t.run, t.run.c.run_id == t.weights.c.run_id)
        .outerjoin(t.snapshot, t.snapshot.c.snapshot_id == t.weights.c.snapshot_id)
        .outerjoin(t.snapshot_label, t.snapshot_label.c.snapshot_id == t.snapshot.c.snapshot_id)
        .outerjoin(t.label, t.label.c.label_id == t.snapshot_label.c.label_id)
        .outerjoin(source, source.c.scene_id == t.label.c.scene_id)
    )
    statement = select(*columns, t.snapshot_label.c.split.label("label__split")).select_from(joined)
    return statement.where(t.mask.c.mask_id == mask_id).order_by(t.snapshot_label.c.split, t.label.c.label_id)


def _ancestors(db: Connection, weights_id: str) -> list[Json]:
    """Return these weights and those that that follow by `run.parent_weights_id`, nearest first."""
    w, r = t.weights.c, t.run.c
    start = select(w.weights_id, literal(1).label("generation")).where(w.weights_id == weights_id)
    line = start.cte("line", recursive=True)
    parent = t.weights.alias("parent")
    step = (
        select(parent.c.weights_id, line.c.generation + 1)
        .select_from(line.join(t.weights, w.weights_id == line.c.weights_id).join(t.run, r.run_id == w.run_id))
        .join(parent, parent.c.weights_id == r.parent_weights_id)
    )
    # UNION instead of UNION ALL would not stop a cycle (the generation differs); a parent is older than its child, so
    # there is none.
    line = line.union_all(step)
    statement = (
        select(w.weights_id, w.version, w.sha256, w.run_id, w.snapshot_id)
        .join(line, line.c.weights_id == w.weights_id)
        .order_by(line.c.generation)
    )
    return [dict(row._mapping) for row in db.execute(statement)]


def _part(row: Row[Any], name: str, columns: tuple[str, ...]) -> Json | None:
    """Return one table's columns of a joined row, None if the outer join found nothing."""
    values = {column: row._mapping[f"{name}__{column}"] for column in columns}
    if values[columns[0]] is None:
        return None
    return {
        column: utc_iso(value) if column.endswith("_at") and value is not None else value
        for column, value in values.items()
    }


def _label(row: Row[Any]) -> Json:
    return {
        **(_part(row, "label", _LABEL) or {}),
        "state": row.label__state,
        "split": row.label__split,
        "scene": _part(row, "source", _SCENE),
    }
