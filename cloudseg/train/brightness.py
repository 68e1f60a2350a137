"""How bright the training scenes are: measured at the end of a training and stored in the weights."""

from itertools import groupby

import numpy as np

from cloudseg.model.pixels import observed
from cloudseg.raster.brightness import BINS, SAMPLE_STRIDE, count_bins, percentiles_of, range_of, visible
from cloudseg.records import BrightnessRange
from cloudseg.train.data import TrainingData


def training_brightness(data: TrainingData) -> BrightnessRange | None:
    """Return the range of brightness of the scenes that a net was trained on; None for too few.

    Chips are in the net's working pixels, as are those that a prediction samples (`cloudseg.predict.brightness`), so
    that both measure the same. Overlaps of chips count twice.
    """
    positions, found = visible(data.chip_set.bands), []
    for _, chips in groupby(sorted(data.train, key=lambda chip: (chip.scene_id, chip.chip_id)), lambda c: c.scene_id):
        histogram = np.zeros(BINS, np.int64)
        for chip in chips:
            dn = np.asarray(data.chip_set.pixels(chip)[:, ::SAMPLE_STRIDE, ::SAMPLE_STRIDE])
            histogram += count_bins(dn, positions, observed(dn))
        percentiles = percentiles_of(histogram)
        if percentiles is not None:
            found.append(percentiles)
    return range_of(found)
