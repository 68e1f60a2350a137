"""From counts to proposals: the best windows of a scene for each reason, with the reason in words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from cloudseg.catalog.worklist_rows import MaskedScene
from cloudseg.grid import Window
from cloudseg.records import Label, Mask, WorklistReason, WorklistWindow
from cloudseg.worklist.measure import AlwaysCloud, WindowCounts
from cloudseg.worklist.scores import (
    ALWAYS,
    NEAR,
    Counts,
    confidence,
    expected_always,
    label_error,
    uncertainty,
)

T = TypeVar("T")
REASONS: Final[tuple[WorklistReason, ...]] = ("label_audit", "label_error", "always_cloud", "disagreement", "uncertain")
"""In the order in which they take turns: errors that the model learns or publishes first."""
MOST_WINDOWS: Final = 3
"""Windows of a scene: what a person labels in one sitting."""
_LEAST_SCORE: Final = 0.01
"""A window with a smaller score teaches nothing: one pixel in a hundred."""
_LEAST_FRACTION: Final = 0.25
"""Share of a window's pixels that must have been counted, so that a sliver at the edge of a swath does not win."""


@dataclass(frozen=True)
class Proposal:
    """A scene that may be put on the list."""

    scene: MaskedScene
    reason: WorklistReason
    score: float
    words: str
    windows: tuple[WorklistWindow, ...]


def propose(
    scene: MaskedScene,
    counted: Sequence[WindowCounts],
    *,
    labels: Sequence[Label],
    other: Mask | None,
    second_opinion: str | None = None,
) -> list[Proposal]:
    """Return at most one proposal for each reason that follows from one scene alone.

    Args:
        scene: the scene.
        counted: its windows.
        labels: its accepted labels, oldest first.
        other: its mask by other weights, if there is one.
        second_opinion: name of the model of others that was asked.
    """
    found = [_uncertain(scene, counted)]
    if other is not None:
        found.append(_disagreement(scene, counted, other))
    if labels:
        found.append(_label_error(scene, counted, labels[-1]))
        if second_opinion is not None:
            found.append(_label_audit(scene, counted, labels[-1], second_opinion))
    return [proposal for proposal in found if proposal is not None]


def propose_always_cloud(scenes: Sequence[MaskedScene], counted: Sequence[AlwaysCloud]) -> Proposal | None:
    """Return the proposal of a place: its latest scene, where its pixels are cloud more often than chance makes them.

    Args:
        scenes: of one place and grid, latest first.
        counted: the windows of that grid.
    """
    chance = expected_always([scene.cloud_fraction for scene in scenes])
    scored = [
        (max(0.0, found.fraction - chance), found)
        for found in counted
        if found.observed >= _LEAST_FRACTION * found.window.height * found.window.width
    ]
    return _best(
        scenes[0],
        "always_cloud",
        [(score, found.window, found) for score, found in scored],
        lambda found: (
            f"{_percent(found.fraction)} of the pixels are cloud on at least {ALWAYS:.0%} of {len(scenes)} mostly "
            f"clear dates, {_percent(chance)} expected by chance: roof, snow, sand, salt or a seam?"
        ),
    )


def _uncertain(scene: MaskedScene, counted: Sequence[WindowCounts]) -> Proposal | None:
    scored = [
        (uncertainty(found.unlabeled, scene.threshold), found)
        for found in counted
        if _enough(found, int(found.unlabeled.sum()))
    ]
    return _best(
        scene,
        "uncertain",
        # Sure pixels have some entropy, too: a window of them is no reason to label it.
        [
            (measured.entropy, found.window, measured)
            for measured, found in scored
            if measured.near_fraction >= _LEAST_SCORE
        ],
        lambda measured: (
            f"the model is undecided: {_percent(measured.near_fraction)} of the unlabeled pixels are within {NEAR:g} "
            f"of the threshold {scene.threshold:.2f}, mean entropy {measured.entropy:.2f} bit"
        ),
    )


def _disagreement(scene: MaskedScene, counted: Sequence[WindowCounts], other: Mask) -> Proposal | None:
    scored = [(found.differing / found.compared, found) for found in counted if _enough(found, found.compared)]
    return _best(
        scene,
        "disagreement",
        [(share, found.window, share) for share, found in scored],
        lambda share: f"this mask and the one by {other.weights_id} differ in {_percent(share)} of the pixels",
    )


def _label_error(scene: MaskedScene, counted: Sequence[WindowCounts], newest: Label) -> Proposal | None:
    clear, cloud = (_sum([getattr(found, name) for found in counted]) for name in ("clear", "cloud"))
    sure = confidence(clear, cloud, scene.threshold)
    scored = [
        (label_error(found.clear, found.cloud, scene.threshold, sure), found)
        for found in counted
        if _enough(found, int(found.clear.sum() + found.cloud.sum()))
    ]
    return _best(
        scene,
        "label_error",
        [(error.score, found.window, error) for error, found in scored],
        lambda error: (
            f"the label (newest version {newest.version}, {newest.source}) and the mask contradict each other in "
            f"{_percent(error.score)} of the labeled pixels: {error.clear} labeled clear, {error.cloud} labeled cloud"
        ),
    )


def _label_audit(
    scene: MaskedScene, counted: Sequence[WindowCounts], newest: Label, second_opinion: str
) -> Proposal | None:
    scored = [
        ((found.second.against_clear + found.second.against_cloud) / found.second.labeled, found.window, found.second)
        for found in counted
        if found.second is not None and _enough(found, found.second.labeled)
    ]
    return _best(
        scene,
        "label_audit",
        scored,
        lambda against: (
            f"the mask and {second_opinion} agree, and contradict the label (newest version {newest.version}, "
            f"{newest.source}) in {_percent((against.against_clear + against.against_cloud) / against.labeled)} of the "
            f"labeled pixels: {against.against_clear} labeled clear, {against.against_cloud} labeled cloud"
        ),
    )


def _best(
    scene: MaskedScene,
    reason: WorklistReason,
    scored: Sequence[tuple[float, Window, T]],
    words: Callable[[T], str],
) -> Proposal | None:
    """Return the proposal of the best windows, None if none is worth it; equal scores are ordered by position."""
    best = sorted((entry for entry in scored if entry[0] >= _LEAST_SCORE), key=lambda entry: (-entry[0], entry[1]))
    if not best:
        return None
    windows = [
        WorklistWindow(
            row_off=window.row_off,
            col_off=window.col_off,
            height=window.height,
            width=window.width,
            score=round(score, 4),
        )
        for score, window, _ in best[:MOST_WINDOWS]
    ]
    return Proposal(scene, reason, windows[0].score, words(best[0][2]), tuple(windows))


def _enough(found: WindowCounts, counted: int) -> bool:
    return counted >= _LEAST_FRACTION * found.pixels


def _sum(counts: Sequence[Counts]) -> Counts:
    total: Counts = np.sum(counts, axis=0)
    return total


def _percent(fraction: float) -> str:
    return f"{fraction:.0%}" if fraction >= 0.1 else f"{fraction:.1%}"
