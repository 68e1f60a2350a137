"""Whether a band that is tagged alpha holds transparency.

Runs in the sandboxed decoder process.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from cloudseg.grid import Window
from cloudseg.ingest.untrusted import read_window

_SAMPLE: Final = 256
_SAMPLES_PER_SIDE: Final = 4
_SOFT: Final = 0.05
"""Share of pixels between transparent and opaque above which an alpha band is an image.

Measured: near-infrared bands of 40 real scenes, stretched to 8 bits up to their 90th percentile or more, have at least
0.87 of such pixels (0.13 at a distance of `_LOSSY_CHANGE` from both ends, but for scenes that are bright throughout);
transparency around rotated images, with soft edges, at most 0.02.
"""
_MOSTLY_OPAQUE: Final = 0.5
"""Share of fully opaque among the not transparent pixels from which a band with more soft pixels still is transparency.

A small mosaic with a wide feathered edge has more than `_SOFT`. Only without lossy compression: there an image that is
bright throughout would lose its dark half, here it can only lose pixels that are exactly 0.
"""
_LOSSY: Final = ("JPEG", "WEBP")
_LOSSY_CHANGE: Final = 16
"""Steps of 256 by which lossy compression may change a transparent or opaque pixel."""


def is_alpha(dataset: Any, index: int, display_name: str) -> bool:
    """Return whether a band that is tagged alpha holds transparency, which has few values, and not an image.

    GDAL tags the fourth band of an 8-bit file as alpha unless told otherwise, also where it is near infrared.

    Args:
        dataset: The open raster.
        index: The band, from 1.
        display_name: The file's name, for messages.

    Raises:
        BadScene: The file is truncated or corrupt.
    """
    values = np.concatenate(
        [read_window(dataset, index, window, display_name).ravel() for window in _sample_windows(dataset)]
    )
    margin = _LOSSY_CHANGE if is_lossy(dataset) else 0
    top = float(values.max())
    between = (values > margin) & (values < top - margin)
    if float(between.mean()) <= _SOFT:
        return True
    return not is_lossy(dataset) and float((values[values > 0] == top).mean()) >= _MOSTLY_OPAQUE


def _sample_windows(dataset: Any) -> Iterator[Window]:
    """Yield squares evenly over the raster; all of a small one."""
    rows, cols = (
        [
            round(start)
            for start in np.linspace(0, max(0, length - _SAMPLE), min(_SAMPLES_PER_SIDE, -(-length // _SAMPLE)))
        ]
        for length in dataset.shape
    )
    for row in rows:
        for col in cols:
            yield Window(row, col, min(_SAMPLE, dataset.height - row), min(_SAMPLE, dataset.width - col))


def least_opaque(dataset: Any) -> int:
    """Return the smallest alpha of an observed pixel: half after lossy compression, else anything above 0."""
    return 128 if is_lossy(dataset) else 1


def is_lossy(dataset: Any) -> bool:
    """Return whether the pixels were compressed with loss; such files have 8 bits."""
    return getattr(dataset.compression, "value", "") in _LOSSY and set(dataset.dtypes) == {"uint8"}
