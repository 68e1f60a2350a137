"""Compares the counts of a challenger with those of others and turns the differences into reasons.

Pure functions; no store, no catalog, no net.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloudseg.evaluate.bootstrap import Difference, Row, compare, seed_of
from cloudseg.evaluate.metrics import Counts
from cloudseg.evaluate.slices import all_slices
from cloudseg.evaluate.table import CountsTable, trivial_masks
from cloudseg.recipe import Promotion
from cloudseg.records import Json, Outcome


def places_needed(confidence: float) -> int:
    """Return how many places a comparison needs to be significant at this confidence.

    The clearest result of n places, better at every one, comes by chance once in 2**n (sign test): 5 places for 95 %.
    With fewer, bootstrap draws repeat each other and the bounds are narrower than they should be.
    """
    return math.ceil(math.log2(1 / (1 - confidence)) - 1e-9)


@dataclass
class GateResult:
    """Reasons, collected check by check."""

    rejects: list[str] = field(default_factory=list)
    """Any of these makes the verdict REJECT."""
    holds: list[str] = field(default_factory=list)
    """Any of these makes it HOLD, where nothing rejects."""
    pros: list[str] = field(default_factory=list)
    """Checks that passed."""

    @property
    def outcome(self) -> Outcome:
        """The verdict."""
        return "REJECT" if self.rejects else "HOLD" if self.holds else "PROMOTE"

    @property
    def reasons(self) -> list[str]:
        """All reasons, those that decide first."""
        return self.rejects + self.holds + self.pros


def compare_with_trivial_masks(
    table: CountsTable, policy: Promotion, result: GateResult, *, is_first: bool
) -> dict[str, Difference]:
    """Compare with the trivial masks: no model may be worse than one, the first must be significantly better than each.

    With very few places the bounds are rough; that is accepted for a first model, which replaces none.

    Args:
        table: counts of the challenger.
        policy: limits of the comparison.
        result: gets the reasons.
        is_first: whether there is no champion yet.

    Returns:
        Difference of the pooled IoU by trivial mask.
    """
    own = [scene.counts for scene in table.scenes]
    found = {}
    for name, counts in trivial_masks(table.scenes).items():
        difference = _compare(table, own, counts, policy, name)["pooled"]
        found[name] = difference
        words = f"IoU {_words(difference)} against the trivial mask '{name}'"
        if difference.observed < 0:
            result.rejects.append(f"worse than a trivial mask: {words}")
        elif is_first and difference.lower <= 0:
            result.holds.append(f"not significantly better than a trivial mask: {words}")
        elif is_first:
            result.pros.append(words)
    places, needed = _places(table), places_needed(policy.confidence)
    if is_first and places < needed:
        result.pros.append(
            f"the bounds are rough: {places} held-out places, {needed} are needed for a confidence of "
            f"{policy.confidence:.0%}; accepted for a first model, which replaces none"
        )
    return found


def compare_with_champion(table: CountsTable, champion: CountsTable, policy: Promotion, result: GateResult) -> Json:
    """Compare with the champion on the same scenes: the whole, then the slices. Return the figures for the verdict."""
    of_scene = {scene.scene_id: scene.counts for scene in champion.scenes}
    theirs = [of_scene[scene.scene_id] for scene in table.scenes]
    differences = _compare(table, [scene.counts for scene in table.scenes], theirs, policy, champion.weights_id)
    _check_difference(differences["pooled"], policy, result, places=_places(table))
    return {
        "difference": {name: vars(difference) for name, difference in differences.items()},
        "slices": _check_slices(table, champion, policy, result),
    }


def _compare(
    table: CountsTable, own: Sequence[Counts], other: Sequence[Counts], policy: Promotion, other_name: str
) -> dict[str, Difference]:
    pairs = [Row(scene.place, mine, theirs) for scene, mine, theirs in zip(table.scenes, own, other, strict=True)]
    seed = seed_of(table.weights_id, other_name, table.snapshot_id)
    return compare(pairs, confidence=policy.confidence, samples=policy.bootstrap_samples, seed=seed)


def _places(table: CountsTable) -> int:
    return len({scene.place for scene in table.scenes})


def _check_difference(difference: Difference, policy: Promotion, result: GateResult, *, places: int) -> None:
    words, needed = f"IoU {_words(difference)} against the champion", places_needed(policy.confidence)
    if places < needed:
        result.holds.append(
            f"inconclusive: {words}, but {places} held-out places are too few for a confidence of "
            f"{policy.confidence:.0%}, {needed} are needed; ingest labels of more places, or promote manually"
        )
    elif difference.upper < policy.reject_below:
        result.rejects.append(f"significantly worse: {words}, the upper bound is below {policy.reject_below:+.3f}")
    elif difference.lower > policy.margin:
        result.pros.append(f"{words}: the lower bound exceeds the margin {policy.margin:.3f}")
    else:
        result.holds.append(f"inconclusive: {words}, the lower bound does not exceed the margin {policy.margin:.3f}")


def _check_slices(table: CountsTable, champion: CountsTable, policy: Promotion, result: GateResult) -> list[Json]:
    """Compare slice by slice. Both tables have the same slices: these depend on scenes and labels only."""
    theirs = {(entry.kind, entry.value): entry for entry in all_slices(champion.scenes)}
    lines = []
    for own in all_slices(table.scenes):
        other = theirs[own.kind, own.value]
        change, compared = own.score - other.score, own.scenes >= policy.slice_min_scenes
        fell = compared and change < -policy.slice_limit
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
                f"more than {policy.slice_limit:.3f}"
            )
    return lines


def _words(difference: Difference) -> str:
    return f"{difference.observed:+.3f} (bounds {difference.lower:+.3f} and {difference.upper:+.3f})"
