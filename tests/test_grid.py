"""Windows cover a raster exactly; places are the MGRS squares of the Sentinel-2 tiles."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudseg.grid import Window, decimation, iter_strips, iter_windows, meters_per_degree, mgrs_place, starts, wrap_lon

LENGTHS, SIZES = st.integers(1, 3000), st.integers(1, 600)
SPANS = st.tuples(LENGTHS, SIZES).flatmap(
    lambda two: st.tuples(st.just(two[0]), st.just(two[1]), st.integers(0, two[1] - 1))
)
WINDOWS = st.builds(Window, st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20))
SMALL_SPANS = st.tuples(st.integers(1, 60), st.integers(1, 60), st.integers(4, 30)).flatmap(
    lambda three: st.tuples(*map(st.just, three), st.integers(0, three[2] - 1))
)


@given(SPANS)
def test_spans_cover_the_length_and_overlap(span: tuple[int, int, int]):
    length, size, overlap = span
    begins = starts(length, size, overlap)
    inside = min(size, length)
    assert begins[0] == 0
    assert begins[-1] + inside == length
    assert begins == sorted(set(begins))
    for one, two in itertools.pairwise(begins):
        assert one + size - two >= overlap


@given(SPANS)
def test_no_span_is_superfluous(span: tuple[int, int, int]):
    length, size, overlap = span
    assert len(starts(length, size, overlap)) == max(1, math.ceil((length - overlap) / (size - overlap)))


@given(SMALL_SPANS)
def test_windows_cover_every_pixel(span: tuple[int, int, int, int]):
    height, width, size, overlap = span
    seen = np.zeros((height, width), int)
    for window in iter_windows(height, width, size, overlap):
        assert (window.height, window.width) == (min(size, height), min(size, width))
        assert seen[window.slices].shape == (window.height, window.width)
        seen[window.slices] += 1
    assert seen.min() >= 1


@given(SMALL_SPANS)
def test_windows_are_stable_and_in_order(span: tuple[int, int, int, int]):
    once = list(iter_windows(*span))
    assert once == list(iter_windows(*span)) == sorted(set(once))


@given(SPANS)
def test_a_longer_scene_keeps_the_first_windows(span: tuple[int, int, int]):
    """All but the last two spans stay where they are when rows are added at the end."""
    length, size, overlap = span
    begins, longer = starts(length, size, overlap), starts(length + 100, size, overlap)
    assert longer[: max(0, len(begins) - 1)] == begins[:-1]


@pytest.mark.parametrize(
    ("length", "size", "overlap"), [(10, 0, 0), (10, -1, 0), (10, 4, 4), (10, 4, -1), (0, 4, 0), (-3, 4, 0)]
)
def test_spans_that_cannot_cover_are_refused(length: int, size: int, overlap: int):
    with pytest.raises(ValueError, match=f"size {size} with overlap {overlap} cannot cover a length of {length}"):
        starts(length, size, overlap)


def test_a_window_slices_rows_then_columns():
    assert Window(1, 2, 3, 4).slices == (slice(1, 4), slice(2, 6))


@pytest.mark.parametrize(
    ("resolution_m", "working_m", "factor"),
    [
        (10, 40, 4),
        (10, 45, 4),
        (20, 45, 2),
        (30, 40, 1),
        (45, 40, 1),
        (60, 10, 1),
        (10, 30, 3),
        (20, 30, 1),  # not 40 m
        (16, 30, 2),  # 32 m
        (12, 30, 2),  # 24 m
        (3, 30, 10),
        (None, 40, 1),
        (10, None, 1),
        (0, 40, 1),
    ],
)
def test_decimation(resolution_m: float | None, working_m: float | None, factor: int):
    assert decimation(resolution_m, working_m) == factor


@pytest.mark.parametrize(
    ("lon", "lat", "place"),
    [
        (2.35, 48.85, "mgrs:31UDQ"),
        (8.0, 46.5, "mgrs:32TMS"),
        (179.995, -16.75, "mgrs:60KZG"),
        (-179.9, 66.3, "mgrs:01WCP"),
        (180.0, 66.3, "mgrs:01WCP"),
        (540.0, 66.3, "mgrs:01WCP"),
        (5.3, 60.4, "mgrs:32VKN"),  # zone 32 is widened over south-west Norway
        (15.0, 78.0, "mgrs:33XWG"),  # and zones 32, 34 and 36 are missing over Svalbard
    ],
)
def test_places_are_mgrs_squares(lon: float, lat: float, place: str):
    assert mgrs_place(lon, lat) == place


@given(st.floats(-720, 720), st.floats(-89.9, 89.9))
def test_every_point_has_one_place(lon: float, lat: float):
    assert mgrs_place(lon, lat).startswith("mgrs:")
    assert mgrs_place(lon, lat) == mgrs_place(lon, lat)


@given(st.floats(-1e6, 1e6))
def test_wrapped_longitudes_are_in_range(lon: float):
    wrapped = wrap_lon(lon)
    assert -180 <= wrapped < 180
    assert math.isclose(math.cos(math.radians(wrapped)), math.cos(math.radians(lon)), abs_tol=1e-9)


def test_meters_per_degree():
    north, east = meters_per_degree(60)
    assert north == pytest.approx(111_195, abs=1)
    assert east == pytest.approx(north / 2, rel=1e-9)
    assert meters_per_degree(-60) == meters_per_degree(60)


def test_a_window_within_another_cuts_it_out_of_the_others_array():
    array = np.arange(100).reshape(10, 10)
    outer, inner = Window(2, 3, 6, 5), Window(4, 4, 2, 3)
    assert inner.within(outer) == (slice(2, 4), slice(1, 4))
    assert (array[outer.slices][inner.within(outer)] == array[inner.slices]).all()


@given(WINDOWS, WINDOWS)
def test_the_overlap_is_what_both_windows_hold(one: Window, other: Window):
    seen = np.zeros((2, 40, 40), bool)
    seen[0][one.slices] = seen[1][other.slices] = True
    both, found = seen.all(axis=0), one.overlap(other)
    assert found == other.overlap(one)
    if found is None:
        assert not both.any()
    else:
        expected = np.zeros_like(both)
        expected[found.slices] = True
        assert (both == expected).all()


@given(WINDOWS, st.integers(1, 25))
def test_strips_cover_a_window_and_end_at_multiples(window: Window, step: int):
    strips = list(iter_strips(window, step))
    rows = [row for strip in strips for row in range(strip.row_off, strip.row_off + strip.height)]
    assert rows == list(range(window.row_off, window.row_off + window.height))
    assert all((strip.col_off, strip.width) == (window.col_off, window.width) for strip in strips)
    assert all((strip.row_off + strip.height) % step == 0 for strip in strips[:-1])
    assert all(strip.height <= step for strip in strips)
