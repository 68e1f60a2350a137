"""Pixels of an array: band names, scale and no-data value as ingest reads them from a file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from cloudseg.bands import BAND_NAMES, REFLECTANCE_SCALE, RGB
from cloudseg.errors import BadScene, InputError
from cloudseg.grid import Window
from cloudseg.ingest.plausibility import check_range
from cloudseg.ingest.radiometry import BandScale, band_scale, to_canonical

if TYPE_CHECKING:
    from cloudseg.predict.window_pixels import ReadPixels

SUBJECT: Final = "the array"
SKIP_BAND: Final = "-"
DTYPES: Final = ("uint8", "uint16", "int16", "float32", "float64")
_SAMPLES: Final = 512
"""Rows and columns, evenly over the array, whose values are checked."""


@dataclass(frozen=True)
class ArrayPixels:
    """An array with what its numbers mean."""

    array: NDArray[Any]
    """`(band, row, col)`, the named bands only."""
    names: list[str]
    scales: list[BandScale]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return int(self.array.shape[1]), int(self.array.shape[2])

    @contextmanager
    def open(self) -> "Iterator[ReadPixels]":
        """Yield how a window is read; see `cloudseg.predict.window_pixels.ReadPixels`."""
        yield self._read

    def _read(self, window: Window, bands: tuple[str, ...]) -> NDArray[np.uint16]:
        dn = canonical(self.array[(slice(None), *window.slices)], self.scales)
        return dn[[self.names.index(band) for band in bands]]


def canonical(array: NDArray[Any], scales: Sequence[BandScale]) -> NDArray[np.uint16]:
    """Return reflectance × 10 000 as uint16 `(band, row, col)`, 0 where any band has no data."""
    parts = [to_canonical(values, scale) for values, scale in zip(array, scales, strict=True)]
    valid = np.stack([each for _, each in parts]).all(axis=0)
    filled = [
        np.isin(values, scale.shared_fills) if scale.shared_fills else np.zeros(values.shape, bool)
        for values, scale in zip(array, scales, strict=True)
    ]
    valid &= ~np.stack(filled).all(axis=0)
    return np.stack([dn for dn, _ in parts]) * valid


def array_pixels(
    array: NDArray[Any],
    bands: Sequence[str],
    *,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
) -> ArrayPixels:
    """Return the named bands of an array with their scale.

    Args:
        array: `(band, row, col)` of uint8, uint16, int16, float32 or float64.
        bands: a name of `cloudseg.bands.BAND_NAMES` for each band, `-` for one that is not wanted.
        scale: reflectance = number × scale + offset. By default as ingest assumes: floats are reflectance, 16-bit
            numbers reflectance × 10 000, 8-bit red, green and blue the stretch of Sentinel-2's true-color image.
        offset: the same; -0.1 for Sentinel-2 since processing baseline 04.00.
        nodata: number of pixels without data; by default 0 in every band at once. NaN always is.

    Raises:
        InputError: shape, data type, names or numbers cannot be used; the message says what to pass.
    """
    _check_array(array, bands)
    wanted = [index for index, name in enumerate(bands) if name != SKIP_BAND]
    names = [bands[index] for index in wanted]
    if scale is None and array.dtype == np.uint8 and not set(names) <= set(RGB):
        raise InputError(
            "the scale of 8-bit numbers is unknown",
            subject=SUBJECT,
            found=", ".join(names),
            expected="red, green and blue of a true-color image, or a scale",
            next_step="Pass scale= and offset=: reflectance = number × scale + offset.",
        )
    tagged = (1.0 if scale is None else float(scale), 0.0 if offset is None else float(offset))
    if offset is not None and scale is None and array.dtype.kind != "f":
        tagged = (1 / REFLECTANCE_SCALE, float(offset))
    try:
        scales = [band_scale(name, str(array.dtype), None, tagged, nodata, SUBJECT) for name in names]
        pixels = ArrayPixels(array[wanted], names, scales)
        _check_values(pixels)
    except BadScene as error:
        raise InputError(
            error.what,
            subject=SUBJECT,
            found=error.found,
            expected=error.expected,
            next_step="Pass scale=0.0001 for reflectance × 10 000, with offset=-0.1 for Sentinel-2 since 2022; "
            "other sensors: reflectance = number × scale + offset.",
        ) from error
    return pixels


def _check_array(array: NDArray[Any], bands: Sequence[str]) -> None:
    if isinstance(bands, str) or (unknown := [name for name in bands if name not in (*BAND_NAMES, SKIP_BAND)]):
        raise InputError(
            "unknown bands",
            subject=SUBJECT,
            found=bands if isinstance(bands, str) else ", ".join(map(str, unknown)),
            expected="a list of names: " + ", ".join((*BAND_NAMES, SKIP_BAND)),
            next_step="Pass bands=['red', 'green', 'blue'] in the order of the array's first axis.",
        )
    if array.ndim != 3 or 0 in array.shape or len(bands) != array.shape[0]:
        raise InputError(
            "the array does not fit its band names",
            subject=SUBJECT,
            found=f"shape {array.shape}, {len(bands)} bands",
            expected="(band, row, col), one name for each band",
            next_step="Move the bands to the front: numpy.moveaxis(array, -1, 0).",
        )
    if str(array.dtype) not in DTYPES:
        raise InputError(
            "unsupported data type",
            subject=SUBJECT,
            found=array.dtype,
            expected=", ".join(DTYPES),
            next_step="Convert it: array.astype('float32') for reflectance.",
        )


def _check_values(pixels: ArrayPixels) -> None:
    """Check a sample: digital numbers of another scale would give a mask that is wrong without any other sign."""
    rows, cols = (slice(None, None, max(1, length // _SAMPLES)) for length in pixels.shape)
    for values, name, scale in zip(pixels.array[:, rows, cols], pixels.names, pixels.scales, strict=True):
        dn, valid = to_canonical(values, scale)
        valid &= ~np.isin(values, scale.shared_fills)
        if valid.any():
            check_range(name, np.bincount(dn[valid], minlength=65536), scale, SUBJECT)
