"""Pictures of scenes for the report: true color, label, mask, and the difference of the two, side by side."""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA, REFLECTANCE_SCALE
from cloudseg.evaluate.brightness import visible
from cloudseg.evaluate.metrics import rates
from cloudseg.evaluate.mosaic import owned_windows, window_of
from cloudseg.evaluate.scene import Evaluator, SceneResult
from cloudseg.evaluate.slices import is_saturated
from cloudseg.grid import Window
from cloudseg.raster.probability import classify
from cloudseg.records import Chip, Scene

Why = Literal["best", "worst", "saturated", "random"]
EACH: Final = 3
"""Scenes of each kind."""
SIDE: Final = 288
"""Longest side of a panel in pixels."""
_GAP: Final = 6
_FRAME: Final = (150, 158, 168, 255)
"""A thin line around a panel, so that white cloud is distinguishable from a white page."""
_WHITE_AT: Final = 0.3558 * REFLECTANCE_SCALE
"""Reflectance shown as white: where the 8-bit true color of Sentinel-2 ends."""
# Colors of Okabe and Ito (2008), which color-blind readers can distinguish.
COLORS: Final = {
    "clear": (48, 52, 58),
    "cloud": (245, 247, 250),
    "none": (140, 128, 150),
    "missed": (0, 114, 178),
    "false": (230, 120, 0),
}

UInt8 = npt.NDArray[np.uint8]


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
    canvas = _Canvas([window_of(chip) for chip in of_scene])
    threshold, positions = evaluator.predictor.meta.threshold, visible(evaluator.chips.bands)[:3]
    for (chip, steps), owned in zip(evaluator.iter_probabilities(of_scene, scene), canvas.owned, strict=True):
        dn = evaluator.chips.pixels(chip)[positions, : chip.height, : chip.width]
        label = evaluator.chips.label(chip)[: chip.height, : chip.width]
        canvas.put(window_of(chip), owned, _colors(dn), label, classify(steps, threshold))
    return _png(
        [
            canvas.color,
            _classes(canvas.label),
            _classes(canvas.mask),
            _difference(canvas.label, canvas.mask, canvas.color),
        ]
    )


class _Canvas:
    """A decimated scene: every `step`-th row and column."""

    def __init__(self, windows: list[Window]) -> None:
        height, width = max(w.row_off + w.height for w in windows), max(w.col_off + w.width for w in windows)
        self.step = max(1, -(-max(height, width) // (2 * SIDE)))
        shape = (-(-height // self.step), -(-width // self.step))
        self.owned = owned_windows(windows)
        self.color = np.zeros((*shape, 3), np.uint8)
        self.label, self.mask = np.full(shape, MASK_NO_DATA, np.uint8), np.full(shape, MASK_NO_DATA, np.uint8)

    def put(self, window: Window, owned: Window, color: UInt8, label: UInt8, mask: UInt8) -> None:
        """Write the owned part of a chip."""
        rows = _multiples(owned.row_off, owned.height, self.step)
        cols = _multiples(owned.col_off, owned.width, self.step)
        source, target = (
            np.ix_(rows - window.row_off, cols - window.col_off),
            np.ix_(rows // self.step, cols // self.step),
        )
        for canvas, part in ((self.color, color), (self.label, label), (self.mask, mask)):
            canvas[target] = part[source]


def _multiples(start: int, length: int, step: int) -> npt.NDArray[np.intp]:
    """Return the multiples of `step` in `start` .. `start + length - 1`."""
    return np.arange(-(-start // step) * step, start + length, step)


def _colors(dn: npt.NDArray[np.uint16]) -> UInt8:
    """Return `(row, col, 3)`; fewer than three bands are shown as gray."""
    shown: UInt8 = np.clip(dn * (255 / _WHITE_AT), 0, 255).astype(np.uint8)
    of_three = shown if len(shown) == 3 else shown[:1].repeat(3, axis=0)
    picture: UInt8 = np.moveaxis(of_three, 0, 2)
    return picture


def _classes(classes: UInt8) -> UInt8:
    picture = np.full((*classes.shape, 3), COLORS["none"], np.uint8)
    picture[classes == MASK_CLEAR], picture[classes == MASK_CLOUD] = COLORS["clear"], COLORS["cloud"]
    return picture


def _difference(label: UInt8, mask: UInt8, color: UInt8) -> UInt8:
    """Return the scene in dark gray, with missed and false cloud in color."""
    picture: UInt8 = (color.mean(axis=2, keepdims=True) * 0.55 + 20).astype(np.uint8).repeat(3, axis=2)
    picture[label == MASK_NO_DATA] = COLORS["none"]
    picture[(label == MASK_CLOUD) & (mask == MASK_CLEAR)] = COLORS["missed"]
    picture[(label == MASK_CLEAR) & (mask == MASK_CLOUD)] = COLORS["false"]
    return picture


def _png(panels: list[UInt8]) -> bytes:
    """Return panels side by side as a PNG; RGB is resampled with a Lanczos filter, classes by nearest neighbor."""
    height, width = panels[0].shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    sheet = Image.new("RGBA", (len(panels) * (size[0] + _GAP) - _GAP, size[1]), (0, 0, 0, 0))
    for n, panel in enumerate(panels):
        how = Image.Resampling.LANCZOS if n == 0 else Image.Resampling.NEAREST
        left = n * (size[0] + _GAP)
        sheet.paste(Image.fromarray(panel).resize(size, how), (left, 0))
        ImageDraw.Draw(sheet).rectangle((left, 0, left + size[0] - 1, size[1] - 1), outline=_FRAME)
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()
