"""Windows cut out of a scene that is read once are those that one read each would give."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloudseg.grid import Window
from cloudseg.model.windows import iter_padded_windows
from cloudseg.predict import window_pixels
from cloudseg.predict.window_pixels import iter_window_pixels
from cloudseg.raster.resample import downsample, scene_window, working_shape


@settings(max_examples=25, deadline=None)
@example(height=1030, width=70, factor=3, core=16, most_cols=16_384, missing=0.4, seed=0)
@example(height=40, width=900, factor=2, core=16, most_cols=200, missing=0.4, seed=0)
@given(
    height=st.integers(1, 600),
    width=st.integers(1, 300),
    factor=st.sampled_from([1, 2, 3, 7]),
    core=st.sampled_from([8, 32]),
    most_cols=st.sampled_from([1, 150, 16_384]),
    missing=st.sampled_from([0.0, 0.4, 1.0]),
    seed=st.integers(0, 5),
)
def test_windows_are_those_of_single_reads(
    height: int, width: int, factor: int, core: int, most_cols: int, missing: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scene = rng.integers(1, 65535, (2, height, width)).astype(np.uint16)
    blocks = rng.random((height // 16 + 1, width // 16 + 1)) < missing
    scene[:, blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]] = 0
    shape = working_shape(height, width, factor)
    windows = list(iter_padded_windows(*shape, core=core, margin=8, multiple=4))
    reads: list[Window] = []

    def read(window: Window, bands: tuple[str, ...]) -> np.ndarray:
        reads.append(window)
        return scene[(slice(None), *window.slices)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_pixels, "MOST_COLS", most_cols)
        found = list(iter_window_pixels(read, ("red", "nir"), (height, width), factor, windows))
    means, observed = downsample(scene, factor)
    assert len(found) == len(windows)
    assert {each.window for each in found} == set(windows)
    for each in found:
        valid = (scene[(slice(None), *each.target.slices)] != 0).all(axis=0)
        assert each.target == scene_window(each.window.core, factor, height, width)
        assert np.array_equal(each.valid.part(each.target), valid)
        if each.dn is None:
            assert not valid.any()
        else:
            rows_cols = each.window.padded.slices
            assert np.array_equal(each.dn, means[(slice(None), *rows_cols)])
            assert np.array_equal(each.observed, observed[rows_cols])
    assert sum(each.ends_row for each in found) == len({(each.row, each.target.row_off) for each in found})
    if most_cols == 16_384:
        assert sum(window.height for window in reads) == height, "each row is read once"


def test_the_width_that_is_read_at_once_is_bounded() -> None:
    windows = list(iter_padded_windows(64, 4096, core=64, margin=16, multiple=16))
    widths = set()

    def read(window: Window, bands: tuple[str, ...]) -> np.ndarray:
        widths.add(window.width)
        return np.ones((1, window.height, window.width), np.uint16)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_pixels, "MOST_COLS", 1000)
        found = list(iter_window_pixels(read, ("red",), (64, 4096), 1, windows))
    assert len(found) == len(windows)
    assert max(widths) <= 1000
    assert len(widths) > 1
