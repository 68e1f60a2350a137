"""Every pixel of a scene belongs to exactly one chip."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cloudseg.evaluate.mosaic import owned_windows
from cloudseg.grid import Window, iter_windows


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.data())
def test_owned_parts_cover_the_scene_once(height: int, width: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    windows = list(iter_windows(height, width, size, overlap))
    times = np.zeros((height, width), int)
    for window, owned in zip(windows, owned_windows(windows), strict=True):
        times[owned.slices] += 1
        assert window.row_off <= owned.row_off
        assert owned.row_off + owned.height <= window.row_off + window.height
        assert window.col_off <= owned.col_off
        assert owned.col_off + owned.width <= window.col_off + window.width
    assert (times == 1).all()


def test_neighbors_meet_in_the_middle() -> None:
    left, right = owned_windows([Window(0, 0, 10, 10), Window(0, 6, 10, 10)])
    assert (left, right) == (Window(0, 0, 10, 8), Window(0, 8, 10, 8))


def test_a_missing_chip_leaves_the_others_their_own() -> None:
    first, last = owned_windows([Window(0, 0, 10, 10), Window(0, 20, 10, 10)])
    assert (first, last) == (Window(0, 0, 10, 10), Window(0, 20, 10, 10))
