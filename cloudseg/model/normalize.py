"""The one preprocessing, from canonical digital numbers to the input of a net.

Training, validation, evaluation and prediction all call it. `x = (min(reflectance, clip) - mean) / std` per band, and 0
where nothing was observed. Clip, mean and std come from the recipe and are stored in the weights.
"""

from dataclasses import dataclass

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
    mean, std = (
        torch.tensor(values, device=reflectance.device).view(1, -1, 1, 1) for values in (scaling.mean, scaling.std)
    )
    x = reflectance.clamp(max=scaling.clip).sub_(mean).div_(std)
    return x.masked_fill_(~valid.unsqueeze(1), 0.0)
