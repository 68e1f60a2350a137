"""Statistics of a band of bytes, stored inside the file so that no reader writes them beside it.

GDAL (`gdalinfo -stats`) and QGIS look for the metadata items `STATISTICS_*` of a band; if they are missing they compute
them and write `<file>.aux.xml` into the folder of the file, here the object store.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

_VALUES = 256


@dataclass(frozen=True)
class BandStatistics:
    """Of the pixels that are not no-data, in stored values (before GDAL's scale)."""

    minimum: float
    maximum: float
    mean: float
    stddev: float
    """Of the population, as GDAL computes it."""
    valid: int
    """Pixels that are not no-data."""
    pixels: int

    @classmethod
    def from_counts(cls, counts: npt.NDArray[np.int64], nodata: int) -> Self | None:
        """Return the statistics of bytes, exact whatever windows they were counted in; None if all are no-data.

        Args:
            counts: pixels of each value, `(256,)`.
            nodata: the value that does not count.
        """
        values = np.arange(_VALUES)
        kept = np.where(values == nodata, 0, counts)
        valid = int(kept.sum())
        if not valid:
            return None
        there = np.flatnonzero(kept)
        # Python's integers are exact, also for a million megapixels.
        total = sum(int(value) * int(kept[value]) for value in there)
        squares = sum(int(value) ** 2 * int(kept[value]) for value in there)
        variance = (squares * valid - total * total) / (valid * valid)
        return cls(
            float(there[0]), float(there[-1]), total / valid, math.sqrt(variance), valid, pixels=int(counts.sum())
        )

    def tags(self) -> dict[str, str]:
        """Return the metadata items of the band that GDAL reads (`GDALRasterBand::SetStatistics`)."""
        return {
            "STATISTICS_MINIMUM": repr(self.minimum),
            "STATISTICS_MAXIMUM": repr(self.maximum),
            "STATISTICS_MEAN": repr(self.mean),
            "STATISTICS_STDDEV": repr(self.stddev),
            "STATISTICS_VALID_PERCENT": f"{100 * self.valid / self.pixels:.4g}",
        }


def count_values(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return how many pixels have each value, `(256,)`."""
    flat = np.ascontiguousarray(pixels).reshape(-1)
    if flat.size < _VALUES**2:
        return np.bincount(flat, minlength=_VALUES)
    # Two at a time, because the time is that of `bincount` for each number, whatever its size.
    even = flat.size // 2 * 2
    pairs = np.bincount(flat[:even].view(np.uint16), minlength=_VALUES**2).reshape(_VALUES, _VALUES)
    counts: npt.NDArray[np.int64] = pairs.sum(axis=0) + pairs.sum(axis=1)
    return counts + np.bincount(flat[even:], minlength=_VALUES)
