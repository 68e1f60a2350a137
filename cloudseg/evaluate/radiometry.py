"""Radiometry variants: the same scenes as another sensor, processing level or stretch would deliver them.

A net that is good on its own sensor can fail on pixels that are a third brighter. Each variant changes the pixels and
keeps the label, so the difference of the IoU is the net's alone. Factors and offset: the range that products of one
scene span (top of atmosphere or surface, processing baseline 04.00 of Sentinel-2 adds 0.1); 0.6 is where some sensors
saturate; 0.3558 in 8 bits is ESA's true-color image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cloudseg.bands import NO_DATA, REFLECTANCE_SCALE, TRUE_COLOR
from cloudseg.evaluate.metrics import Counts, pool, rates
from cloudseg.evaluate.scene_result import SceneResult
from cloudseg.records import Json

Reflectance = npt.NDArray[np.float32]
AS_IT_IS: Final = "as it is"
MOST_SCENES: Final = 200
"""Scenes of an evaluation that are predicted in every variant: each costs as much time as all scenes as they are."""
_MOST_DN: Final = np.iinfo(np.uint16).max
_STEPS: Final = 255


@dataclass(frozen=True)
class Variant:
    """A change of the pixels of a scene that keeps its label."""

    name: str
    change: Callable[[Reflectance], Reflectance] | None = None
    """From reflectance to reflectance, pixel by pixel."""
    coarser: int = 1
    """Pixels that are averaged along an axis before anything else."""
    drops_optional: bool = False
    """Whether the scene lacks the optional bands of the weights."""

    def apply(self, dn: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
        """Return changed canonical digital numbers, uint16 of the same shape; no data stays no data."""
        if self.change is None:
            return dn
        changed = np.rint(self.change(dn.astype(np.float32) / np.float32(REFLECTANCE_SCALE)) * REFLECTANCE_SCALE)
        # Observed pixels stay observed: 0 means no data.
        return np.where(dn == NO_DATA, NO_DATA, changed.clip(NO_DATA + 1, _MOST_DN)).astype(np.uint16)


def _gain(factor: float) -> Variant:
    return Variant(f"gain {factor}", lambda reflectance: reflectance * np.float32(factor))


def _in_8_bits(reflectance: Reflectance) -> Reflectance:
    steps = np.rint((reflectance / np.float32(TRUE_COLOR.scale)).clip(0, _STEPS))
    coded: Reflectance = steps * np.float32(TRUE_COLOR.scale)
    return coded


ORIGINAL: Final = Variant(AS_IT_IS)
VARIANTS: Final = (
    _gain(0.5),
    _gain(0.7),
    _gain(1.4),
    Variant("offset 0.1", lambda reflectance: reflectance + np.float32(0.1)),
    Variant("clip 0.6", lambda reflectance: reflectance.clip(max=np.float32(0.6))),
    Variant("true color in 8 bits", _in_8_bits),
    Variant("sensor 2 times coarser", coarser=2),
)
WITHOUT_OPTIONAL: Final = Variant("without optional bands", drops_optional=True)
"""Only of weights that have such bands, on snapshots that have them too; never the worst variant of `robustness`, which
compares all weights."""
SPREAD_OVER: Final = ("gain 0.7", AS_IT_IS, "gain 1.4")
"""The variants that differ by nothing but brightness: between them the IoU should not move."""


def in_variant(scenes: Sequence[SceneResult], name: str) -> list[SceneResult]:
    """Return the scenes that were predicted in a variant, with the counts of it."""
    return [
        scene.model_copy(update={"counts": Counts(**dict(zip(("tp", "fp", "fn", "tn"), cells, strict=True)))})
        for scene in scenes
        if (cells := scene.variants.get(name)) is not None
    ]


def robustness(scenes: Sequence[SceneResult]) -> Json:
    """Return the pooled IoU of each label source in each variant, the worst of them, and the spread.

    The spread is the difference between the highest and the lowest IoU of `SPREAD_OVER`. Only scenes that were
    predicted in every variant count; empty for evaluations older than the variants.
    """
    names = {variant.name for variant in VARIANTS}
    known = [scene for scene in scenes if names <= scene.variants.keys()]
    found: Json = {}
    for source in sorted({scene.source for scene in known}):
        own = [scene for scene in known if scene.source == source]
        iou = {AS_IT_IS: _iou(own)} | {variant.name: _iou(in_variant(own, variant.name)) for variant in VARIANTS}
        level = [iou[name] for name in SPREAD_OVER]
        worst = min(iou, key=lambda name: iou[name])
        if without := in_variant(own, WITHOUT_OPTIONAL.name):
            iou[WITHOUT_OPTIONAL.name] = _iou(without)
        found[source] = {
            "scenes": len(own),
            "iou": iou,
            "worst": iou[worst],
            "worst_variant": worst,
            "spread": max(level) - min(level),
        }
    return found


def _iou(scenes: Sequence[SceneResult]) -> float:
    return rates(pool(scene.counts for scene in scenes))["iou"]
