"""The loss: binary cross-entropy with logits plus a soft Jaccard term, over labelled pixels only."""

import torch
from torch.nn import functional

from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA
from cloudseg.recipe import Loss


def segmentation_loss(logits: torch.Tensor, label: torch.Tensor, recipe: Loss) -> torch.Tensor:
    """Return the loss of a batch as a scalar.

    Args:
        logits: float `(batch, row, col)`; computed in float32 whatever comes in.
        label: uint8 `(batch, row, col)`: 0, 1, or 255 for pixels that must not matter.
        recipe: weights of the terms and label smoothing (Szegedy et al. 2016: targets e/2 and 1 - e/2).

    The soft Jaccard term is 1 - sum(p t) / sum(p + t - p t), pooled over the batch (Rahman and Wang 2016): per chip it
    would be undefined on clear ones. A batch without any labelled pixel gives 0 and no gradient.
    """
    known = label != MASK_NO_DATA
    # Multiplying by the mask instead of indexing: the same number of bytes every step, and no host synchronisation on a
    # GPU.
    weight = known.float()
    hard = (label == MASK_CLOUD).float()
    target = hard * (1 - recipe.label_smoothing) + recipe.label_smoothing / 2
    count = weight.sum().clamp(min=1)
    logits = torch.where(known, logits.float(), torch.zeros((), device=logits.device))
    loss = (
        recipe.bce
        * (functional.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight).sum()
        / count
    )
    if recipe.soft_jaccard:
        probability = torch.sigmoid(logits) * weight
        truth = hard * weight
        both = (probability * truth).sum()
        either = probability.sum() + truth.sum() - both
        loss = loss + recipe.soft_jaccard * (1 - (both + 1) / (either + 1))
    return loss
