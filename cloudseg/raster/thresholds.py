"""A threshold by name: careful, balanced or generous, as far as it was promised for the weights."""

from typing import Final, get_args

from cloudseg.errors import InputError
from cloudseg.records import Promise, ThresholdName

THRESHOLD_NAMES: Final[tuple[str, ...]] = get_args(ThresholdName)
Threshold = float | ThresholdName
"""A probability from which a pixel is cloud, or its name."""


def split_threshold(asked: Threshold | None) -> tuple[float | None, ThresholdName | None]:
    """Return a threshold as a number and as a name, of which one is None; both where none is asked for.

    Raises:
        InputError: there is no such name.
    """
    if not isinstance(asked, str):
        return asked, None
    if asked not in THRESHOLD_NAMES:
        raise InputError(
            "not a threshold", subject="threshold", found=asked, expected=f"a number, {', '.join(THRESHOLD_NAMES)}"
        )
    return None, asked


def resolve_threshold(asked: Threshold | None, *, promise: Promise | None, own: float, subject: str) -> float | None:
    """Return the number of a threshold that was asked for; a number, and None, are returned unchanged.

    Args:
        asked: a name, a number, or None for the one of the weights.
        promise: of the weights; None: they have none.
        own: threshold of the weights, which is what `balanced` names.
        subject: the weights, for the error.

    Raises:
        InputError: there is no such name, or no such threshold was promised for these weights.
    """
    number, name = split_threshold(asked)
    if name is None:
        return number
    if name == "balanced":
        return own
    chosen = getattr(promise, name) if promise else None
    if chosen is None:
        why = promise.reasons.get(name) if promise else "no evaluation on held-out places that chose thresholds"
        raise InputError(
            f"these weights have no {name} threshold",
            subject=subject,
            found=why,
            next_step="Pass a probability instead; or use weights of this home that `cloudseg evaluate` evaluated on "
            "enough held-out places.",
        )
    return float(chosen.threshold)
