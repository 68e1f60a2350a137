"""The paired bootstrap over places: confidence bounds of the IoU difference of two masks on the same pixels.

Scenes of one place resemble each other, so places are drawn, not scenes (a cluster bootstrap: Field and Welsh 2007,
"Bootstrapping clustered data"). Both masks are counted on the same draw, so the difficulty of the places cancels out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cloudseg.evaluate.metrics import Counts, rates
from cloudseg.keys import canonical_json, sha256_of

Float = npt.NDArray[np.float64]
_CHUNK: Final = 256
"""Draws that are held in memory at a time."""


@dataclass(frozen=True)
class Row:
    """Counts of two masks on the same scene."""

    place: str
    challenger: Counts
    other: Counts


@dataclass(frozen=True)
class Difference:
    """The IoU of the challenger minus that of the other mask, with a one-sided lower and a one-sided upper bound."""

    observed: float
    lower: float
    upper: float


def seed_of(*ids: str) -> int:
    """Return the bootstrap seed of a comparison of these ids, so that its bounds are reproducible."""
    return int(sha256_of(canonical_json(list(ids)))[:16], 16)


def compare(rows: Sequence[Row], *, confidence: float, samples: int, seed: int) -> dict[str, Difference]:
    """Compare two masks by pooled IoU and by scene-mean IoU.

    Memory: 256 draws at a time.

    Args:
        rows: every scene once.
        confidence: of each bound, 0.5..1.
        samples: number of draws.
        seed: of the draws.

    Returns:
        The differences, under 'pooled' and 'scene_mean'.
    """
    places = sorted({row.place for row in rows})
    sums = _sums_by_place(rows, places)
    random = np.random.default_rng(seed)
    drawn = [
        _differences(
            random.multinomial(len(places), np.full(len(places), 1 / len(places)), size=min(_CHUNK, samples - start)),
            sums,
        )
        for start in range(0, samples, _CHUNK)
    ]
    observed = _differences(np.ones((1, len(places)), np.int64), sums)
    return {
        name: Difference(
            observed=float(observed[index][0]),
            lower=float(np.quantile(all_draws, 1 - confidence)),
            upper=float(np.quantile(all_draws, confidence)),
        )
        for index, name in enumerate(("pooled", "scene_mean"))
        for all_draws in [np.concatenate([draw[index] for draw in drawn])]
    }


def spread(scenes: Sequence[tuple[str, Counts]], *, confidence: float, samples: int, seed: int) -> tuple[float, float]:
    """Return one-sided lower and upper bounds of the pooled IoU of one mask.

    Args:
        scenes: place and counts of every scene.
        confidence: of each bound, 0.5..1.
        samples: number of draws of places.
        seed: of the draws.
    """
    nothing = Counts(fn=1)  # its IoU is 0 in every draw, so that the difference is the mask's own IoU
    found = compare(
        [Row(place, counts, nothing) for place, counts in scenes], confidence=confidence, samples=samples, seed=seed
    )["pooled"]
    return found.lower, found.upper


def _sums_by_place(rows: Sequence[Row], places: Sequence[str]) -> Float:
    """Return `(place, 7)`: intersection and union of challenger and other, sum of scene IoUs of both, scenes."""
    position = {place: n for n, place in enumerate(places)}
    sums = np.zeros((len(places), 7))
    for row in rows:
        c, o = row.challenger, row.other
        sums[position[row.place]] += (
            c.tp,
            c.tp + c.fp + c.fn,
            o.tp,
            o.tp + o.fp + o.fn,
            rates(c)["iou"],
            rates(o)["iou"],
            1,
        )
    return sums


def _differences(draws: npt.NDArray[np.int64], sums: Float) -> tuple[Float, Float]:
    """Return the difference of pooled and of scene-mean IoU for every draw `(draw, place)` of multiplicities."""
    total = draws @ sums
    pooled = _iou(total[:, 0], total[:, 1]) - _iou(total[:, 2], total[:, 3])
    scene_mean: Float = (total[:, 4] - total[:, 5]) / total[:, 6]
    return pooled, scene_mean


def _iou(intersection: Float, union: Float) -> Float:
    return np.where(union > 0, intersection / np.maximum(union, 1), 1.0)
