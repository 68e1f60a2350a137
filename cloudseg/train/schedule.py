"""The learning rate as a function of the step: it keeps no state, so a resumed run has nothing to restore."""

import math
from typing import Final

from cloudseg.recipe import Optimizer

_ONECYCLE_START: Final = 25.0
_ONECYCLE_END: Final = 1e4
"""First and last learning rate are lr / 25 and lr / 25 / 10 000, as in PyTorch's OneCycleLR (Smith and Topin 2018)."""


def learning_rate(step: int, total_steps: int, optimizer: Optimizer) -> float:
    """Return the learning rate of a step (0 is the first)."""
    if optimizer.schedule == "constant":
        return optimizer.lr
    warmup = max(1, round(total_steps * optimizer.warmup_fraction)) if optimizer.warmup_fraction else 0
    done = (step - warmup) / max(1, total_steps - warmup)
    if optimizer.schedule == "cosine":
        return optimizer.lr * ((step + 1) / warmup if step < warmup else _cosine(1.0, 0.0, done))
    start = optimizer.lr / _ONECYCLE_START
    return (
        _cosine(start, optimizer.lr, step / warmup)
        if step < warmup
        else _cosine(optimizer.lr, start / _ONECYCLE_END, done)
    )


def _cosine(first: float, last: float, fraction: float) -> float:
    """Go from first to last along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * fraction)) / 2
