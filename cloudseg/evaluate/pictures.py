"""Pictures of scenes for the report: true color, label, mask, and the difference of the two, side by side."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from cloudseg.evaluate.metrics import rates
from cloudseg.evaluate.mosaic import window_of
from cloudseg.evaluate.panels import SIDE, Canvas, draw_classes, draw_colors, draw_difference, sheet_png
from cloudseg.evaluate.scene import Evaluator
from cloudseg.evaluate.scene_result import SceneResult
from cloudseg.evaluate.slices import is_saturated
from cloudseg.raster.brightness import visible
from cloudseg.raster.probability import classify
from cloudseg.records import Chip, Scene

Why = Literal["best", "worst", "saturated", "random"]
EACH: Final = 3
"""Scenes of each kind."""


@dataclass(frozen=True)
class Choice:
    """A scene for the report, and why it was chosen."""

    why: Why
    result: SceneResult


def choose(scenes: Sequence[SceneResult], seed: str) -> list[Choice]:
    """Choose the scenes that the report shows: best, worst, saturated and random ones, without duplicates.

    Best: highest IoU, of the scenes with 5 to 95 % cloud if there are any. Worst: highest share of wrong pixels, not
    lowest IoU, which is 0 in a cloud-free scene with a single wrong pixel. Saturated: the worst saturated scene; the
    others are excluded if there are unsaturated ones, because they would otherwise fill the group of the worst.

    Args:
        scenes: all scenes of the evaluation.
        seed: of the random ones.
    """
    mixed = [scene for scene in scenes if 0.05 <= scene.cloud_fraction <= 0.95] or list(scenes)
    by_wrong = sorted(scenes, key=lambda scene: (rates(scene.counts)["accuracy"], scene.scene_id))
    unsaturated = [scene for scene in by_wrong if not is_saturated(scene)]
    orders: list[tuple[Why, list[SceneResult]]] = [
        ("best", sorted(mixed, key=lambda scene: (-rates(scene.counts)["iou"], scene.scene_id))),
        ("worst", unsaturated or by_wrong),
        ("saturated", [scene for scene in by_wrong if is_saturated(scene)][:1] if unsaturated else []),
        ("random", random.Random(seed).sample(list(scenes), len(scenes))),  # noqa: S311 -- not a secret, must repeat
    ]
    chosen: list[Choice] = []
    for why, order in orders:
        known = {choice.result.scene_id for choice in chosen}
        chosen += [Choice(why, scene) for scene in order if scene.scene_id not in known][:EACH]
    return chosen


def draw_panels(evaluator: Evaluator, of_scene: list[Chip], scene: Scene) -> bytes:
    """Return a PNG with four panels side by side: RGB, label, mask, difference.

    The scene is decimated to at most twice `SIDE` pixels per side while it is read, so memory does not grow with it.
    """
    canvas = Canvas([window_of(chip) for chip in of_scene], side=2 * SIDE)
    color = np.zeros((*canvas.shape, 3), np.uint8)
    threshold, positions = evaluator.predictor.meta.threshold, visible(evaluator.chips.bands)[:3]
    for (chip, steps), owned in zip(evaluator.iter_probabilities(of_scene, scene), canvas.owned, strict=True):
        dn = evaluator.chips.pixels(chip)[positions, : chip.height, : chip.width]
        label = evaluator.chips.label(chip)[: chip.height, : chip.width]
        canvas.put(window_of(chip), owned, label, classify(steps, threshold))
        canvas.put_layer(window_of(chip), owned, color, draw_colors(dn))
    return sheet_png(
        [
            color,
            draw_classes(canvas.label),
            draw_classes(canvas.mask),
            draw_difference(canvas.label, canvas.mask, color),
        ]
    )
