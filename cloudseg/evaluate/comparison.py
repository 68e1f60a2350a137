"""Compare the counts of a challenger with those of the champion and of trivial masks; explain the differences.

Pure functions: they read no store and no catalog and run no net.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloudseg.evaluate.bootstrap import Difference, Row, compare, seed_of
from cloudseg.evaluate.metrics import Counts
from cloudseg.evaluate.radiometry import WITHOUT_OPTIONAL
from cloudseg.evaluate.slices import RADIOMETRY, Slice, all_slices, is_radiometry
from cloudseg.evaluate.table import CountsTable, trivial_masks
from cloudseg.recipe import PromotionPolicy
from cloudseg.records import Json, Outcome


def places_needed(confidence: float) -> int:
    """Return how many places a comparison needs to be significant at this confidence.

    Of two equal models, a given one is better at all of n places with a probability of 2**-n (sign test): 5 places for
    95 %. With fewer places, bootstrap draws repeat each other and the bounds are narrower than they should be.
    """
    return math.ceil(math.log2(1 / (1 - confidence)) - 1e-9)


@dataclass
class GateResult:
    """Reasons for and against a promotion, collected check by check."""

    rejects: list[str] = field(default_factory=list)
    """Each of these makes the verdict REJECT."""
    holds: list[str] = field(default_factory=list)
    """Each of these makes the verdict HOLD, unless it is REJECT."""
    pros: list[str] = field(default_factory=list)
    """Checks that passed."""

    @property
    def outcome(self) -> Outcome:
        """The verdict on the challenger."""
        return "REJECT" if self.rejects else "HOLD" if self.holds else "PROMOTE"

    @property
    def reasons(self) -> list[str]:
        """All reasons, the decisive ones first."""
        return self.rejects + self.holds + self.pros


def compare_with_trivial_masks(
    table: CountsTable, policy: PromotionPolicy, result: GateResult, *, is_first: bool
) -> dict[str, Difference]:
    """Compare with the trivial masks: no model may be worse than one, the first must be significantly better than each.

    With very few places the bounds are approximate; that is accepted for a first model, which replaces none.

    Args:
        table: counts of the challenger.
        policy: limits of the comparison.
        result: the reasons are added to it.
        is_first: whether there is no champion yet.

    Returns:
        Difference of the pooled IoU by trivial mask.
    """
    own = [scene.counts for scene in table.scenes]
    found = {}
    for name, counts in trivial_masks(table.scenes).items():
        difference = _compare(table, own, counts, policy, name)["pooled"]
        found[name] = difference
        text = f"IoU {_describe(difference)} against the trivial mask '{name}'"
        if difference.observed < 0:
            result.rejects.append(f"worse than a trivial mask: {text}")
        elif is_first and difference.lower <= 0:
            result.holds.append(f"not significantly better than a trivial mask: {text}")
        elif is_first:
            result.pros.append(text)
    places, needed = _places(table), places_needed(policy.confidence)
    if is_first and places < needed:
        result.pros.append(
            f"the bounds are approximate: {places} held-out places, {needed} are needed for a confidence of "
            f"{policy.confidence:.0%}; accepted for a first model, which replaces none"
        )
    return found


def compare_with_champion(
    table: CountsTable, champion: CountsTable, policy: PromotionPolicy, result: GateResult
) -> Json:
    """Compare with the champion on the same scenes: all of them, then slice by slice.

    Args:
        table: counts of the challenger.
        champion: counts of the champion.
        policy: limits of the comparison.
        result: the reasons are added to it.

    Returns:
        Part of the verdict: differences of pooled and scene-mean IoU, and the slices.
    """
    of_scene = {scene.scene_id: scene.counts for scene in champion.scenes}
    other = [of_scene[scene.scene_id] for scene in table.scenes]
    differences = _compare(table, [scene.counts for scene in table.scenes], other, policy, champion.weights_id)
    _check_difference(differences["pooled"], policy, result, places=_places(table))
    return {
        "difference": {name: vars(difference) for name, difference in differences.items()},
        "slices": _check_slices(table, champion, policy, result),
    }


def _compare(
    table: CountsTable, own: Sequence[Counts], other: Sequence[Counts], policy: PromotionPolicy, other_name: str
) -> dict[str, Difference]:
    pairs = [Row(scene.place, a, b) for scene, a, b in zip(table.scenes, own, other, strict=True)]
    seed = seed_of(table.weights_id, other_name, table.snapshot_id)
    return compare(pairs, confidence=policy.confidence, samples=policy.bootstrap_samples, seed=seed)


def _places(table: CountsTable) -> int:
    return len({scene.place for scene in table.scenes})


def _check_difference(difference: Difference, policy: PromotionPolicy, result: GateResult, *, places: int) -> None:
    text, needed = f"IoU {_describe(difference)} against the champion", places_needed(policy.confidence)
    if places < needed:
        result.holds.append(
            f"inconclusive: {text}, but {places} held-out places are too few for a confidence of "
            f"{policy.confidence:.0%}, {needed} are needed; ingest labels of more places, or promote manually"
        )
    elif difference.upper < policy.reject_below:
        result.rejects.append(f"significantly worse: {text}, the upper bound is below {policy.reject_below:+.3f}")
    elif difference.lower > policy.margin:
        result.pros.append(f"{text}: the lower bound exceeds the margin {policy.margin:.3f}")
    else:
        result.holds.append(f"inconclusive: {text}, the lower bound does not exceed the margin {policy.margin:.3f}")


def _named(slices: Sequence[Slice]) -> str:
    return ", ".join(f"'{name}'" for name in dict.fromkeys(entry.value for entry in slices))


def _check_slices(table: CountsTable, champion: CountsTable, policy: PromotionPolicy, result: GateResult) -> list[Json]:
    """Compare slice by slice and return the slices.

    Both tables have the same ones, whatever was predicted; an evaluation older than the radiometry variants lacks
    those, and one of weights that need all bands has none without optional bands.
    """
    of_champion, of_challenger = (
        {(entry.kind, entry.value): entry for entry in all_slices(one.scenes)} for one in (champion, table)
    )
    lines: list[Json] = []
    missing: list[Slice] = []
    new: list[Slice] = []
    for own in of_challenger.values():
        other, limit = of_champion.get((own.kind, own.value)), slice_limit(policy, own.kind)
        if other is None:
            (new if own.value == WITHOUT_OPTIONAL.name else missing).append(own)
            continue
        change, compared = own.score - other.score, own.scenes >= policy.slice_min_scenes
        fell = compared and change < -limit
        lines.append(
            {
                "kind": own.kind,
                "value": own.value,
                "scenes": own.scenes,
                "measure": own.measure,
                "challenger": own.score,
                "champion": other.score,
                "change": change,
                "judged": compared,  # the key is older than the name
                "fell": fell,
            }
        )
        if fell:
            result.holds.append(
                f"the slice {own.kind} '{own.value}' ({own.scenes} scenes) falls by {-change:.3f} ({own.measure}), "
                f"more than {limit:.3f}"
            )
    if missing:
        result.pros.append(
            f"not compared, because the champion's evaluation is older: slices of radiometry {_named(missing)}"
        )
    if new:
        result.pros.append("it also masks scenes without optional bands, which the champion does not; not compared")
    without = (RADIOMETRY, WITHOUT_OPTIONAL.name)
    if without in of_champion and without not in of_challenger:
        result.holds.append("the champion also masks scenes without optional bands, which the challenger does not")
    return lines


def slice_limit(policy: PromotionPolicy, kind: str) -> float:
    """Return the largest decrease that the gate accepts in a slice of this kind."""
    return policy.radiometry_limit if is_radiometry(kind) else policy.slice_limit


def _describe(difference: Difference) -> str:
    return f"{difference.observed:+.3f} (bounds {difference.lower:+.3f} and {difference.upper:+.3f})"
