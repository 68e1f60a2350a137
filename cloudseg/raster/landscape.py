"""Procedural reflectance: a ground that stays, clouds that move, and the shadows they throw.

Pure arrays, no files. A ground is an endless plane that depends on its seed only, so the same place shows the same
fields and roofs under other clouds on another date. The colours are broad values for each material, chosen by eye:
enough that brightness alone does not tell a cloud from snow, sand or a roof.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cloudseg.raster.noise import Floats, fractal, hashed, smoothstep, uniform

_COLOURS: Final = {
    # top-of-canopy reflectance in red, green, blue, near infrared
    "soil": (0.17, 0.13, 0.09, 0.25),
    "crop": (0.05, 0.08, 0.04, 0.40),
    "forest": (0.028, 0.042, 0.026, 0.27),
    "water": (0.022, 0.038, 0.055, 0.012),
    "snow": (0.84, 0.85, 0.86, 0.74),
    "sand": (0.37, 0.28, 0.19, 0.45),
    "rock": (0.17, 0.16, 0.14, 0.21),
    "street": (0.11, 0.11, 0.11, 0.15),
    "cloud": (0.86, 0.86, 0.87, 0.84),
}
_HAZE: Final = (0.022, 0.040, 0.068, 0.008)
"""Light scattered by the air, about that of a clear day seen from above: strongest in blue."""
_SHADOW: Final = (0.62, 0.58, 0.50, 0.68)
"""What a full shadow takes away from each band: blue keeps most, because the sky still lights it."""
_CLOUD_LABEL: Final = np.float32(0.12)
"""A pixel is labelled cloud where the cloud hides more than this of the ground."""


@dataclass(frozen=True)
class Ground:
    """What a place is made of.

    The shares are levels of noise with standard deviation 1 (2 is rare, -2 nearly everywhere).
    """

    seed: int
    base: str = "fields"
    """`fields`, `sand` or `rock`."""
    forest: float = 0.8
    water: float = -1.6
    """Ground lower than this is under water."""
    snow: float = 9.0
    """Ground higher than this is under snow."""
    city: float = 1.5


@dataclass(frozen=True)
class Sky:
    """The clouds of one moment over a plane."""

    seed: int
    thick: float
    """Level of noise above which there is cloud; `cloud_level` finds it for a cloud fraction."""
    cirrus: float
    """The same for thin high cloud; 9 for none."""
    shadow: tuple[int, int]
    """Rows and columns from a cloud to its shadow."""


def reflectance(
    ground: Ground, sky: Sky, rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return what a sensor sees at pixels of the plane, and where that is cloud.

    Returns top-of-atmosphere reflectance (4, len(rows), len(cols)) in red, green, blue, near infrared, and the label
    (len(rows), len(cols)), True = cloud. Shadow, snow, sand, roofs and haze are not cloud. Memory: about 25 float32
    planes.
    """
    surface = _surface(ground, rows, cols)
    shadow, _ = _cover(sky, rows - sky.shadow[0], cols - sky.shadow[1])
    surface *= np.float32(1) - shadow * _column(_SHADOW)
    surface += _column(_HAZE)
    alpha, light = _cover(sky, rows, cols)
    thin = _cirrus(sky, rows, cols)
    for cover, bright in ((thin, np.float32(0.6)), (alpha, light)):
        surface += cover * (_column(_COLOURS["cloud"]) * bright - surface)
    return surface, np.maximum(alpha, thin) > _CLOUD_LABEL


def cloud_level(seed: int, rows: NDArray[np.int64], cols: NDArray[np.int64], fraction: float) -> float:
    """Return the level of `Sky.thick` that covers about this fraction of these pixels."""
    if fraction <= 0:
        return 9.0
    values = np.sort(_billows(seed, rows, cols), axis=None)
    return float(values[min(values.size - 1, int((1 - fraction) * values.size))])


def _column(values: tuple[float, ...]) -> Floats:
    return np.array(values, np.float32)[:, None, None]


def _real(rows: NDArray[np.int64]) -> Floats:
    return rows.astype(np.float32)


# --- sky ------------------------------------------------------------------------------------------------------------


def _billows(seed: int, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Floats:
    return fractal(seed, _real(rows), _real(cols), period=170, octaves=7, gain=0.58)


def _cover(sky: Sky, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return how much of the ground thick cloud hides (0..1) and the brightness of its upper side."""
    above = _billows(sky.seed, rows, cols) - np.float32(sky.thick)
    alpha = smoothstep(above * np.float32(1.7) + np.float32(0.3)) * np.float32(0.98)
    bumps = fractal(sky.seed + 7, _real(rows), _real(cols), period=28, octaves=4, gain=0.7)
    light = np.float32(0.29) + np.float32(0.42) * smoothstep(above * np.float32(0.5)) + np.float32(0.06) * bumps
    return alpha, light


def _cirrus(sky: Sky, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Floats:
    """Thin cloud in long streaks: noise stretched six times along the columns."""
    if sky.cirrus >= 9:
        return np.zeros((len(rows), len(cols)), np.float32)
    streaks = fractal(sky.seed + 13, _real(rows), _real(cols) / np.float32(6), period=60, octaves=5, gain=0.5)
    return np.float32(0.45) * smoothstep((streaks - np.float32(sky.cirrus)) * np.float32(0.7))


# --- ground ---------------------------------------------------------------------------------------------------------


def _surface(ground: Ground, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Floats:
    height, slope = _relief(ground, rows, cols)
    colour = _base(ground, rows, cols)
    wood = fractal(ground.seed + 3, _real(rows), _real(cols), period=90, octaves=6, gain=0.6)
    leaves = fractal(ground.seed + 5, _real(rows), _real(cols), period=4, octaves=2)
    _lay(
        colour,
        wood > np.float32(ground.forest),
        _column(_COLOURS["forest"]) * (np.float32(1) + np.float32(0.14) * leaves),
    )
    rough = np.float32(0.3 if ground.base == "rock" else 0.1)
    colour *= np.clip(np.float32(1) + rough * slope + np.float32(0.05) * leaves, np.float32(0.25), np.float32(1.6))
    _build(colour, ground, rows, cols)
    frost = height + np.float32(0.12) * leaves > np.float32(ground.snow)
    _lay(
        colour,
        frost,
        _column(_COLOURS["snow"])
        * np.clip(np.float32(0.72) + np.float32(0.3) * slope, np.float32(0.2), np.float32(1.1)),
    )
    _lay(
        colour,
        height < np.float32(ground.water),
        _column(_COLOURS["water"]) * (np.float32(1) + np.float32(0.06) * leaves),
    )
    return colour


def _lay(colour: Floats, where: NDArray[np.bool_], material: Floats) -> None:
    np.copyto(colour, material, where=where)


def _relief(ground: Ground, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the height (noise) and how far the slope turns towards a light from the upper left."""
    rows, cols = np.append(rows, rows[-1] + 1), np.append(cols, cols[-1] + 1)
    height = fractal(ground.seed + 1, _real(rows), _real(cols), period=220, octaves=8, gain=0.5)
    slope = (height[1:, 1:] - height[:-1, :-1]) * np.float32(12)
    return height[:-1, :-1], slope


def _base(ground: Ground, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Floats:
    mottle = fractal(ground.seed + 11, _real(rows), _real(cols), period=70, octaves=5)
    if ground.base != "fields":
        return _column(_COLOURS[ground.base]) * (np.float32(1) + np.float32(0.10) * mottle)
    parcel = _parcels(ground.seed + 17, rows, cols, mottle)
    growth = uniform(parcel, 0)
    green = np.clip(
        growth * np.float32(1.5) - np.float32(0.25) + np.float32(0.08) * mottle, np.float32(0), np.float32(1)
    )
    tint = np.float32(0.8) + np.float32(0.5) * uniform(parcel, 1)
    bare = _column(_COLOURS["soil"])
    colour: Floats = (bare + (_column(_COLOURS["crop"]) - bare) * green) * tint
    return colour


def _parcels(seed: int, rows: NDArray[np.int64], cols: NDArray[np.int64], warp: Floats) -> NDArray[np.uint64]:
    """Return each pixel the hash of its field.

    Strips of random length on a grid turned by the angle of a 3-4-5 triangle.
    """
    row, col = _real(rows)[:, None], _real(cols)[None, :]
    along = (np.float32(0.8) * col + np.float32(0.6) * row + np.float32(1.5) * warp) / np.float32(21)
    across = (np.float32(0.8) * row - np.float32(0.6) * col + np.float32(1.5) * warp) / np.float32(9)
    strip = np.floor(across).astype(np.int64)
    shift = uniform(hashed(seed, strip, np.zeros(1, np.int64)))
    return hashed(seed + 1, strip, np.floor(along + shift).astype(np.int64))


def _build(colour: Floats, ground: Ground, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> None:
    """Lay streets and roofs where the town is; one roof in ten is as bright as a cloud."""
    town = fractal(ground.seed + 19, _real(rows), _real(cols), period=130, octaves=5) > np.float32(ground.city)
    if not town.any():
        return
    size, street = 4, 12
    lots = hashed(ground.seed + 23, (rows // size)[:, None], (cols // size)[None, :])
    tone = uniform(lots, 0)
    bright = np.where(
        uniform(lots, 1) > np.float32(0.9),
        np.float32(0.4) + np.float32(0.4) * tone,
        np.float32(0.1) + np.float32(0.2) * tone,
    )
    gap = ((rows % street) == 0)[:, None] | ((cols % street) == 0)[None, :] | (uniform(lots, 2) < np.float32(0.25))
    tint = np.array((1.0, 0.96, 0.93, 1.05), np.float32)[:, None, None]
    _lay(colour, town & ~gap, bright * tint)
    _lay(colour, town & gap, _column(_COLOURS["street"]))
