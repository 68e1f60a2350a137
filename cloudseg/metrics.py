"""Rates of a confusion matrix, with one rule for 0/0, used by training, evaluation and the int8 check.

A share of nothing is 1: "of no cloud, all was found". So IoU is 1 where neither mask nor label has
cloud, and 0 where only one of them has.
"""

from typing import Final

INT8_MIN_MASK_IOU: Final = 0.99
"""Of the int8 mask against the fp32 mask: below it the int8 file is not published."""
INT8_MAX_LABEL_CHANGE: Final = 0.005
"""Of the IoU against the labels, by int8.

The margin below which a champion would not be replaced either (field study, PostHog #89135).
"""


def share(part: float, whole: float) -> float:
    """Return `part / whole`, 1 where `whole` is 0."""
    return part / whole if whole else 1.0


def iou(tp: int, fp: int, fn: int) -> float:
    """Return the intersection over union of the cloud class."""
    return share(tp, tp + fp + fn)


def precision(tp: int, fp: int) -> float:
    """Return the share of predicted cloud that is cloud in the label."""
    return share(tp, tp + fp)


def recall(tp: int, fn: int) -> float:
    """Return the share of labeled cloud that was predicted."""
    return share(tp, tp + fn)
