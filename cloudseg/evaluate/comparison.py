"""Weighs counts against counts: what speaks for a challenger and what against it.

Pure; no store, no catalog, no net.
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
    """Return how many places it takes to be this sure that one mask is better than another.

    The clearest result of n places, better at every one, comes by chance once in 2**n (sign test): 5 places for 95 %.
    With fewer, bootstrap draws repeat each other and the bounds are narrower than they should be.
    """
    return math.ceil(math.log2(1 / (1 - confidence)) - 1e-9)


@dataclass
class GateResult:
    """Reasons, collected step by step."""

    against: list[str] = field(default_factory=list)
    """Each rejects the challenger."""
    doubts: list[str] = field(default_factory=list)
    """Each holds it back."""
    favour: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        """The verdict."""
        return "REJECT" if self.against else "HOLD" if self.doubts else "PROMOTE"

    @property
    def reasons(self) -> list[str]:
        """All of them, those that decide first."""
        return self.against + self.doubts + self.favour


def compare_with_trivial_masks(
    table: CountsTable, policy: Promotion, finding: GateResult, *, is_first: bool
) -> dict[str, Difference]:
    """Compare with the trivial masks: nobody may be worse, and the first model must be surely better.

    As sure as the places allow: with very few of them the bounds are rough, but a first model takes nobody's office.
    """
    own = [scene.counts for scene in table.scenes]
    found = {}
    for name, counts in trivial_masks(table.scenes).items():
        difference = _compare(table, own, counts, policy, name)["pooled"]
        found[name] = difference
        words = f"IoU {_words(difference)} against the trivial mask '{name}'"
        if difference.observed < 0:
            finding.against.append(f"worse than nothing learned: {words}")
        elif is_first and difference.lower <= 0:
            finding.doubts.append(f"not surely better than nothing learned: {words}")
        elif is_first:
            finding.favour.append(words)
    places, needed = _places(table), places_needed(policy.confidence)
    if is_first and places < needed:
        finding.favour.append(
            f"the bounds are rough: {places} held-out places, {needed} are needed to be {policy.confidence:.0%} sure; enough for a first "
            "model, which takes nobody's office"
        )
    return found


def compare_with_champion(table: CountsTable, champion: CountsTable, policy: Promotion, finding: GateResult) -> Json:
    """Compare with the champion on the same scenes: the whole, then the slices. Return the figures for the verdict."""
    of_scene = {scene.scene_id: scene.counts for scene in champion.scenes}
    theirs = [of_scene[scene.scene_id] for scene in table.scenes]
    differences = _compare(table, [scene.counts for scene in table.scenes], theirs, policy, champion.weights_id)
    _weigh_difference(differences["pooled"], policy, finding, places=_places(table))
    return {
        "difference": {name: vars(difference) for name, difference in differences.items()},
        "slices": _weigh_slices(table, champion, policy, finding),
    }


def _compare(
    table: CountsTable, own: Sequence[Counts], other: Sequence[Counts], policy: Promotion, other_name: str
) -> dict[str, Difference]:
    pairs = [Row(scene.place, mine, theirs) for scene, mine, theirs in zip(table.scenes, own, other, strict=True)]
    seed = seed_of(table.weights_id, other_name, table.snapshot_id)
    return compare(pairs, confidence=policy.confidence, samples=policy.bootstrap_samples, seed=seed)


def _places(table: CountsTable) -> int:
    return len({scene.place for scene in table.scenes})


def _weigh_difference(difference: Difference, policy: Promotion, finding: GateResult, *, places: int) -> None:
    words, needed = f"IoU {_words(difference)} against the champion", places_needed(policy.confidence)
    if places < needed:
        finding.doubts.append(
            f"nobody can be sure: {words}, but {places} held-out places are too few to be {policy.confidence:.0%} sure of anything, "
            f"{needed} are needed; ingest labels of more places, or let a person decide"
        )
    elif difference.upper < policy.reject_below:
        finding.against.append(f"surely worse: {words}, even the upper bound is below {policy.reject_below:+.3f}")
    elif difference.lower > policy.margin:
        finding.favour.append(f"{words}: the lower bound clears the margin {policy.margin:.3f}")
    else:
        finding.doubts.append(
            f"not surely better: {words}, the lower bound does not clear the margin {policy.margin:.3f}"
        )


def _weigh_slices(table: CountsTable, champion: CountsTable, policy: Promotion, finding: GateResult) -> list[Json]:
    """Compare slice by slice. Both tables slice alike: a slice depends on scenes and labels only."""
    theirs = {(entry.kind, entry.value): entry for entry in all_slices(champion.scenes)}
    lines = []
    for own in all_slices(table.scenes):
        other = theirs[own.kind, own.value]
        change, judged = own.score - other.score, own.scenes >= policy.slice_min_scenes
        fell = judged and change < -policy.slice_limit
        lines.append(
            {
                "kind": own.kind,
                "value": own.value,
                "scenes": own.scenes,
                "measure": own.measure,
                "challenger": own.score,
                "champion": other.score,
                "change": change,
                "judged": judged,
                "fell": fell,
            }
        )
        if fell:
            finding.doubts.append(
                f"the slice {own.kind} '{own.value}' ({own.scenes} scenes) falls by {-change:.3f} ({own.measure}), "
                f"more than {policy.slice_limit:.3f}"
            )
    return lines


def _words(difference: Difference) -> str:
    return f"{difference.observed:+.3f} (bounds {difference.lower:+.3f} and {difference.upper:+.3f})"
