"""Compare the masks of two models: where pixels flipped, on which sensors and ground, which labels lie behind it."""

from cloudseg.changes.build import Comparison, compare_models, counts_json

__all__ = ["Comparison", "compare_models", "counts_json"]
