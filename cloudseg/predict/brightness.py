"""The brightness of a scene, counted from the pixels that are read for its mask anyway."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cloudseg.model.windows import PaddedWindow
from cloudseg.raster.brightness import BINS, SAMPLE_STRIDE, count_bins, percentiles_of, visible


class BrightnessCount:
    """Counter of the brightness of every 4th row and column of a scene's working pixels.

    Rows and columns are counted from the corner of the scene, so that the result does not depend on the windows.

    Args:
        bands: of the pixels, in order.
    """

    def __init__(self, bands: Sequence[str]) -> None:
        self._positions = visible(bands)
        self._histogram = np.zeros(BINS, np.int64)

    def add(self, window: PaddedWindow, dn: npt.NDArray[np.uint16], observed: npt.NDArray[np.bool_]) -> None:
        """Count the core of a window.

        Args:
            window: in working pixels.
            dn: uint16 `(band, row, col)` over `window.padded`, canonical digital numbers.
            observed: bool `(row, col)` over `window.padded`.
        """
        rows, cols = window.core.within(window.padded)
        rows = slice(rows.start + -window.core.row_off % SAMPLE_STRIDE, rows.stop, SAMPLE_STRIDE)
        cols = slice(cols.start + -window.core.col_off % SAMPLE_STRIDE, cols.stop, SAMPLE_STRIDE)
        self._histogram += count_bins(dn[:, rows, cols], self._positions, observed[rows, cols])

    @property
    def percentiles(self) -> tuple[float, ...] | None:
        """Reflectance at the percentiles of `cloudseg.raster.brightness`; None for a small sample."""
        return percentiles_of(self._histogram)
