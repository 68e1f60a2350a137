"""Read-only stages: list the contents of the catalog as JSON-able values."""

from collections.abc import Sequence

from cloudseg.catalog import model_rows, reader_rows, scene_rows, training_rows
from cloudseg.catalog.times import parse_moment
from cloudseg.errors import InputError
from cloudseg.records import Evaluation, Json, Weights
from cloudseg.runtime import open_runtime


def scenes(*, limit: int | None = 20) -> list[Json]:
    """List scenes, newest first, without their raw footprint."""
    with open_runtime().catalog.read() as db:
        found = scene_rows.list_scenes(db, limit=limit)
    return [scene.model_dump(mode="json", exclude={"footprint_wkb"}) for scene in found]


def runs(*, limit: int | None = 20) -> list[Json]:
    """List runs, newest first, with their newest epoch, to follow a training in progress."""
    with open_runtime().catalog.read() as db:
        return [
            {
                **run.model_dump(mode="json", exclude={"recipe"}),
                "epoch": next((e.as_json() for e in training_rows.list_epochs(db, run.run_id)[-1:]), None),
            }
            for run in training_rows.list_runs(db, limit=limit)
        ]


def models(*, limit: int | None = 20) -> list[Json]:
    """List weights, newest version first, with alias, held-out metrics, newest verdict and manual decision."""
    with open_runtime().catalog.read() as db:
        champion = model_rows.find_champion(db)
        return [
            {
                **weights.model_dump(mode="json", exclude={"metadata"}),
                "alias": "champion" if champion and champion.weights_id == weights.weights_id else None,
                "recipe": weights.metadata.get("recipe_name"),
                "verdict": verdict.outcome if (verdict := model_rows.find_verdict(db, weights.weights_id)) else None,
                "decision": next((entry.decision for entry in model_rows.list_decisions(db, weights.weights_id)), None),
                "held_out": _newest_figures(weights, model_rows.list_evaluations(db, weights.weights_id)),
            }
            for weights in model_rows.list_weights(db, limit=limit)
        ]


def masks(
    *, weights_id: str | None = None, as_of: str | None = None, limit: int | None = 20, link_s: int | None = None
) -> list[Json]:
    """List masks, newest first, with scene, address of the file, the masks before and after it, and if it is disputed.

    A mask is disputed while a label corrects it that is proposed or accepted, and its scene has no newer mask.

    Args:
        weights_id: list the masks of these weights only.
        as_of: list what readers saw at this moment (ISO 8601 with zone): at most one mask for each scene.
        limit: maximum number of rows.
        link_s: add presigned URLs that are valid for this many seconds; they grant access, so do not log them.

    Raises:
        NotInCatalog: the weights are unknown.
        InputError: the store cannot presign URLs, the moment cannot be read, or weights and moment are both given.
    """
    if weights_id is not None and as_of is not None:
        raise InputError("pass either weights or a moment", found="both", expected="--weights or --as-of")
    moment = parse_moment(as_of, "as_of") if as_of is not None else None
    runtime = open_runtime()
    link = runtime.store.link
    with runtime.catalog.read() as db:
        if weights_id is not None:
            model_rows.get_weights(db, weights_id)
        if moment is not None:
            found = reader_rows.list_shown_masks(db, moment, limit=limit)
        else:
            found = model_rows.list_masks(db, weights_id=weights_id, limit=limit)
        disputed = model_rows.find_disputed(db, [mask.mask_id for mask in found])
        versions = reader_rows.find_versions(db, [mask.mask_id for mask in found])
        return [
            {
                **mask.as_json(),
                "predecessor": versions[mask.mask_id].predecessor_mask_id,
                "successor": versions[mask.mask_id].successor_mask_id,
                "current": versions[mask.mask_id].is_current,
                "disputed": mask.mask_id in disputed,
                "scene": scene_rows.get_scene(db, mask.scene_id).name,
                "uri": runtime.store.uri_of(mask.key),
                **({"link": link(mask.key, link_s)} if link_s is not None else {}),
            }
            for mask in found
        ]


def quarantine(*, release: Sequence[str] = (), limit: int | None = 20) -> list[Json]:
    """List the quarantine, newest first.

    Args:
        release: entries to delete first, so that their files are tried again.
        limit: maximum number of rows.
    """
    catalog = open_runtime().catalog
    if release:
        with catalog.begin() as db:
            scene_rows.release_quarantined(db, release)
    with catalog.read() as db:
        return [entry.as_json() for entry in scene_rows.list_quarantined(db, limit=limit)]


def lineage(mask_id: str) -> Json:
    """Return the lineage of a mask: weights, snapshot, scenes, labels and source checksums.

    Raises:
        NotInCatalog: the mask is unknown.
    """
    from cloudseg.catalog.lineage import lineage_of_mask

    with open_runtime().catalog.read() as db:
        return dict(lineage_of_mask(db, mask_id))


def _newest_figures(weights: Weights, evaluations: Sequence[Evaluation]) -> Json | None:
    found = next((e for e in evaluations if e.split == "held_out" and e.weights_id == weights.weights_id), None)
    return None if found is None else {"snapshot_id": found.snapshot_id, **found.metrics}
