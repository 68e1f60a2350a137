"""Read-only stages: list the contents of the catalog as JSON-able values."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement

from cloudseg.catalog import model_rows, names, reader_rows, scene_rows, training_rows
from cloudseg.catalog.history import describe_decision_on
from cloudseg.catalog.scene_search import such_masks, such_scenes
from cloudseg.catalog.times import parse_interval, parse_moment
from cloudseg.errors import InputError
from cloudseg.records import Evaluation, Json, Weights
from cloudseg.runtime import open_runtime


def scenes(
    *, name: str | None = None, place: str | None = None, interval: str | None = None, limit: int | None = 20
) -> list[Json]:
    """List scenes, newest first, without their raw footprint.

    Args:
        name: only scenes of this name; `*` stands for any letters.
        place: only scenes of this place; `*` stands for any letters.
        interval: only scenes that were acquired then: `2024`, `2024-05`, `2024-05-01/2024-06-30`.
        limit: maximum number of rows.

    Raises:
        InputError: the interval cannot be read.
    """
    such = _such_scenes(name, place, interval)
    with open_runtime().catalog.read() as db:
        found = scene_rows.list_scenes(db, such=such, limit=limit)
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
    """List weights, newest version first, with alias, held-out metrics, newest verdict and manual decision.

    The champion is listed in any case, as the last row if it is older than the others.
    """
    with open_runtime().catalog.read() as db:
        champion = model_rows.find_champion(db)
        listed = model_rows.list_weights(db, limit=limit)
        if champion is not None and champion.weights_id not in {weights.weights_id for weights in listed}:
            listed.append(model_rows.get_weights(db, champion.weights_id))
        return [
            {
                **weights.model_dump(mode="json", exclude={"metadata"}),
                "alias": "champion" if champion and champion.weights_id == weights.weights_id else None,
                "recipe": weights.metadata.get("recipe_name"),
                "verdict": verdict.outcome if (verdict := model_rows.find_verdict(db, weights.weights_id)) else None,
                "decision": describe_decision_on(db, weights.weights_id),
                "held_out": _newest_figures(weights, model_rows.list_evaluations(db, weights.weights_id)),
            }
            for weights in listed
        ]


def masks(
    *,
    weights_id: str | None = None,
    as_of: str | None = None,
    name: str | None = None,
    place: str | None = None,
    interval: str | None = None,
    min_cloud: float | None = None,
    max_cloud: float | None = None,
    limit: int | None = 20,
    link_s: int | None = None,
) -> list[Json]:
    """List masks, newest first, with scene, address of the file, the masks before and after it, and if it is disputed.

    A mask is disputed while a label corrects it that is proposed or accepted, and its scene has no newer mask.

    Args:
        weights_id: list the masks of these weights only.
        as_of: list what readers saw at this moment (ISO 8601 with zone): at most one mask for each scene.
        name: only masks of scenes of this name; `*` stands for any letters.
        place: only masks of this place; `*` stands for any letters.
        interval: only masks of scenes that were acquired then.
        min_cloud: only masks with at least this fraction of cloud, 0 to 1.
        max_cloud: only masks with at most this fraction of cloud.
        limit: maximum number of rows.
        link_s: add presigned URLs that are valid for this many seconds; they grant access, so do not log them.

    Raises:
        NotInCatalog: the weights are unknown.
        InputError: the store cannot presign URLs, the moment cannot be read, or weights and moment are both given.
    """
    if weights_id is not None and as_of is not None:
        raise InputError("pass either weights or a moment", found="both", expected="--weights or --as-of")
    moment = parse_moment(as_of, "as_of") if as_of is not None else None
    such = such_masks(_such_scenes(name, place, interval), min_cloud=min_cloud, max_cloud=max_cloud)
    runtime = open_runtime()
    link = runtime.store.link
    with runtime.catalog.read() as db:
        if weights_id is not None:
            weights_id = names.get_id(db, "weights", weights_id)
        if moment is not None:
            found = reader_rows.list_shown_masks(db, moment, such=such, limit=limit)
        else:
            found = model_rows.list_masks(db, weights_id=weights_id, such=such, limit=limit)
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


def lineage(mask_id: str) -> Json:
    """Return the lineage of a mask: weights, snapshot, scenes, labels and source checksums.

    Args:
        mask_id: an id, or how one begins.

    Raises:
        NotInCatalog: the mask is unknown.
    """
    from cloudseg.catalog.lineage import lineage_of_mask

    with open_runtime().catalog.read() as db:
        return dict(lineage_of_mask(db, names.get_id(db, "mask", mask_id)))


def _such_scenes(name: str | None, place: str | None, interval: str | None) -> list[ColumnElement[bool]]:
    since, until = parse_interval(interval) if interval is not None else (None, None)
    return such_scenes(name=name, place=place, since=since, until=until)


def _newest_figures(weights: Weights, evaluations: Sequence[Evaluation]) -> Json | None:
    found = next((e for e in evaluations if e.split == "held_out" and e.weights_id == weights.weights_id), None)
    return None if found is None else {"snapshot_id": found.snapshot_id, **found.metrics}
