"""Clean the mask that was just drawn, in its file, where somebody asked for it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA
from cloudseg.errors import InputError
from cloudseg.predict.draw import Target
from cloudseg.raster.clean import cleaned_array, cleaned_classes, write_classes
from cloudseg.raster.cleaning import Cleaning
from cloudseg.raster.ground import Ground, measure_ground
from cloudseg.raster.statistics import BandStatistics
from cloudseg.stac.mask import MaskFacts


def cleaned_drawing(
    mask: Path,
    probability: Path,
    facts: MaskFacts,
    cleaning: Cleaning,
    target: Target,
    folder: Path,
    advance: Callable[[int], None] | None = None,
) -> MaskFacts:
    """Clean the mask that `draw_rasters` wrote, in place, and return its facts; with nothing to do, touch nothing.

    Args:
        mask: the drawn classes.
        probability: the drawn probability, for another threshold; it stays as it is.
        facts: of the mask as it was drawn.
        cleaning: what to do.
        target: whose pixels they are.
        folder: a scratch directory, with room for three bytes a pixel.
        advance: called with the number of rows that are done.

    Raises:
        InputError: the size of a pixel is unknown.
        DataError: the pixels cannot be measured on the ground.
    """
    cleaning = cleaning.of_model(facts.threshold)
    if not cleaning.text:
        return facts
    source = mask if cleaning.threshold is None else probability
    ground = ground_of(target, cleaning)
    classes = cleaned_classes(source, ground, cleaning, folder, advance or (lambda _: None))
    cleaned = folder / "mask-cleaned.tif"
    counts = write_classes(cleaned, classes, target.crs, Affine(*target.transform))
    cleaned.replace(mask)
    return _facts_of(facts, cleaning, counts)


def clean_array(
    classes: NDArray[np.uint8], steps: NDArray[np.uint8], cleaning: Cleaning, target: Target
) -> NDArray[np.uint8]:
    """Return classes after cleaning; the array itself where there is nothing to do.

    Args:
        classes: `(row, col)` as they were drawn.
        steps: the encoded probability `(row, col)`, for another threshold.
        cleaning: what to do.
        target: whose pixels they are.

    Raises:
        InputError: the size of a pixel is unknown.
        DataError: the pixels cannot be measured on the ground.
    """
    if not cleaning.text:
        return classes
    return cleaned_array(classes if cleaning.threshold is None else steps, ground_of(target, cleaning), cleaning)


def ground_of(target: Target, cleaning: Cleaning) -> Ground:
    """Return the size of the pixels: by the CRS, or where there is none by the resolution that somebody named.

    Raises:
        InputError: neither is known, and the cleaning needs it.
        DataError: the pixels cannot be measured.
    """
    if target.crs is not None:
        return measure_ground(Affine(*target.transform), target.crs, target.height, target.width)
    if target.resolution_m is None and cleaning.changes_areas:
        raise InputError(
            "the size of a pixel is unknown, so there are no meters",
            subject=target.scene_id,
            next_step="Pass resolution_m=10 for pixels of 10 m (command line: --resolution 10).",
        )
    side = np.full(target.height, target.resolution_m or 1.0)
    return Ground(side, side)


def cleaning_tags(facts: MaskFacts, threshold: float) -> dict[str, str]:
    """Return the tags of a cleaned mask, none of one that is as the model drew it.

    Args:
        facts: of the mask.
        threshold: of the model.
    """
    if not facts.cleaning.text:
        return {}
    # "yes", so that nobody takes it for a label (`cloudseg.ingest.label_tags`)
    return {"CLOUDSEG_CLEANED": "yes", **facts.cleaning.tags(threshold)}


def _facts_of(facts: MaskFacts, cleaning: Cleaning, counts: NDArray[np.int64]) -> MaskFacts:
    found = BandStatistics.from_counts(counts, MASK_NO_DATA)
    return replace(
        facts,
        threshold=facts.threshold if cleaning.threshold is None else cleaning.threshold,
        cloud=int(counts[MASK_CLOUD]),
        cleaning=cleaning,
        statistics={**facts.statistics, **({"mask": found} if found else {})},
    )
