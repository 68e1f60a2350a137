"""Statistics of bytes: those that GDAL computes, whatever windows they were counted in."""

import numpy as np
import pytest

from cloudseg.raster.statistics import BandStatistics, count_values


@pytest.mark.parametrize("shape", [(70, 90), (703, 701)])
def test_they_equal_those_of_the_pixels(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    counts = sum(count_values(part) for part in np.array_split(pixels, 7))
    found = BandStatistics.from_counts(counts, 255)
    valid = pixels[pixels != 255].astype(float)
    assert found is not None
    assert (found.minimum, found.maximum) == (valid.min(), valid.max())
    assert (found.mean, found.stddev) == pytest.approx((valid.mean(), valid.std()), rel=1e-12)
    assert (found.valid, found.pixels) == (valid.size, pixels.size)
    assert found.tags()["STATISTICS_VALID_PERCENT"] == f"{100 * valid.size / pixels.size:.4g}"


def test_no_data_has_none() -> None:
    assert BandStatistics.from_counts(count_values(np.full((3, 3), 255, np.uint8)), 255) is None
