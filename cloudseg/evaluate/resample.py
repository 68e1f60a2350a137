"""Chips for a net that works on coarser pixels than the snapshot.

Averaged down, and the probability brought back up.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from cloudseg.model.normalize import observed

UInt16 = npt.NDArray[np.uint16]
Float = npt.NDArray[np.float32]


def average_down(dn: UInt16, factor: int) -> UInt16:
    """Average `(n, band, row, col)` over blocks of `factor` × `factor`, only over pixels where every band was observed.

    The last block of a row or column may be smaller. A block without any such pixel is 0, no data. As
    `cloudseg.raster.read` does it for a scene.
    """
    if factor == 1:
        return dn
    rows, cols = -dn.shape[2] % factor, -dn.shape[3] % factor
    padded = np.pad(dn, ((0, 0), (0, 0), (0, rows), (0, cols)))
    weight = _blocks(observed(padded)[:, np.newaxis].astype(np.uint32), factor)
    total = _blocks(padded.astype(np.uint32) * observed(padded)[:, np.newaxis], factor)
    mean: UInt16 = ((total + weight // 2) // np.maximum(weight, 1)).astype(np.uint16)
    return mean


def _blocks(values: npt.NDArray[np.uint32], factor: int) -> npt.NDArray[np.uint32]:
    n, bands, height, width = values.shape
    total: npt.NDArray[np.uint32] = values.reshape(n, bands, height // factor, factor, width // factor, factor).sum(
        axis=(3, 5), dtype=np.uint32
    )
    return total


def bring_up(probability: Float, factor: int, height: int, width: int) -> Float:
    """Interpolate `(n, row, col)` bilinearly to pixels `factor` times finer and cut to height and width, as prediction does."""
    if factor == 1:
        return probability
    finer = functional.interpolate(
        torch.from_numpy(probability)[:, None], scale_factor=factor, mode="bilinear", align_corners=False
    )
    result: Float = finer[:, 0, :height, :width].numpy()
    return result
