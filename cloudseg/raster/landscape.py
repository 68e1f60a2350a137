"""Procedural reflectance of ground, clouds and the shadows of the clouds, as arrays.

The ground is an infinite plane that depends on its seed only, so the same location shows the same fields and roofs
under other clouds on another date. The colors are broad values for each material, chosen by eye, such that brightness
alone does not distinguish a cloud from snow, sand or a roof.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cloudseg.raster.noise import Floats, fractal, hashed, smoothstep, uniform

_COLORS: Final = {
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
"""Path reflectance of the atmosphere, about that of a clear day: strongest in blue."""
_SHADOW: Final = (0.62, 0.58, 0.50, 0.68)
"""Share of the reflectance that a full shadow removes from each band; skylight keeps more of blue."""
_CLOUD_LABEL: Final = np.float32(0.12)
"""Opacity above which a pixel is labeled cloud."""


@dataclass(frozen=True)
class Ground:
    """Composition of a site; shares are levels of noise of standard deviation 1 (2: rare, -2: nearly everywhere)."""

    seed: int
    base: str = "fields"
    """`fields`, `sand` or `rock`."""
    forest: float = 0.8
    water: float = -1.6
    """Ground below this height is water."""
    snow: float = 9.0
    """Ground above this height is snow."""
    city: float = 1.5


@dataclass(frozen=True)
class Sky:
    """The clouds over the plane at one time."""

    seed: int
    thick: float
    """Level of noise above which there is cloud; `cloud_level` returns it for a cloud fraction."""
    cirrus: float
    """The same for thin high clouds; 9: none."""
    shadow: tuple[int, int]
    """Offset in rows and columns from a cloud to its shadow."""


def reflectance(
    ground: Ground, sky: Sky, rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return top-of-atmosphere reflectance at pixels of the plane, and where there is cloud.

    Memory: about 25 float32 planes.

    Returns:
        Reflectance `(4, len(rows), len(cols))` in red, green, blue and near infrared, and the label
        `(len(rows), len(cols))`, True for cloud. Shadow, snow, sand, roofs and haze are not cloud.
    """
    surface = _surface(ground, rows, cols)
    shadow, _ = _cover(sky, rows - sky.shadow[0], cols - sky.shadow[1])
    surface *= np.float32(1) - shadow * _column(_SHADOW)
    surface += _column(_HAZE)
    alpha, light = _cover(sky, rows, cols)
    thin = _cirrus(sky, rows, cols)
    for cover, bright in ((thin, np.float32(0.6)), (alpha, light)):
        surface += cover * (_column(_COLORS["cloud"]) * bright - surface)
    return surface, np.maximum(alpha, thin) > _CLOUD_LABEL


def cloud_level(seed: int, rows: NDArray[np.int64], cols: NDArray[np.int64], fraction: float) -> float:
    """Return the level of `Sky.thick` at which about this fraction of the pixels is cloud."""
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
    """Return the opacity of thick cloud (0..1) and the brightness of its upper side."""
    above = _billows(sky.seed, rows, cols) - np.float32(sky.thick)
    alpha = smoothstep(above * np.float32(1.7) + np.float32(0.3)) * np.float32(0.98)
    bumps = fractal(sky.seed + 7, _real(rows), _real(cols), period=28, octaves=4, gain=0.7)
    light = np.float32(0.29) + np.float32(0.42) * smoothstep(above * np.float32(0.5)) + np.float32(0.06) * bumps
    return alpha, light


def _cirrus(sky: Sky, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Floats:
    """Return the opacity of thin cloud in long streaks: noise stretched by six along the columns."""
    if sky.cirrus >= 9:
        return np.zeros((len(rows), len(cols)), np.float32)
    streaks = fractal(sky.seed + 13, _real(rows), _real(cols) / np.float32(6), period=60, octaves=5, gain=0.5)
    return np.float32(0.45) * smoothstep((streaks - np.float32(sky.cirrus)) * np.float32(0.7))


# --- ground ---------------------------------------------------------------------------------------------------------


def _surface(ground: Ground, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Floats:
    height, slope = _relief(ground, rows, cols)
    color = _base(ground, rows, cols)
    wood = fractal(ground.seed + 3, _real(rows), _real(cols), period=90, octaves=6, gain=0.6)
    leaves = fractal(ground.seed + 5, _real(rows), _real(cols), period=4, octaves=2)
    _lay(
        color,
        wood > np.float32(ground.forest),
        _column(_COLORS["forest"]) * (np.float32(1) + np.float32(0.14) * leaves),
    )
    rough = np.float32(0.3 if ground.base == "rock" else 0.1)
    color *= np.clip(np.float32(1) + rough * slope + np.float32(0.05) * leaves, np.float32(0.25), np.float32(1.6))
    _build(color, ground, rows, cols)
    frost = height + np.float32(0.12) * leaves > np.float32(ground.snow)
    _lay(
        color,
        frost,
        _column(_COLORS["snow"])
        * np.clip(np.float32(0.72) + np.float32(0.3) * slope, np.float32(0.2), np.float32(1.1)),
    )
    _lay(
        color,
        height < np.float32(ground.water),
        _column(_COLORS["water"]) * (np.float32(1) + np.float32(0.06) * leaves),
    )
    return color


def _lay(color: Floats, where: NDArray[np.bool_], material: Floats) -> None:
    np.copyto(color, material, where=where)


def _relief(ground: Ground, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the height (noise) and the slope towards a light from the upper left."""
    rows, cols = np.append(rows, rows[-1] + 1), np.append(cols, cols[-1] + 1)
    height = fractal(ground.seed + 1, _real(rows), _real(cols), period=220, octaves=8, gain=0.5)
    slope = (height[1:, 1:] - height[:-1, :-1]) * np.float32(12)
    return height[:-1, :-1], slope


def _base(ground: Ground, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Floats:
    mottle = fractal(ground.seed + 11, _real(rows), _real(cols), period=70, octaves=5)
    if ground.base != "fields":
        return _column(_COLORS[ground.base]) * (np.float32(1) + np.float32(0.10) * mottle)
    parcel = _parcels(ground.seed + 17, rows, cols, mottle)
    growth = uniform(parcel, 0)
    green = np.clip(
        growth * np.float32(1.5) - np.float32(0.25) + np.float32(0.08) * mottle, np.float32(0), np.float32(1)
    )
    tint = np.float32(0.8) + np.float32(0.5) * uniform(parcel, 1)
    bare = _column(_COLORS["soil"])
    color: Floats = (bare + (_column(_COLORS["crop"]) - bare) * green) * tint
    return color


def _parcels(seed: int, rows: NDArray[np.int64], cols: NDArray[np.int64], warp: Floats) -> NDArray[np.uint64]:
    """Return the hash of the field of each pixel: strips of random length on a grid turned by atan(3/4)."""
    row, col = _real(rows)[:, None], _real(cols)[None, :]
    along = (np.float32(0.8) * col + np.float32(0.6) * row + np.float32(1.5) * warp) / np.float32(21)
    across = (np.float32(0.8) * row - np.float32(0.6) * col + np.float32(1.5) * warp) / np.float32(9)
    strip = np.floor(across).astype(np.int64)
    shift = uniform(hashed(seed, strip, np.zeros(1, np.int64)))
    return hashed(seed + 1, strip, np.floor(along + shift).astype(np.int64))


def _build(color: Floats, ground: Ground, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> None:
    """Draw streets and roofs into the surface where there is a town; one roof in ten is as bright as a cloud."""
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
    _lay(color, town & ~gap, bright * tint)
    _lay(color, town & gap, _column(_COLORS["street"]))
