"""What a prediction asks and says of the promise of its masks: thresholds by name, scenes unlike the training's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cloudseg.catalog import names
from cloudseg.catalog.promise_rows import find_promise, list_outside
from cloudseg.records import Mask, Promise, ThresholdName, Weights
from cloudseg.runtime import Runtime

if TYPE_CHECKING:
    from cloudseg.raster.thresholds import Threshold


def named_threshold(runtime: Runtime, asked: "Threshold | None", weights_id: str | None) -> float | None:
    """Return a threshold as a number; a number, and None, are returned unchanged.

    Args:
        runtime: of this process.
        asked: a number, `careful`, `balanced` or `generous`.
        weights_id: of which weights; None: the champion.

    Raises:
        InputError: there is no such name, or no such threshold was promised for these weights.
        NotInCatalog: the weights are unknown, or there is no champion yet.
    """
    if not isinstance(asked, str):
        return asked
    from cloudseg.raster.thresholds import resolve_threshold

    with runtime.catalog.read() as db:
        weights = names.get_weights(db, weights_id or names.CHAMPION)
        promise = find_promise(db, weights.weights_id)
    return resolve_threshold(asked, promise=promise, own=weights.metadata["threshold"], subject=weights.weights_id)


def threshold_of_mask(runtime: Runtime, name: ThresholdName, mask: Mask, weights: Weights) -> float:
    """Return the threshold of this name for one mask: as promised with the mask, else for its weights.

    Args:
        runtime: of this process.
        name: `careful`, `balanced` or `generous`.
        mask: the mask; a published one keeps its promise when the evaluation is removed.
        weights: that made it.

    Raises:
        InputError: no such threshold was promised.
    """
    from cloudseg.raster.thresholds import resolve_threshold

    promise = Promise.model_validate(mask.promise) if mask.promise else None
    if promise is None:  # a mask that is older than the evaluation
        with runtime.catalog.read() as db:
            promise = find_promise(db, weights.weights_id)
    own = float(weights.metadata["threshold"])
    number = resolve_threshold(name, promise=promise, own=own, subject=weights.weights_id)
    return own if number is None else number


def outside_notes(runtime: Runtime, weights: Weights, mask_ids: Sequence[str]) -> list[str]:
    """Return a sentence for each mask whose scene is not as bright as the training scenes of the weights."""
    from cloudseg.raster.brightness import radiometry_of

    with runtime.catalog.read() as db:
        found = list_outside(db, mask_ids)
    return [f"{name}: {radiometry_of(weights.metadata, mask.brightness).note}" for mask, name in found]
