"""Augmentation of training chips: every random number comes from the generator that is passed in."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from cloudseg.recipe import Augment

_DARKEST_SATURATION = 0.3
"""Reflectance; lowest level at which `saturate` clips."""


@dataclass(frozen=True)
class Sample:
    """One chip or crop: reflectance float32 `(band, row, col)`, label uint8 and valid bool `(row, col)`."""

    reflectance: torch.Tensor
    label: torch.Tensor
    valid: torch.Tensor


def zoom_factor(rng: np.random.Generator, augment: Augment) -> float:
    """Draw the zoom: above 1 enlarges the ground."""
    return _log_uniform(rng, augment.scale)


def augment_sample(sample: Sample, size: int, augment: Augment, clip: float, rng: np.random.Generator) -> Sample:
    """Return an augmented copy of a sample: geometry first, then radiometry.

    Args:
        sample: of any size.
        size: rows and columns of the result.
        augment: of the recipe.
        clip: highest reflectance that the net sees.
        rng: the only source of randomness.
    """
    return _change_radiometry(_change_geometry(_resize(sample, size), augment, rng), augment, clip, rng)


def _resize(sample: Sample, size: int) -> Sample:
    if sample.label.shape == (size, size):
        return sample
    reflectance = functional.interpolate(
        sample.reflectance[None], (size, size), mode="bilinear", align_corners=False, antialias=True
    )[0]
    classes = torch.stack([sample.label, sample.valid.to(torch.uint8)])[None].float()
    label, valid = functional.interpolate(classes, (size, size), mode="nearest-exact")[0].to(torch.uint8)
    return Sample(reflectance, label, valid.bool())


def _change_geometry(sample: Sample, augment: Augment, rng: np.random.Generator) -> Sample:
    flips = [axis for axis in (-1, -2) if augment.flip and rng.random() < 0.5]
    turns = int(rng.integers(4)) if augment.rotate90 else 0

    def transform(raster: torch.Tensor) -> torch.Tensor:
        return torch.rot90(raster.flip(flips) if flips else raster, turns, (-2, -1))

    return Sample(transform(sample.reflectance), transform(sample.label), transform(sample.valid))


def _change_radiometry(sample: Sample, augment: Augment, clip: float, rng: np.random.Generator) -> Sample:
    x = sample.reflectance
    factor = _log_uniform(rng, augment.gain) * np.array([_log_uniform(rng, augment.band_gain) for _ in range(len(x))])
    if augment.gain or augment.band_gain:
        x = x * torch.from_numpy(factor.astype(np.float32)).view(-1, 1, 1)
    if augment.saturate and rng.random() < augment.saturate:
        x = x.clamp(max=float(rng.uniform(min(_DARKEST_SATURATION, clip), clip)))
    return Sample(x, sample.label, sample.valid)


def _log_uniform(rng: np.random.Generator, spread: float) -> float:
    """Draw from [1/(1+spread), 1+spread], log-uniform; 1 if the spread is 0."""
    if not spread:
        return 1.0
    limit = math.log1p(spread)
    return math.exp(rng.uniform(-limit, limit))
