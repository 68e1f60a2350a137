"""Whether the values of a decoded scene can be an observation."""

from typing import Final

import numpy as np
import numpy.typing as npt

from cloudseg.bands import REFLECTANCE_SCALE, RGB, TRUE_COLOR, TRUE_COLOR_CATALOGUE
from cloudseg.errors import BadScene
from cloudseg.ingest.radiometry import BandScale

_HIGHEST: Final = 2.5
"""Largest plausible 99th percentile: fresh snow under a low sun reaches about 1.5 at the top of the atmosphere."""
_HIGHEST_ASSUMED: Final = 1.8
"""The same for an assumed scale: Landsat Level-1 digital numbers read as reflectance x 10000 reach 2 to 6."""
_MIN_BRIGHTEST: Final = 0.05
"""Smallest plausible maximum for an assumed scale: even clear ocean with one wave crest has it; counts do not."""
_HIDDEN_OFFSET: Final = 1000
"""What Sentinel-2 products since processing baseline 04.00 add to every digital number: RADIO_ADD_OFFSET -1000."""
_MAX_BELOW_ZERO: Final = 0.5
"""Fraction of pixels that may be at or below 0 in two visible bands, where metadata states the offset.

Of 361 scenes of the Sentinel-2 Cloud Mask Catalogue and 10 of On Cloud N and CloudSEN12 (top of the atmosphere), the
darkest 0.1 % of every scene is above 0: air alone reflects 0.02 in red. Surface reflectance falls below 0 in deep
shadow and over water, so a statement is doubted only where that is most of the scene.
"""
_MAX_BELOW_ZERO_GUESSED: Final = 0.1
"""The same for a guessed offset: with an offset too many, 111 of the 361 scenes are above it, 74 above 0.5."""
_DARK: Final = 0.2
"""Median reflectance of the darkest band below which a scene has ground or water in it.

The darkest 0.1 % above 0.1 and a median below this occur in 20 of the 361 scenes without a hidden offset (haze, desert;
8-bit thumbnails without infrared) and in 1 of 41 scenes of On Cloud N, CloudSEN12 and L8 Biome: enough to doubt a
guess, too often to doubt a statement.
"""


def find_wrong_offset(counts: npt.NDArray[np.int64], scales: dict[str, BandScale]) -> str | None:
    """Return how the values contradict the offset that was applied to them, or None.

    Args:
        counts: Histogram of the valid canonical digital numbers `(band, number)`, as far as they go.
        scales: Scale by band name, in the order of `counts`.
    """
    guessed = any(scale.radiometry.guessed for scale in scales.values())
    below = {
        name: float(band[1] / max(1, band.sum()))
        for (name, scale), band in zip(scales.items(), counts, strict=True)
        if name in RGB and scale.radiometry.offset < 0
    }
    limit = _MAX_BELOW_ZERO_GUESSED if guessed else _MAX_BELOW_ZERO
    if sum(fraction > limit for fraction in below.values()) > 1:
        worst = ", ".join(f"{100 * fraction:.0f} % in {name}" for name, fraction in below.items())
        return f"reflectance is not above 0 in {worst} of the valid pixels"
    plain = [
        band
        for band, scale in zip(counts, scales.values(), strict=True)
        if scale.radiometry.guessed and scale.radiometry.offset == 0
    ]
    if len(plain) < len(counts) or not plain:
        return None
    lowest = min(_quantile(band, 0.001) for band in plain)
    darkest = min(_quantile(band, 0.5) for band in plain)
    if lowest > _HIDDEN_OFFSET and darkest < _DARK * REFLECTANCE_SCALE:
        return f"no band is ever below the offset of {_HIDDEN_OFFSET}: its darkest pixels are at {lowest}"
    return None


def _quantile(counts: npt.NDArray[np.int64], fraction: float) -> int:
    total = np.cumsum(counts)
    return int(np.searchsorted(total, fraction * total[-1]))


def check_distribution(
    counts: npt.NDArray[np.int64], scales: dict[str, BandScale], display_name: str, *, is_product: bool
) -> None:
    """Check that the canonical digital numbers of a scene can be an observation.

    No 16-bit band may be constant. 8-bit images saturate early, over thick cloud in one band, over ice in all: not
    every band may be constant, except at the upper end where a product id shows that the scene was observed.

    Args:
        counts: Histogram of the valid canonical digital numbers `(band, number)`, as far as they go.
        scales: Scale by band name, in the order of `counts`.
        display_name: The scene's name, for messages.
        is_product: Whether the sensor is known from a product id.

    Raises:
        BadScene: The values are out of range or constant.
    """
    for name, band in zip(scales, counts, strict=True):
        check_range(name, band, scales[name], display_name)
    different = (counts > 0).sum(axis=1)
    eight_bits = all(scale.radiometry in (TRUE_COLOR, TRUE_COLOR_CATALOGUE) for scale in scales.values())
    constant = [name for name, values in zip(scales, different, strict=True) if values == 1]
    saturated = (
        eight_bits
        and is_product
        and all(_reaches_top(band, scale) for band, scale in zip(counts, scales.values(), strict=True))
    )
    if constant and not saturated and (len(constant) == len(scales) or not eight_bits):
        raise BadScene(
            f"every pixel has the same value in {', '.join(constant)}",
            subject=display_name,
            found=f"{int(np.argmax(counts[0]))} in the first band",
            expected="an image",
            next_step="Inspect the file: it probably holds fill values only.",
        )


def _reaches_top(counts: npt.NDArray[np.int64], scale: BandScale) -> bool:
    """Return whether any 8-bit pixel is at the upper end of its stretch."""
    top = round(255 * scale.radiometry.scale * REFLECTANCE_SCALE)
    return top < len(counts) and bool(counts[top] > 0)


def check_range(name: str, counts: npt.NDArray[np.int64], scale: BandScale, display_name: str) -> None:
    """Check 99th percentile and maximum of one band.

    Args:
        name: The band's name.
        counts: Histogram of its valid canonical digital numbers `(65536,)`.
        scale: Its scale.
        display_name: The scene's name, for messages.

    Raises:
        BadScene: They cannot be reflectance.
    """
    bright = _quantile(counts, 0.99) / REFLECTANCE_SCALE
    brightest = int(np.flatnonzero(counts)[-1]) / REFLECTANCE_SCALE
    highest = _HIGHEST_ASSUMED if scale.assumed else _HIGHEST
    if bright > highest or (scale.assumed and brightest < _MIN_BRIGHTEST):
        raise BadScene(
            f"the pixel values of {name} cannot be reflectance with this scale",
            subject=display_name,
            found=f"99th percentile {bright:.3g}, maximum {brightest:.3g} ({scale.radiometry.source})",
            expected=f"reflectance up to {highest}",
            next_step="Write scale and offset into the file (GDAL: gdal_edit.py -scale -offset), "
            "or convert it to reflectance x 10000.",
        )
