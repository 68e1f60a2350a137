"""The one preprocessing, from canonical digital numbers to the input of a net.

Training, validation, evaluation and prediction all call it. `x = (min(reflectance, clip) - mean) / std` per band, and 0
where nothing was observed. Clip, mean and std come from the recipe and are stored in the weights.

A band that a scene may lack (`WeightsMeta.optional_bands`) is 0 in its digital numbers where it is missing, and 0 in
the input of the net, as in the training samples whose bands are dropped (`cloudseg.train.augment`).
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from cloudseg.bands import REFLECTANCE_SCALE
from cloudseg.model.pixels import Scaling


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


@lru_cache(maxsize=16)
def _per_band(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Return float32 `(1, band, 1, 1)`, kept: a new copy to a GPU would make the host wait for it in each batch."""
    with torch.inference_mode(False):  # prediction and training share it
        return torch.tensor(values, device=device).view(1, -1, 1, 1)
