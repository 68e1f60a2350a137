"""The verb that judges weights on places that they never saw, and challenger against champion."""

from cloudseg.evaluate.evaluation import evaluate_weights
from cloudseg.evaluate.gate import decide

__all__ = ["decide", "evaluate_weights"]
