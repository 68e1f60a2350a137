"""A second opinion for the report: how far masks, labels and a model of others agree on a split. Never for the gate."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass

import numpy as np

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA
from cloudseg.evaluate.mosaic import owned_windows, window_of
from cloudseg.evaluate.scene import Evaluator, Facts, UInt8
from cloudseg.grid import decimation
from cloudseg.metrics import share
from cloudseg.raster.probability import classify
from cloudseg.records import Chip, Json, Scene
from cloudseg.teacher import Teacher


@dataclass(frozen=True)
class Agreement:
    """Labeled, observed pixels, by intersection and union of the clouds of two."""

    masks_both: int = 0
    masks_either: int = 0
    """Clouds of our mask and of the model of others."""
    labels_both: int = 0
    labels_either: int = 0
    """Clouds of the label and of the model of others."""
    against_label: int = 0
    """Pixels whose label both models contradict."""
    pixels: int = 0

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def ask(
    evaluator: Evaluator,
    scenes: Mapping[str, list[Chip]],
    facts: Mapping[str, Facts],
    teacher: Teacher,
    snapshot_resolution_m: float | None,
) -> Json:
    """Return the agreement on the scenes of a split, for the report; every scene is predicted once more.

    Args:
        evaluator: of the weights.
        scenes: chips by scene id.
        facts: of the scenes.
        teacher: the model of others, which masks every chip alone.
        snapshot_resolution_m: pixel size that finer scenes were downsampled to in the snapshot, None for their own.
    """
    total = Agreement()
    for name, of_scene in scenes.items():
        scene = facts[name].scene
        own = scene.resolution_m
        resolution_m = None if own is None else own * decimation(own, snapshot_resolution_m)
        total += _of_scene(evaluator, of_scene, scene, teacher, resolution_m)
    return {
        "model": teacher.name,
        "scenes": len(scenes),
        "pixels": total.pixels,
        "iou_with_masks": round(share(total.masks_both, total.masks_either), 4),
        "iou_with_labels": round(share(total.labels_both, total.labels_either), 4),
        "against_label": round(total.against_label / total.pixels, 4) if total.pixels else 0.0,
    }


def _of_scene(
    evaluator: Evaluator, of_scene: list[Chip], scene: Scene, teacher: Teacher, resolution_m: float | None
) -> Agreement:
    total = Agreement()
    owned = owned_windows([window_of(chip) for chip in of_scene])
    for (chip, steps), own in zip(evaluator.iter_probabilities(of_scene, scene), owned, strict=True):
        part = own.within(window_of(chip))
        dn = evaluator.chips.pixels(chip)[:, : chip.height, : chip.width]
        second = teacher.mask_pixels(dn, evaluator.chips.bands, resolution_m)
        label = evaluator.chips.label(chip)[: chip.height, : chip.width]
        mask = classify(steps, evaluator.predictor.meta.threshold)
        total += compare(mask[part], label[part], second[part])
    return total


def compare(mask: UInt8, label: UInt8, second: UInt8) -> Agreement:
    """Return the agreement of three masks `(row, col)`: 0 clear, 1 cloud, 255 none."""
    known = (mask != MASK_NO_DATA) & (second != MASK_NO_DATA) & ((label == MASK_CLEAR) | (label == MASK_CLOUD))
    ours, labeled, theirs = (classes[known] == MASK_CLOUD for classes in (mask, label, second))
    counted = (
        ours & theirs,
        ours | theirs,
        labeled & theirs,
        labeled | theirs,
        (ours == theirs) & (ours != labeled),
        np.ones_like(ours),
    )
    return Agreement(*(int(np.count_nonzero(cells)) for cells in counted))
