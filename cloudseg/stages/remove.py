"""Stages: remove a scene with everything that was made from it, allow it again, list the removals.

The order is that of every deletion: rows first, objects after them. One transaction deletes all rows and adds the one
that remains (`removal`), with the keys that are still to be deleted; so a process killed anywhere leaves either
everything, or no row of the scene and the list of what to delete. The same command, or `cloudseg maintain --apply`,
goes on from there. docs/decisions/0038_removal.md says what is deleted and why weights stay.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from cloudseg.catalog import names, removal_rows, stac_rows
from cloudseg.catalog.gc_lock import lock_for_gc
from cloudseg.catalog.removal_rows import Holdings
from cloudseg.catalog.session import now
from cloudseg.dataset.manifest import Manifest
from cloudseg.errors import InputError, NotInCatalog, ObjectCorrupt, ObjectMissing, StateError
from cloudseg.keys import make_id, stac_item, stac_thumbnail
from cloudseg.publish import StagedObject, put_all
from cloudseg.records import Json, Label, Mask, Removal, RemoveRecord, Scene, Snapshot, StoredObject, Weights
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import log
from cloudseg.stages.references import find_named
from cloudseg.stages.verification import load_verification, save_verification

_log = logging.getLogger(__name__)
_BATCH = 100
"""Objects that are deleted under one lock, while no row can be written, as in maintenance."""
_LEAST = len("sc-") + 8
"""Characters of the beginning of an id: 32 bits, so that a slip of a digit hardly ever means another scene."""


@dataclass(frozen=True)
class _Plan:
    """What a removal deletes."""

    held: Holdings
    objects: dict[str, int]
    """Bytes by key."""
    golden: dict[str, dict[str, StagedObject]]
    """By weights id: the golden sample and the item that replace those which may show the scene."""


def remove_scene(name: str, *, reason: str, actor: str = "cli", dry_run: bool = False) -> RemoveRecord:
    """Remove a scene and everything that was made from it, and keep the same bytes from being ingested again.

    Its canonical raster, labels with their history, masks of all models with their assets, entries of the quarantine,
    reports of evaluations that used it, the manifest and chips of every snapshot that held it, golden samples that may
    show it, its documents and pictures in the static STAC catalog. Weights that were trained on it stay, and are
    listed. Its files in the inbox, exports and backups are not touched. Running it again completes an interrupted
    removal and changes nothing else.

    Args:
        name: id or name of the scene, or the beginning of its id, 11 characters at least, if no other scene, removed
            ones included, begins like that; after its removal only the id is known.
        reason: why, for the row that remains.
        actor: who decides.
        dry_run: only report.

    Raises:
        InputError: there is no reason, or the name is not unique or too short a beginning.
        NotInCatalog: there is no such scene, and none of this id was removed.
        SettingsError: the database user may not delete scenes, or torch, which a golden sample needs, is missing.
    """
    if not reason.strip():
        raise InputError("a scene is removed for a reason", subject=name, next_step="Pass --reason.")
    log.started("remove_scene", scene=name, reason=reason, actor=actor, dry_run=dry_run)
    runtime = open_runtime()
    scene_id, removed = _find_scene(runtime, name)
    if removed:
        record = _complete(runtime, scene_id, dry_run=dry_run)
    elif dry_run:
        record = _describe(runtime, _plan(runtime, scene_id), None)
    else:
        record = _remove(runtime, scene_id, actor, reason.strip())
    log.ended("remove_scene", record)
    return record


def lift_removal(scene_id: str, *, reason: str, actor: str = "cli") -> Json:
    """Allow the bytes of a removed scene to be ingested again; nothing that was deleted comes back.

    Args:
        scene_id: id of the scene, or the beginning of one.
        reason: why.
        actor: who decides.

    Raises:
        InputError: there is no reason, or several ids of removed scenes begin like this.
        NotInCatalog: no scene of this id was removed.
        StateError: its removal is not complete.
    """
    if not reason.strip():
        raise InputError("a removal is lifted for a reason", subject=scene_id, next_step="Pass --reason.")
    runtime = open_runtime()
    with runtime.catalog.begin() as db:
        scene_id = names.get_id(db, "removal", scene_id)
        removal = removal_rows.list_of_scene(db, scene_id)[0]
        if removal.finished_at is None:
            raise StateError(
                "this removal is not complete",
                subject=scene_id,
                next_step=f"Complete it first: `cloudseg remove scene {scene_id} --reason …`.",
            )
        return removal_rows.lift(db, removal.removal_id, actor=actor, reason=reason.strip()).as_json()


def list_removals(*, limit: int | None = 20) -> list[Json]:
    """List removals, newest first, with the snapshots that each retired and the weights that were trained on those."""
    found = []
    with open_runtime().catalog.read() as db:
        for removal in removal_rows.list_removals(db, limit=limit):
            snapshots = removal_rows.list_snapshots_retired_by(db, removal.removal_id)
            weights, descendants = removal_rows.list_taught(db, snapshots)
            row = removal.as_json()
            row.pop("pending")
            found.append({**row, "snapshots": snapshots, "weights": weights, "descendants": descendants})
    return found


def finish_removals(runtime: Runtime, *, dry_run: bool) -> int:
    """Complete the removals that were interrupted after their rows were deleted; return how many there are."""
    with runtime.catalog.read() as db:
        unfinished = removal_rows.list_removals(db, unfinished=True)
    for removal in () if dry_run else unfinished:
        _log.warning("the removal of scene %s was interrupted: its objects are deleted now", removal.scene_id)
        _finish(runtime, removal)
    return len(unfinished)


def _find_scene(runtime: Runtime, name: str) -> tuple[str, bool]:
    """Return the id of the scene that is meant, and whether it was removed before.

    Raises:
        InputError: several scenes have this name, or several ids begin like this, those of removed scenes included, or
            the beginning is too short.
        NotInCatalog: there is no such scene, and none of this id was removed.
    """
    with runtime.catalog.read() as db:
        try:
            scene_id = names.get_id(db, "scene", name)
        except NotInCatalog as unknown:
            try:
                return names.get_id(db, "removal", name), True
            except NotInCatalog:
                raise NotInCatalog(
                    "no such scene, and none of this id was removed",
                    subject=name,
                    next_step=f"{unknown.next_step} `cloudseg remove list` lists the removals.",
                ) from unknown
        # Not so for an exact name: a name may look like the beginning of an id.
        meant = scene_id != name and scene_id.startswith(name)
        removed = [choice.text for choice in names.list_beginning(db, "removal", name)] if meant else []
    if meant and len(name) < _LEAST:
        raise InputError(
            "too short a beginning of an id for what does not come back",
            subject=name,
            found=f"it would be {scene_id}",
            expected=f"at least {_LEAST} characters",
            next_step="Write the id as a whole, or the name of the scene.",
        )
    if other := [found for found in removed if found != scene_id]:
        raise InputError(
            "several scenes begin like this, removed ones among them",
            subject=name,
            found=", ".join([scene_id, *other]),
            next_step="Write more of the id.",
        )
    return scene_id, False


# --- what goes --------------------------------------------------------------------------------------------------------


def _plan(runtime: Runtime, scene_id: str) -> _Plan:
    with runtime.catalog.read() as db:
        held = removal_rows.find_holdings(db, scene_id)
    if held is None:  # another process removed it a moment ago
        raise NotInCatalog("no such scene", subject=scene_id, next_step="Call it again.")
    golden = {weights.weights_id: fresh for weights in held.golden if (fresh := _golden_without(runtime, weights))}
    rows: list[Scene | Label | Mask] = [held.scene, *held.labels, *held.masks]
    stored = [StoredObject(key=row.key, sha256=row.sha256, size=row.size) for row in rows]
    for assets in (*(mask.companions for mask in held.masks), *(entry.report for entry in held.evaluations)):
        stored += [StoredObject.model_validate(asset) for asset in assets.values()]
    for weights in held.golden:
        names = golden.get(weights.weights_id, {})
        stored += [StoredObject.model_validate(weights.companions[name]) for name in names]
    objects = {entry.key: entry.size for entry in stored}
    for snapshot in held.snapshots:
        objects |= _of_snapshot(runtime, snapshot)
    return _Plan(held, objects, golden)


def _of_snapshot(runtime: Runtime, snapshot: Snapshot) -> dict[str, int]:
    """Return manifest and shards of a snapshot: bytes by key. Shards that another snapshot has stay, see `_finish`."""
    try:
        packed = runtime.store.get(snapshot.manifest_key, snapshot.manifest_sha256)
    except (ObjectMissing, ObjectCorrupt) as error:
        _log.error(
            "the shards of snapshot %s are not known: maintenance deletes them a day after this removal (%s)",
            snapshot.snapshot_id,
            error,
        )
        return {snapshot.manifest_key: 0}
    shards = Manifest.model_validate_json(packed).shards
    return {snapshot.manifest_key: len(packed), **{shard.object.key: shard.object.size for shard in shards}}


def _golden_without(runtime: Runtime, weights: Weights) -> dict[str, StagedObject]:
    """Return a synthetic golden sample of the weights and their item with it; nothing if they have that already.

    The published sample is a chip of a validation place (`cloudseg.train.finish`), and nothing says of which scene.
    """
    from cloudseg.registry.register import restage_asset
    from cloudseg.stages.compute import open_device

    if not {"golden", "item"} <= weights.companions.keys():
        return {}
    open_device(runtime)
    from cloudseg.model.golden import GOLDEN_FILE, pack_golden
    from cloudseg.model.weights import load_weights

    item = StoredObject.model_validate(weights.companions["item"])
    data = pack_golden(load_weights(runtime.store.get(weights.key, weights.sha256)))
    fresh = restage_asset(weights, runtime.store.get(item.key, item.sha256), "golden", GOLDEN_FILE, data)
    return {name: out for name, out in fresh.items() if out.stored.key != weights.companions[name]["key"]}


def _describe(
    runtime: Runtime, plan: _Plan, removal: Removal | None, *, kept: Sequence[str] | None = None
) -> RemoveRecord:
    held = plan.held
    with runtime.catalog.read() as db:
        weights, descendants = removal_rows.list_taught(db, list(held.splits))
    if kept is None:
        kept = _shared(runtime, plan)
    goes = {key: size for key, size in plan.objects.items() if key not in kept}
    return RemoveRecord(
        dry_run=removal is None,
        scene_id=held.scene.scene_id,
        name=held.scene.name,
        removal_id=removal.removal_id if removal else None,
        already=False,
        labels=[label.label_id for label in held.labels],
        masks=[mask.mask_id for mask in held.masks],
        evaluations=[entry.evaluation_id for entry in held.evaluations],
        quarantined=len(held.quarantine_ids),
        snapshots=[snapshot.snapshot_id for snapshot in held.snapshots],
        golden=sorted(plan.golden),
        objects=len(goes),
        bytes=sum(goes.values()),
        kept=sorted(kept),
        weights=weights,
        descendants=descendants,
        sources=sorted({held.scene.source_uri, *(label.source_uri for label in held.labels)}),
    )


class _NothingWritten(Exception):
    """Ends the transaction of a dry run."""


def _shared(runtime: Runtime, plan: _Plan) -> list[str]:
    """Return the keys that rows name even when those of the scene are deleted: tried out, and rolled back."""
    kept: list[str] = []
    try:
        with runtime.catalog.begin() as db:
            _write_rows(db, plan, _row(db, plan, "dry run", "dry run"))
            for part in _parts(sorted(plan.objects)):
                kept += find_named(db, runtime.store, part)
            raise _NothingWritten
    except _NothingWritten:
        return kept


# --- rows -------------------------------------------------------------------------------------------------------------


def _remove(runtime: Runtime, scene_id: str, actor: str, reason: str) -> RemoveRecord:
    while True:
        plan = _plan(runtime, scene_id)
        for assets in plan.golden.values():
            put_all(runtime.store, assets)
        with runtime.catalog.begin() as db:
            lock_for_gc(db)
            if removal_rows.find_holdings(db, scene_id) == plan.held:  # nothing was added meanwhile
                for assets in plan.golden.values():  # maintenance may have deleted what was put a moment ago
                    put_all(runtime.store, assets)
                removal = _row(db, plan, actor, reason)
                _write_rows(db, plan, removal)
                break
        _log.info("scene %s changed meanwhile: its removal is planned again", scene_id)
    kept = _finish(runtime, removal)
    return _describe(runtime, plan, removal, kept=kept)


def _row(db: Connection, plan: _Plan, actor: str, reason: str) -> Removal:
    scene = plan.held.scene
    before = len(removal_rows.list_of_scene(db, scene.scene_id))
    return Removal(
        removal_id=make_id("rm", scene.scene_id, str(before)),
        scene_id=scene.scene_id,
        source_sha256=scene.source_sha256,
        actor=actor,
        reason=reason,
        pending=_pending(db, plan),
        finished_at=None,
        lifted_at=None,
        lifted_by=None,
        lift_reason=None,
        created_at=now(),
    )


def _pending(db: Connection, plan: _Plan) -> Json:
    """Return what is to be deleted after the rows: nothing in them would lead to it any more."""
    held, month = plan.held, stac_rows.month_of(plan.held.scene.acquired_at)
    taught = stac_rows.months_of_models(db)
    weights, _ = removal_rows.list_taught(db, list(held.splits))
    return {
        "keys": sorted(plan.objects),
        "documents": [
            stac_item("scenes", month, held.scene.scene_id),
            stac_thumbnail(month, held.scene.scene_id),
            *(stac_item("masks", month, mask.mask_id) for mask in held.masks),
        ],
        "months": {
            "scenes": [month],
            "masks": [month],
            "snapshots": sorted({stac_rows.month_of(snapshot.created_at) for snapshot in held.snapshots}),
        },
        # Bounds and times of training scenes are in the items of models, and do not follow from the list of a month.
        "models": sorted({taught[weights_id] for weights_id in weights}),
    }


def _write_rows(db: Connection, plan: _Plan, removal: Removal) -> None:
    removal_rows.add_removal(db, removal, plan.held)
    removal_rows.delete_rows(db, plan.held)
    for weights in plan.held.golden:
        if assets := plan.golden.get(weights.weights_id):
            fresh = {name: out.stored.as_json() for name, out in assets.items()}
            removal_rows.replace_assets(db, weights.weights_id, {**weights.companions, **fresh})


# --- objects ----------------------------------------------------------------------------------------------------------


def _finish(runtime: Runtime, removal: Removal) -> list[str]:
    """Delete what no row names any more, bring the static STAC catalog up to date, and record the end.

    Returns:
        The keys that stay, because another row names them.
    """
    from cloudseg.stac.links import Site
    from cloudseg.stac.static import publish

    pending, kept = removal.pending or {}, list[str]()
    for part in _parts(pending.get("keys", [])):
        with runtime.catalog.begin() as db:
            lock_for_gc(db)
            named = find_named(db, runtime.store, part)
            for key in part:
                if key not in named:
                    runtime.store.delete(key)
            kept += sorted(named)
    _forget_damage(runtime, set(pending.get("keys", [])) - set(kept))
    site = Site(runtime.store, runtime.settings)
    publish(site, runtime.catalog, pending.get("months", {}))
    if pending.get("models"):
        publish(site, runtime.catalog, {"models": pending["models"]}, verify=True)
    for key in pending.get("documents", []):
        runtime.store.delete(key)
    with runtime.catalog.begin() as db:
        removal_rows.set_finished(db, removal.removal_id)
    return kept


def _forget_damage(runtime: Runtime, deleted: set[str]) -> None:
    """Take deleted objects off the list of damaged ones, so that no alert about them lasts and nothing names them."""
    known = load_verification(runtime.store)
    if deleted & known.damaged.keys():
        left = {key: sha256 for key, sha256 in known.damaged.items() if key not in deleted}
        save_verification(runtime.store, known.model_copy(update={"damaged": left}))


def _complete(runtime: Runtime, scene_id: str, *, dry_run: bool) -> RemoveRecord:
    """Complete the removal of a scene whose rows are gone, if it is not complete."""
    with runtime.catalog.read() as db:
        removal = removal_rows.list_of_scene(db, scene_id)[0]
        snapshots = removal_rows.list_snapshots_retired_by(db, removal.removal_id)
        weights, descendants = removal_rows.list_taught(db, snapshots)
    keys: list[str] = (removal.pending or {}).get("keys", [])
    kept = _finish(runtime, removal) if removal.finished_at is None and not dry_run else []
    return RemoveRecord(
        dry_run=dry_run,
        scene_id=scene_id,
        name=None,
        removal_id=removal.removal_id,
        already=True,
        labels=[],
        masks=[],
        evaluations=[],
        quarantined=0,
        snapshots=snapshots,
        golden=[],
        objects=len(keys) - len(kept),
        bytes=0,
        kept=kept,
        weights=weights,
        descendants=descendants,
        sources=[],
    )


def _parts(keys: Sequence[str]) -> Iterator[list[str]]:
    for at in range(0, len(keys), _BATCH):
        yield list(keys[at : at + _BATCH])
