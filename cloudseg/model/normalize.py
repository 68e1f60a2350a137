"""The one preprocessing, from canonical digital numbers to the input of a net.

Training, validation, evaluation and prediction all call it. `x = (min(reflectance, clip) - mean) / std` per band, and 0
where nothing was observed. Clip, mean and std come from the recipe and are stored in the weights.

A band that a scene may lack (`WeightsMeta.optional_bands`) is 0 in its digital numbers where it is missing, and 0 in
the input of the net, as in the training samples whose bands are dropped (`cloudseg.train.augment`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from cloudseg.bands import NO_DATA, REFLECTANCE_SCALE


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


def to_reflectance(dn: npt.NDArray[np.uint16]) -> torch.Tensor:
    """Return float32 reflectance of canonical digital numbers (uint16, reflectance x 10 000), same shape."""
    return torch.from_numpy(dn.astype(np.float32)).div_(REFLECTANCE_SCALE)


def normalize(reflectance: torch.Tensor, valid: torch.Tensor, scaling: Scaling) -> torch.Tensor:
    """Return the input of a net.

    Args:
        reflectance: float32 `(batch, band, row, col)`.
        valid: bool `(batch, row, col)`, True where the pixel was observed.
        scaling: clip, mean and std.

    Returns:
        float32 `(batch, band, row, col)`; exactly 0 where not valid.
    """
    mean, std = (_per_band(values, reflectance.device) for values in (scaling.mean, scaling.std))
    x = reflectance.clamp(max=scaling.clip).sub_(mean).div_(std)
    return x.masked_fill_(~valid.unsqueeze(1), 0.0)


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


@lru_cache(maxsize=16)
def _per_band(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Return float32 `(1, band, 1, 1)`, kept: a new copy to a GPU would make the host wait for it in each batch."""
    with torch.inference_mode(False):  # prediction and training share it
        return torch.tensor(values, device=device).view(1, -1, 1, 1)
