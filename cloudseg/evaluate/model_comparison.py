"""Compare any two models by their stored evaluations, with the statistics of the gate. No net runs, no torch.

Where the gate has compared the two, the figures are those of its verdict: same scenes, same draws, same limits.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from cloudseg.catalog import Catalog, model_rows, names, training_rows
from cloudseg.catalog.removal_rows import find_retired
from cloudseg.errors import InputError, StateError
from cloudseg.evaluate.bootstrap import Difference, Row, compare, seed_of
from cloudseg.evaluate.comparison import places_needed, slice_limit
from cloudseg.evaluate.metrics import Counts, mean_rates, pool, rates
from cloudseg.evaluate.model_facts import model_facts
from cloudseg.evaluate.scene_result import SceneResult
from cloudseg.evaluate.slices import radiometry_groups, slice_groups, slice_of
from cloudseg.evaluate.table import CountsTable, read_table, rounded
from cloudseg.recipe import PromotionPolicy
from cloudseg.records import Evaluation, Json, Verdict, Weights
from cloudseg.registry.verdicts import policy_of
from cloudseg.storage import Store

FORMAT: Final = "cloudseg-comparison-1"
_DIFFERING: Final = 12
"""Scenes that are listed: those whose share of wrong pixels differs most."""
_RATES: Final = ("iou", "f1", "precision", "recall", "balanced_accuracy")


@dataclass(frozen=True)
class Sides:
    """Two models with the evaluations that are compared."""

    a: Weights
    b: Weights
    of_a: Evaluation
    of_b: Evaluation
    verdict: Verdict | None
    """The newest verdict of the gate on the two on this snapshot, in either direction."""
    policy: PromotionPolicy

    @property
    def same_snapshot(self) -> bool:
        """Whether both were evaluated on one snapshot."""
        return self.of_a.snapshot_id == self.of_b.snapshot_id

    @property
    def is_reversed(self) -> bool:
        """Whether the challenger of the draws is B: as in the verdict, else the newer model."""
        challenger = self.verdict.challenger_id if self.verdict else max((self.a, self.b), key=_version).weights_id
        return challenger == self.b.weights_id


def find_sides(catalog: Catalog, a: str, b: str) -> Sides:
    """Return two models and the evaluations to compare: those on one snapshot if there are such, else the newest ones.

    Args:
        catalog: of their rows.
        a: a model (`names.get_weights`).
        b: another one.

    Raises:
        NotInCatalog: a model is unknown.
        InputError: both are the same.
        StateError: one was not evaluated on held-out places.
    """
    with catalog.read() as db:
        first, second = names.get_weights(db, a), names.get_weights(db, b)
        if first.weights_id == second.weights_id:
            raise InputError("a model does not differ from itself", subject=a, next_step="Name two models.")
        of_first, of_second = (_held_out(db, weights) for weights in (first, second))
        _check_evaluated(db, first, of_first, second, of_second)
        _check_evaluated(db, second, of_second, first, of_first)
        on_second = {found.snapshot_id: found for found in of_second}
        shared = [(found, on_second[found.snapshot_id]) for found in of_first if found.snapshot_id in on_second]
        one, other = max(shared, key=_newest) if shared else (of_first[0], of_second[0])
        verdict = _find_verdict(db, first, second, one.snapshot_id) if shared else None
        newer = max((first, second), key=_version)
        run = training_rows.find_run(db, newer.run_id) if newer.run_id else None
    policy = PromotionPolicy.model_validate(verdict.body["policy"]) if verdict else policy_of(run)
    return Sides(first, second, one, other, verdict, policy)


def _version(weights: Weights) -> int:
    return weights.version


def _newest(pair: tuple[Evaluation, Evaluation]) -> tuple[datetime, str]:
    return max(found.created_at for found in pair), pair[0].snapshot_id


def _held_out(db: Connection, weights: Weights) -> list[Evaluation]:
    every = model_rows.list_evaluations(db, weights.weights_id)
    return [found for found in every if found.split == "held_out" and "counts" in found.report]


def _check_evaluated(
    db: Connection, weights: Weights, own: Sequence[Evaluation], other: Weights, of_other: Sequence[Evaluation]
) -> None:
    """Raise StateError if weights have no evaluation on held-out places, with the command that makes it."""
    if own:
        return
    on = of_other[0].snapshot_id if of_other else weights.snapshot_id or other.snapshot_id
    # Nothing is evaluated on a snapshot that lost a removed scene; without the option the newest other one is taken.
    snapshot = f" --snapshot {on}" if on and find_retired(db, on) is None else ""
    raise StateError(
        "the model was not evaluated on held-out places, so it cannot be compared",
        subject=f"v{weights.version}",
        found="no evaluation",
        expected="an evaluation of each model",
        next_step=f"Run `cloudseg evaluate {weights.weights_id}{snapshot}`, then compare again.",
    )


def _find_verdict(db: Connection, a: Weights, b: Weights, snapshot_id: str) -> Verdict | None:
    pair = {a.weights_id, b.weights_id}
    found = model_rows.list_verdicts(db, challenger_id=a.weights_id)
    found += model_rows.list_verdicts(db, challenger_id=b.weights_id)
    fitting = [
        verdict
        for verdict in found
        if {verdict.challenger_id, verdict.champion_id} == pair
        and verdict.body.get("snapshot_id") == snapshot_id
        and verdict.body.get("difference")
    ]
    return max(fitting, key=lambda verdict: (verdict.created_at, verdict.verdict_id), default=None)


def compare_two(store: Store, catalog: Catalog, a: str, b: str) -> Json:
    """Compare two models on the held-out scenes that both were evaluated on.

    Differences are A minus B; bounds are one-sided, each at the confidence of the gate's policy.

    Args:
        store: of evaluations and model cards.
        catalog: of rows; nothing is written.
        a: a model: `w-…`, `v31` or `champion`.
        b: another one.

    Returns:
        The comparison as JSON: models, what was compared, differences of pooled and scene-mean IoU, slices, places,
        the scenes that differ most, and the keys of the recipes that differ.

    Raises:
        NotInCatalog: a model is unknown.
        InputError: both are the same.
        StateError: they cannot be compared; the message names the command that makes it possible.
        ObjectMissing: the store lacks a part of an evaluation.
        ObjectCorrupt: the bytes of one do not match their checksum.
    """
    sides = find_sides(catalog, a, b)
    tables = read_table(store, sides.of_a), read_table(store, sides.of_b)
    pairs = _pairs(sides, *tables)
    return rounded(_report(store, catalog, sides, tables, pairs))  # type: ignore[no-any-return]  # JSON in, JSON out


Pair = tuple[SceneResult, SceneResult]


def _pairs(sides: Sides, table_a: CountsTable, table_b: CountsTable) -> list[Pair]:
    """Return the scenes that both tables hold with the same labels on the same pixels.

    Raises:
        StateError: there are none.
    """
    of_b = {scene.scene_id: scene for scene in table_b.scenes}
    found = [(scene, of_b[scene.scene_id]) for scene in table_a.scenes if scene.scene_id in of_b]
    same = [(one, other) for one, other in found if _have_same_labels(one, other)]
    if not same:
        raise StateError(
            "the two models have no held-out scene with the same labels in common, so they cannot be compared",
            subject=f"v{sides.a.version}, v{sides.b.version}",
            found=f"evaluations on {sides.of_a.snapshot_id} and {sides.of_b.snapshot_id}",
            expected="evaluations on one snapshot",
            next_step=f"Run `{_command(sides)}`, then compare again.",
        )
    return same


def _have_same_labels(one: SceneResult, other: SceneResult) -> bool:
    # Labels of a scene are laid over each other, so their ids tell; evaluations of earlier releases name none.
    pixels = (one.counts.pixels, one.counts.cloud) == (other.counts.pixels, other.counts.cloud)
    return one.place == other.place and one.labels == other.labels and pixels


def _command(sides: Sides) -> str:
    """Return the command that evaluates the older model on the snapshot of the newer one."""
    older, snapshot_id = (
        (sides.a, sides.of_b.snapshot_id) if sides.a.version < sides.b.version else (sides.b, sides.of_a.snapshot_id)
    )
    return f"cloudseg evaluate {older.weights_id} --snapshot {snapshot_id}"


def _report(
    store: Store, catalog: Catalog, sides: Sides, tables: tuple[CountsTable, CountsTable], pairs: Sequence[Pair]
) -> Json:
    differences = _differences(sides, _rows(pairs))
    places = len({one.place for one, _ in pairs})
    return {
        "format": FORMAT,
        "a": model_facts(store, catalog, sides.a, sides.of_a) | {"figures": _figures([one for one, _ in pairs])},
        "b": model_facts(store, catalog, sides.b, sides.of_b) | {"figures": _figures([other for _, other in pairs])},
        "compared": {
            "split": "held_out",
            "same_snapshot": sides.same_snapshot,
            "note": _note(sides, tables, pairs),
            "command": None if sides.same_snapshot else _command(sides),
            "scenes": len(pairs),
            "places": places,
        },
        "policy": sides.policy.model_dump(mode="json"),
        "places_needed": places_needed(sides.policy.confidence),
        "difference": {name: vars(found) for name, found in differences.items()},
        "conclusion": _conclusion(differences["pooled"], places, sides),
        "verdict": _verdict(sides),
        "slices": _slices(sides, pairs),
        "by_place": _by_place(sides, pairs),
        "scenes": _differing(pairs),
        "recipe": _recipe_differences(catalog, sides),
    }


def _note(sides: Sides, tables: tuple[CountsTable, CountsTable], pairs: Sequence[Pair]) -> str:
    """Return in a sentence what was compared."""
    if sides.same_snapshot:
        return f"Both were evaluated on the {len(pairs)} held-out scenes of snapshot {sides.of_a.snapshot_id}."
    return (
        f"They were evaluated on different snapshots: v{sides.a.version} on {len(tables[0].scenes)} held-out scenes of "
        f"{sides.of_a.snapshot_id}, v{sides.b.version} on {len(tables[1].scenes)} of {sides.of_b.snapshot_id}. "
        f"Compared are the {len(pairs)} scenes that both hold with the same labels."
    )


def _rows(pairs: Sequence[Pair]) -> list[Row]:
    return [Row(one.place, one.counts, other.counts) for one, other in pairs]


def _differences(sides: Sides, rows: Sequence[Row]) -> dict[str, Difference]:
    """Return A minus B, drawn as the gate draws: challenger first, with the seed of the ids."""
    a, b = sides.a.weights_id, sides.b.weights_id
    snapshots = dict.fromkeys((sides.of_a.snapshot_id, sides.of_b.snapshot_id))
    policy = sides.policy
    drawn = compare(
        [Row(row.place, row.other, row.challenger) for row in rows] if sides.is_reversed else rows,
        confidence=policy.confidence,
        samples=policy.bootstrap_samples,
        seed=seed_of(*((b, a) if sides.is_reversed else (a, b)), *(sorted(snapshots))),
    )
    return {name: _negated(found) for name, found in drawn.items()} if sides.is_reversed else drawn


def _negated(difference: Difference) -> Difference:
    return Difference(-difference.observed, -difference.upper, -difference.lower)


def _conclusion(difference: Difference, places: int, sides: Sides) -> Json:
    """Return which model is better (`a`, `b` or None) and why, in a sentence."""
    needed, text = places_needed(sides.policy.confidence), _describe(difference)
    a, b = f"v{sides.a.version}", f"v{sides.b.version}"
    if places < needed:
        return {"better": None, "text": f"Not decided: {text}, but {places} places are too few, {needed} are needed."}
    if difference.lower > 0:
        return {"better": "a", "text": f"{a} is better than {b}: {text}."}
    if difference.upper < 0:
        return {"better": "b", "text": f"{b} is better than {a}: {text}."}
    return {"better": None, "text": f"No difference is shown: {text}, the bounds include 0."}


def _describe(difference: Difference) -> str:
    return f"IoU {difference.observed:+.3f} (bounds {difference.lower:+.3f} and {difference.upper:+.3f})"


def _verdict(sides: Sides) -> Json | None:
    if sides.verdict is None:
        return None
    reasons = [str(reason) for reason in sides.verdict.body.get("reasons", [])]
    challenger = sides.b if sides.is_reversed else sides.a
    return {
        "verdict_id": sides.verdict.verdict_id,
        "outcome": sides.verdict.outcome,
        "challenger": f"v{challenger.version}",
        "reasons": reasons,
    }


def _figures(scenes: Sequence[SceneResult]) -> Json:
    pooled = rates(pool(scene.counts for scene in scenes))
    mean = mean_rates([scene.counts for scene in scenes])
    return {**{name: pooled[name] for name in _RATES}, "scene_mean_iou": mean["iou"]}


def _slices(sides: Sides, pairs: Sequence[Pair]) -> list[Json]:
    """Return every slice with its difference, and bounds where it has two places; as the gate compares them."""
    lines = []
    for (kind, value), group in sorted(_groups_of_pairs(pairs).items()):
        own, other = (slice_of(kind, value, [pair[side] for pair in group]) for side in (0, 1))
        rows = [Row(one.place, one.counts, two.counts) for one, two in group]
        change = own.score - other.score
        fell = own.scenes >= sides.policy.slice_min_scenes and change < -slice_limit(sides.policy, kind)
        line = {"kind": kind, "value": value, "scenes": own.scenes, "places": own.places, "measure": own.measure}
        bounds = _bounds(sides, rows, own.measure)
        lines.append({**line, "a": own.score, "b": other.score, "difference": change, **bounds, "fell": fell})
    return lines


def _groups_of_pairs(pairs: Sequence[Pair]) -> dict[tuple[str, str], list[Pair]]:
    """Return the pairs of every slice; in a radiometry variant those that both evaluations predicted in it."""
    of_b = {two.scene_id: two for _, two in pairs}
    ones, twos = [one for one, _ in pairs], [two for _, two in pairs]
    found = {key: [(one, of_b[one.scene_id]) for one in group] for key, group in slice_groups(ones).items()}
    changed = radiometry_groups(twos)
    for key, group in radiometry_groups(ones).items():
        others = {two.scene_id: two for two in changed.get(key, ())}
        both = [(one, others[one.scene_id]) for one in group if one.scene_id in others]
        found |= {key: both} if both else {}
    return found


def _by_place(sides: Sides, pairs: Sequence[Pair]) -> list[Json]:
    """Return every place, the largest difference first; bounds are over its scenes, where it has two."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair[0].place, []).append(pair)
    lines = []
    for place, group in groups.items():
        own, other = (slice_of("place", place, [pair[side] for pair in group]) for side in (0, 1))
        # Within one place a scene is what is drawn.
        rows = [Row(one.scene_id, one.counts, two.counts) for one, two in group]
        line = {"place": place, "scenes": own.scenes, "cloud_fraction": own.cloud_fraction, "measure": own.measure}
        change = own.score - other.score
        bounds = _bounds(sides, rows, own.measure)
        lines.append({**line, "a": own.score, "b": other.score, "difference": change, **bounds})
    return sorted(lines, key=lambda line: (-abs(line["difference"]), line["place"]))


def _bounds(sides: Sides, rows: Sequence[Row], measure: str) -> Json:
    """Return the bounds of a group's difference, None where there is only one unit to draw.

    With few units draws repeat each other, and the bounds are narrower than they should be (`places_needed`).
    """
    units = len({row.place for row in rows})
    if units < 2:
        return {"lower": None, "upper": None, "enough": False}
    if measure == "clear_recall":
        rows = [Row(row.place, _as_clear(row.challenger), _as_clear(row.other)) for row in rows]
    found = _differences(sides, rows)["pooled"]
    enough = units >= places_needed(sides.policy.confidence)
    return {"lower": found.lower, "upper": found.upper, "enough": enough}


def _as_clear(counts: Counts) -> Counts:
    """Return counts whose IoU is the recall of clear pixels: tn / (tn + fp)."""
    return Counts(tp=counts.tn, fp=counts.fp)


def _differing(pairs: Sequence[Pair]) -> list[Json]:
    """Return the scenes whose share of wrong pixels differs most; IoU is 0 or 1 where there is no cloud."""
    lines = [_scene_line(one, other) for one, other in pairs]
    lines.sort(key=lambda line: (-abs(line["wrong_a"] - line["wrong_b"]), line["scene_id"]))
    return lines[:_DIFFERING]


def _scene_line(one: SceneResult, other: SceneResult) -> Json:
    of_a, of_b = rates(one.counts), rates(other.counts)
    return {
        "scene_id": one.scene_id,
        "name": one.name,
        "place": one.place,
        "sensor": one.sensor,
        "cloud_fraction": one.cloud_fraction,
        "iou_a": of_a["iou"],
        "iou_b": of_b["iou"],
        "wrong_a": 1 - of_a["accuracy"],
        "wrong_b": 1 - of_b["accuracy"],
    }


def _recipe_differences(catalog: Catalog, sides: Sides) -> list[Json] | None:
    """Return the keys of the recipes that differ, None if one of the models was imported and has no recipe."""
    if sides.a.run_id is None or sides.b.run_id is None:
        return None
    with catalog.read() as db:
        runs = [training_rows.get_run(db, run_id) for run_id in (sides.a.run_id, sides.b.run_id)]
    of_a, of_b = (_flat(run.recipe) for run in runs)
    names = sorted(of_a.keys() | of_b.keys())
    lines = [{"key": name, "a": of_a.get(name), "b": of_b.get(name)} for name in names]
    return [line for line in lines if line["a"] != line["b"]]


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the values of a recipe as JSON text by dotted key."""
    found: dict[str, str] = {}
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = json.dumps(value, ensure_ascii=False)
    return found
