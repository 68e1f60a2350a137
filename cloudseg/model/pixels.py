"""What is known of a net's input without torch: its scaling, where pixels were observed, bands that a scene lacks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cloudseg.bands import NO_DATA


@dataclass(frozen=True)
class Scaling:
    """Parameters of the preprocessing, in reflectance; `mean` and `std` have one value, or one per band."""

    clip: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


def observed(dn: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """Return where every band was observed: bool `(..., row, col)` of digital numbers `(..., band, row, col)`."""
    valid: npt.NDArray[np.bool_] = (dn != NO_DATA).all(axis=-3)
    return valid


def fill_missing(dn: npt.NDArray[np.uint16], bands: Sequence[str], wanted: Sequence[str]) -> npt.NDArray[np.uint16]:
    """Return digital numbers with all wanted bands, 0 in those that are missing; the array itself if none is.

    Args:
        dn: uint16 `(band, row, col)`.
        bands: those of `dn`, a part of the wanted ones.
        wanted: bands of the result, in order.
    """
    if tuple(bands) == tuple(wanted):
        return dn
    filled = np.full((len(wanted), *dn.shape[1:]), NO_DATA, np.uint16)
    filled[[wanted.index(band) for band in bands]] = dn
    return filled
