"""Evaluate weights on places that they were not trained on, and compare a challenger with the champion."""

from cloudseg.evaluate.evaluation import evaluate_weights
from cloudseg.evaluate.gate import decide

__all__ = ["decide", "evaluate_weights"]
