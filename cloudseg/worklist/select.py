"""Choose from the proposals: the reasons take turns, and no place or sensor fills the list.

Similar examples teach the same thing, so a batch should cover the data (Sener and Savarese 2018, "Active learning for
convolutional neural networks: a core-set approach"). Place and sensor stand in for the distance between examples here.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Final

from cloudseg.worklist.propose import REASONS, Proposal

_OF_A_PLACE: Final = 2
"""Scenes of one place on a list, unless there are too few places to fill it."""


def select(proposals: Sequence[Proposal], count: int) -> list[Proposal]:
    """Return at most `count` proposals for as many scenes, best first; the same proposals give the same list.

    Args:
        proposals: in any order.
        count: length of the list.
    """
    queues = {reason: deque(_ordered(proposals, reason)) for reason in REASONS}
    chosen: list[Proposal] = []
    limits = _Limits(proposals, count)
    passed_over: list[Proposal] = []
    while len(chosen) < count and any(queues.values()):
        for reason in REASONS:
            if len(chosen) < count:
                found = _take(queues[reason], limits, passed_over)
                chosen += [found] if found else []
    for proposal in passed_over:  # the list is not full: sensors may exceed their share, places may not
        if len(chosen) < count and limits.admits(proposal, every_sensor=True):
            limits.add(proposal)
            chosen.append(proposal)
    return chosen


def _ordered(proposals: Iterable[Proposal], reason: str) -> list[Proposal]:
    return sorted(
        (proposal for proposal in proposals if proposal.reason == reason),
        key=lambda proposal: (-proposal.score, proposal.scene.scene_id),
    )


class _Limits:
    """What may still be chosen."""

    def __init__(self, proposals: Sequence[Proposal], count: int) -> None:
        places = {proposal.scene.place for proposal in proposals}
        sensors = {proposal.scene.sensor for proposal in proposals}
        self._of_a_place = max(_OF_A_PLACE, math.ceil(count / max(1, len(places))))
        self._of_a_sensor = math.ceil(count / max(1, len(sensors)))
        self._scenes = set[str]()
        self._places = Counter[str]()
        self._sensors = Counter[str]()

    def admits(self, proposal: Proposal, *, every_sensor: bool = False) -> bool:
        scene = proposal.scene
        return (
            scene.scene_id not in self._scenes
            and self._places[scene.place] < self._of_a_place
            and (every_sensor or self._sensors[scene.sensor] < self._of_a_sensor)
        )

    def add(self, proposal: Proposal) -> None:
        self._scenes.add(proposal.scene.scene_id)
        self._places[proposal.scene.place] += 1
        self._sensors[proposal.scene.sensor] += 1


def _take(queue: deque[Proposal], limits: _Limits, passed_over: list[Proposal]) -> Proposal | None:
    """Return the best proposal of a queue that the limits admit; the others go to `passed_over`, in order."""
    while queue:
        proposal = queue.popleft()
        if limits.admits(proposal):
            limits.add(proposal)
            return proposal
        passed_over.append(proposal)
    return None
