"""Augmentation of training chips: what is drawn, on the host, and how it is applied, on any device.

Every random number comes from the generator that is passed in. A value of the recipe at its default draws none, and
values that were added later draw after those that existed before: a training of an older recipe goes on as it began.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from cloudseg.bands import MASK_NO_DATA, RGB
from cloudseg.recipe import Augment, Recipe

Interpolation = Literal["antialiased", "bilinear", "nearest"]
_INTERPOLATIONS: Final[tuple[Interpolation, ...]] = ("antialiased", "bilinear", "nearest")
_MIN_WINDOW: Final = 16
"""Pixels per side of the smallest window that a zoom may enlarge."""
_DARKEST_SATURATION: Final = 0.3
"""Reflectance; lowest level at which `saturate` clips."""
_HAZY: Final = 0.5
"""Probability of an offset, if the recipe has one."""
_BENT: Final = 0.5
"""Probability of a power, if the recipe has one."""
_RECTANGLE_AREA: Final = (0.1, 0.5)
"""Of the chip: range in the training of OmniCloudMask (Wright et al. 2025, `training/augs.py` of its repository)."""
_RECTANGLE_ASPECT: Final = 3.3
"""Longest side by shortest: Random Erasing (Zhong et al. 2020)."""


@dataclass(frozen=True)
class Sample:
    """One chip or crop: reflectance float32 `(band, row, col)`, label uint8 and valid bool `(row, col)`."""

    reflectance: torch.Tensor
    label: torch.Tensor
    valid: torch.Tensor


@dataclass(frozen=True)
class Box:
    """Rows `top .. bottom - 1` and columns `left .. right - 1` of a sample."""

    top: int
    bottom: int
    left: int
    right: int


_NOWHERE: Final = Box(0, 0, 0, 0)


@dataclass(frozen=True)
class Rectangle(Box):
    """Constant pixels of the bands in `covered`."""

    covered: npt.NDArray[np.bool_]
    """One value per band."""
    reflectance: npt.NDArray[np.float32]
    """One value per band."""


@dataclass(frozen=True)
class Draw:
    """All random parameters of one sample."""

    side: int
    """Rows and columns of the window of the chip; it is resized to the size of the batch."""
    row: int
    col: int
    flips: tuple[int, ...] = ()
    """Axes of a raster that are reversed."""
    turns: int = 0
    """Rotations by 90 degrees, after the flips."""
    factor: npt.NDArray[np.float32] | None = None
    """Of the reflectance, one value per band; None if the recipe has no gain."""
    offset: float = 0.0
    """Reflectance added after the factor."""
    ceiling: float = math.inf
    """Reflectance at which a saturated detector clips, after the offset."""
    rectangle: Rectangle | None = None
    dropped: bool = False
    """Whether the net sees red, green and blue alone."""
    interpolation: Interpolation = "antialiased"
    sharpness: float = 1.0
    """Of the difference from the mean of the pixels around; before the factor of the reflectance."""
    power: float = 1.0
    """Exponent of reflectance over the clip; before everything else that changes reflectance."""
    gray: bool = False
    """Whether red, green and blue are their mean, after the power."""
    mixed: Box | None = None
    """What is taken from the next sample of the batch."""

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the chip."""
        return slice(self.row, self.row + self.side), slice(self.col, self.col + self.side)


class Augmentation:
    """The augmentation of a recipe for samples of one size.

    Args:
        recipe: augmentation, bands and clip.
        size: rows and columns of a sample.
        chip_size: rows and columns of a chip, from which a sample is cut.
    """

    def __init__(self, recipe: Recipe, *, size: int, chip_size: int) -> None:
        self._augment, self._clip = recipe.augment, recipe.input.clip
        self._size, self._chip_size = size, chip_size
        self._extra = np.array([band not in RGB for band in recipe.model.bands])

    # --- draws --------------------------------------------------------------------------------------------------------

    def draw(self, rng: np.random.Generator, inside: tuple[int, int]) -> Draw:
        """Draw the parameters of a sample.

        Args:
            rng: the only source of randomness; the order of its calls is fixed, because older trainings resume.
            inside: rows and columns of the chip that are not padding; a window stays inside if it fits.
        """
        augment, bands = self._augment, len(self._extra)
        # A zoom of z takes a window of 1/z of the side and resizes it: the whole chip is the largest possible window.
        side = min(self._chip_size, max(_MIN_WINDOW, round(self._size / _draw_zoom(rng, augment))))
        row, col = (int(rng.integers(max(0, min(pixels, self._chip_size) - side) + 1)) for pixels in inside)
        flips = tuple(axis for axis in (-1, -2) if augment.flip and rng.random() < 0.5)
        turns = int(rng.integers(4)) if augment.rotate90 else 0
        common = _log_uniform(rng, augment.gain)
        factor = common * np.array([_log_uniform(rng, augment.band_gain) for _ in range(bands)])
        ceiling = math.inf
        if augment.saturate and rng.random() < augment.saturate:
            ceiling = float(rng.uniform(min(_DARKEST_SATURATION, self._clip), self._clip))
        # Values that came later: each draws after all that existed before it.
        hazy = augment.offset and rng.random() < _HAZY
        offset = float(rng.uniform(0, augment.offset)) if hazy else 0.0
        covered = augment.rectangle and rng.random() < augment.rectangle
        rectangle = _draw_rectangle(rng, self._size, bands, self._clip) if covered else None
        dropped = bool(augment.drop_bands and rng.random() < augment.drop_bands)
        random = augment.interpolation == "random"
        interpolation = _INTERPOLATIONS[int(rng.integers(len(_INTERPOLATIONS)))] if random else "antialiased"
        sharpness = _log_uniform(rng, augment.sharpness)
        bent = augment.power and rng.random() < _BENT
        return Draw(
            side=side,
            row=row,
            col=col,
            flips=flips,
            turns=turns,
            factor=factor.astype(np.float32) if augment.gain or augment.band_gain else None,
            offset=offset,
            ceiling=ceiling,
            rectangle=rectangle,
            dropped=dropped,
            interpolation=interpolation,
            sharpness=sharpness,
            power=_log_uniform(rng, augment.power) if bent else 1.0,
            gray=bool(augment.gray and rng.random() < augment.gray),
            mixed=_draw_box(rng, self._size) if augment.cutmix and rng.random() < augment.cutmix else None,
        )

    # --- geometry, sample by sample: windows have different sizes -----------------------------------------------------

    def change_geometry(self, window: Sample, draw: Draw) -> Sample:
        """Return the sample that the draw makes of its window of the chip."""
        sample = _resize(window, self._size, draw.interpolation)

        def transform(raster: torch.Tensor) -> torch.Tensor:
            return torch.rot90(raster.flip(draw.flips) if draw.flips else raster, draw.turns, (-2, -1))

        return Sample(transform(sample.reflectance), transform(sample.label), transform(sample.valid))

    # --- mixing and radiometry, of a whole batch: after the geometry --------------------------------------------------

    def mix(
        self, reflectance: torch.Tensor, label: torch.Tensor, valid: torch.Tensor, draws: Sequence[Draw]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the samples with the boxes of their draws taken from the next sample: CutMix (Yun et al. 2019).

        A cloud is cut from what lies around it, so that the net learns it by itself and not by its scene.

        Args:
            reflectance: float32 `(sample, band, row, col)`.
            label: uint8 `(sample, row, col)`.
            valid: bool `(sample, row, col)`.
            draws: one for each sample; the first sample follows the last.
        """
        if not any(draw.mixed for draw in draws):
            return reflectance, label, valid
        inside = self._inside([draw.mixed or _NOWHERE for draw in draws], reflectance.device)

        def take(own: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
            return torch.where(inside, own.roll(-1, 0), own)

        return take(reflectance, inside[:, None]), take(label, inside), take(valid, inside)

    def change_radiometry(
        self, reflectance: torch.Tensor, label: torch.Tensor, draws: Sequence[Draw]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Apply power, gray, sharpness, factor, offset, ceiling and rectangle, in this order, in place.

        Args:
            reflectance: float32 `(sample, band, row, col)`.
            label: uint8 `(sample, row, col)`.
            draws: one for each sample.

        Returns:
            Reflectance and label; the label is 255 where a rectangle left no band that the net sees.
        """
        device = reflectance.device
        if self._augment.power:
            exponents = _per_sample([[draw.power] for draw in draws], device)
            reflectance.div_(self._clip).pow_(exponents).mul_(self._clip)
        if any(draw.gray for draw in draws):
            chosen = np.array([[draw.gray] for draw in draws]) & ~self._extra
            mean = reflectance[:, ~self._extra].mean(dim=1, keepdim=True)
            torch.where(_to_device(chosen, device)[:, :, None, None], mean, reflectance, out=reflectance)
        if self._augment.sharpness:
            _sharpen(reflectance, _per_sample([[draw.sharpness] for draw in draws], device))
        factors = [draw.factor for draw in draws if draw.factor is not None]
        if factors:
            reflectance.mul_(_per_sample(factors, device))
        if self._augment.offset:
            reflectance.add_(_per_sample([[draw.offset] for draw in draws], device))
        if self._augment.saturate:
            ceilings = _per_sample([[draw.ceiling] for draw in draws], device)
            torch.minimum(reflectance, ceilings, out=reflectance)
        if any(draw.rectangle for draw in draws):
            self._cover(reflectance, label, draws)
        return reflectance, label

    def drop_bands(self, x: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
        """Set the bands that are dropped to 0 in the net's input `(sample, band, row, col)`, in place."""
        if not any(draw.dropped for draw in draws):
            return x
        gone = _to_device(np.array([[draw.dropped] for draw in draws]) & self._extra, x.device)
        return x.masked_fill_(gone[:, :, None, None], 0.0)

    def _cover(self, reflectance: torch.Tensor, label: torch.Tensor, draws: Sequence[Draw]) -> None:
        """Write the rectangles; a mask of the whole batch instead of slices, so that a GPU needs no call per sample."""
        nothing = Rectangle(0, 0, 0, 0, np.zeros_like(self._extra), np.zeros(len(self._extra), np.float32))
        found, device = [draw.rectangle or nothing for draw in draws], reflectance.device
        covered = np.stack([r.covered for r in found])
        blind = np.stack(
            [(r.covered | (draw.dropped & self._extra)).all() for r, draw in zip(found, draws, strict=True)]
        )
        inside = self._inside(found, device)
        changed = inside[:, None] & _to_device(covered, device)[:, :, None, None]
        values = _per_sample([r.reflectance for r in found], device)
        torch.where(changed, values, reflectance, out=reflectance)
        label.masked_fill_(inside & _to_device(blind, device)[:, None, None], MASK_NO_DATA)

    def _inside(self, boxes: Sequence[Box], device: torch.device) -> torch.Tensor:
        """Return the pixels in the box of each sample, bool `(sample, row, col)`."""
        pixels = np.arange(self._size)
        rows = np.stack([(pixels >= box.top) & (pixels < box.bottom) for box in boxes])
        cols = np.stack([(pixels >= box.left) & (pixels < box.right) for box in boxes])
        return _to_device(rows, device)[:, :, None] & _to_device(cols, device)[:, None, :]


def _sharpen(reflectance: torch.Tensor, factor: torch.Tensor) -> None:
    """Multiply the difference from the mean of the 3 x 3 pixels around, in place; pixels without data do not count."""
    around = functional.avg_pool2d(reflectance, 3, stride=1, padding=1)
    seen = functional.avg_pool2d((reflectance != 0).to(reflectance.dtype), 3, stride=1, padding=1)
    around.div_(seen.clamp_(min=1 / 9))
    torch.lerp(around, reflectance, factor, out=reflectance)
    reflectance.clamp_(min=0)


def _draw_zoom(rng: np.random.Generator, augment: Augment) -> float:
    """Draw the zoom: above 1 enlarges the ground."""
    if not isinstance(augment.scale, tuple):
        return _log_uniform(rng, augment.scale)
    smallest, largest = augment.scale
    return math.exp(rng.uniform(math.log(smallest), math.log(largest)))


def _log_uniform(rng: np.random.Generator, spread: float) -> float:
    """Draw from [1/(1+spread), 1+spread], log-uniform; 1 if the spread is 0."""
    if not spread:
        return 1.0
    limit = math.log1p(spread)
    return math.exp(rng.uniform(-limit, limit))


def _draw_box(rng: np.random.Generator, size: int) -> Box:
    area = rng.uniform(*_RECTANGLE_AREA)
    # A longer rectangle of this area would be cut off by the chip's edge.
    longest = min(math.log(_RECTANGLE_ASPECT), -math.log(area))
    aspect = math.exp(rng.uniform(-longest, longest))
    height, width = (min(size, max(1, round(size * math.sqrt(part)))) for part in (area * aspect, area / aspect))
    top, left = int(rng.integers(size - height + 1)), int(rng.integers(size - width + 1))
    return Box(top, top + height, left, left + width)


def _draw_rectangle(rng: np.random.Generator, size: int, bands: int, clip: float) -> Rectangle:
    """Draw a rectangle, the bands that it covers (at least one) and a reflectance for each band."""
    box = _draw_box(rng, size)
    chosen = int(rng.integers(1, 1 << bands))
    covered = np.array([bool(chosen >> band & 1) for band in range(bands)])
    return Rectangle(box.top, box.bottom, box.left, box.right, covered, rng.uniform(0, clip, bands).astype(np.float32))


def _resize(sample: Sample, size: int, interpolation: Interpolation) -> Sample:
    if sample.label.shape == (size, size):
        return sample
    if interpolation == "nearest":
        reflectance = functional.interpolate(sample.reflectance[None], (size, size), mode="nearest-exact")[0]
    else:
        reflectance = functional.interpolate(
            sample.reflectance[None],
            (size, size),
            mode="bilinear",
            align_corners=False,
            antialias=interpolation == "antialiased",
        )[0]
    classes = torch.stack([sample.label, sample.valid.to(torch.uint8)])[None].float()
    label, valid = functional.interpolate(classes, (size, size), mode="nearest-exact")[0].to(torch.uint8)
    return Sample(reflectance, label, valid.bool())


def _per_sample(values: Sequence[Sequence[float] | npt.NDArray[np.float32]], device: torch.device) -> torch.Tensor:
    """Return float32 `(sample, band or 1, 1, 1)` on a device."""
    return _to_device(np.asarray(values, np.float32), device)[:, :, None, None]


def _to_device(values: npt.NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """Copy parameters to a device; from pinned memory, because a copy from other memory waits for the GPU."""
    tensor = torch.from_numpy(values)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
