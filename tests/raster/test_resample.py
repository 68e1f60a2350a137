"""Down to working pixels and up again: only observed pixels contribute, and windows meet without a seam."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudseg.grid import Window
from cloudseg.raster.resample import downsample, scene_window, upsample, working_shape


def test_averaging_skips_pixels_without_data() -> None:
    numbers = np.array([[[100, 300, 0], [0, 500, 0], [40, 40, 7]], [[1, 3, 5], [1, 0, 7], [2, 3, 4]]], np.uint16)
    means, observed = downsample(numbers, 2)
    assert means.dtype == np.uint16
    assert means.tolist() == [[[200, 0], [40, 7]], [[2, 0], [3, 4]]], "half is rounded up"
    assert observed.tolist() == [[True, False], [True, True]]
    means, observed = downsample(numbers, 1)
    assert observed.tolist() == [[True, True, False], [False, False, False], [True, True, True]]
    assert (means == numbers * observed).all()


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_the_input_is_left_as_it_is(factor: int) -> None:
    numbers = np.random.default_rng(0).integers(0, 3, (2, 7, 5)).astype(np.uint16)
    numbers.flags.writeable = False
    downsample(numbers, factor)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    factor=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.3, 0.9]),
    seed=st.integers(0, 99),
)
def test_both_ways_are_what_a_plain_loop_gives(height: int, width: int, factor: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = np.where(rng.random((2, height, width)) < share, 0, rng.integers(1, 65536, (2, height, width)))
    means, observed = downsample(numbers.astype(np.uint16), factor)
    rows, cols = working_shape(height, width, factor)
    for row, col in np.ndindex(rows, cols):
        block = numbers[:, row * factor : (row + 1) * factor, col * factor : (col + 1) * factor]
        seen = block[:, (block != 0).all(axis=0)]
        assert observed[row, col] == (seen.shape[1] > 0)
        expected = np.floor(seen.mean(axis=1) + 0.5) if seen.shape[1] else np.zeros(2)
        assert means[:, row, col].tolist() == expected.tolist()
    probability = rng.random((rows, cols), np.float32)
    found = upsample(probability, observed, (0, 0), Window(0, 0, height, width), factor)
    for row, col in np.ndindex(height, width):
        total = weight = 0.0
        for i, j in np.ndindex(rows, cols):
            down = 1 - abs(min(max((row + 0.5) / factor - 0.5, 0), rows - 1) - i)
            across = 1 - abs(min(max((col + 0.5) / factor - 0.5, 0), cols - 1) - j)
            if down > 0 and across > 0 and observed[i, j]:
                total, weight = total + down * across * float(probability[i, j]), weight + down * across
        if observed[row // factor, col // factor] or factor > 1:
            assert found[row, col] == pytest.approx(total / weight if weight > 1e-9 else 0.0, abs=1e-5)


def test_upsampling_is_bilinear_between_observed_centers() -> None:
    working = np.array([[0.0, 1.0], [0.5, 0.25]], np.float32)
    everywhere = np.ones((2, 2), bool)
    got = upsample(working, everywhere, (0, 0), Window(0, 0, 4, 4), 2)
    # Centers of scene pixels lie at -0.25, 0.25, 0.75, 1.25 working pixels; beyond the outer centers the value stays.
    share = np.array([0.0, 0.25, 0.75, 1.0])
    top, bottom = (
        working[0, 0] + share * (working[0, 1] - working[0, 0]),
        working[1, 0] + share * (working[1, 1] - working[1, 0]),
    )
    expected = top[None] + share[:, None] * (bottom - top)[None]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    holes = np.array([[True, False], [True, True]])
    got = upsample(working, holes, (0, 0), Window(0, 0, 4, 4), 2)
    assert got[0, 1] == 0.0  # its right neighbor was not observed and does not contribute
    assert got[0, 3] == 0.0  # nothing around was observed


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(5, 40),
    width=st.integers(5, 40),
    factor=st.integers(2, 5),
    core=st.sampled_from([2, 3, 5]),
    seed=st.integers(0, 9),
)
def test_upsampled_windows_meet_without_a_seam(height: int, width: int, factor: int, core: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, cols = working_shape(height, width, factor)
    working, observed = rng.random((rows, cols), np.float32), rng.random((rows, cols)) > 0.3
    whole = upsample(working, observed, (0, 0), Window(0, 0, height, width), factor)
    parts = np.full((height, width), -1, np.float32)
    for row in range(0, rows, core):
        for col in range(0, cols, core):
            inner = Window(row, col, min(core, rows - row), min(core, cols - col))
            top, left = max(row - 1, 0), max(col - 1, 0)
            near = (slice(top, row + inner.height + 1), slice(left, col + inner.width + 1))
            target = scene_window(inner, factor, height, width)
            parts[target.slices] = upsample(working[near], observed[near], (top, left), target, factor)
    assert (parts == whole).all()
