"""The loss: binary cross-entropy with logits over labeled pixels only."""

import torch
from torch.nn import functional

from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA


def masked_bce(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return the mean binary cross-entropy over the labeled pixels of a batch.

    Args:
        logits: float `(batch, row, col)`; computed in float32 whatever comes in.
        label: uint8 `(batch, row, col)`: 0 clear, 1 cloud, 255 for pixels that are left out.

    Returns:
        A scalar; 0 without a gradient for a batch without any labeled pixel.
    """
    known = label != MASK_NO_DATA
    # Multiplied by the mask instead of indexed: the same number of bytes every step, and no host synchronization on a GPU.
    weight = known.float()
    logits = torch.where(known, logits.float(), torch.zeros((), device=logits.device))
    target = (label == MASK_CLOUD).float()
    loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (loss * weight).sum() / weight.sum().clamp(min=1)
