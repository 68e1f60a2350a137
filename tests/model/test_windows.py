"""Windows cover the scene exactly, stay inside it and keep to whole pooling cells."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudseg.model.shapes import receptive_radius
from cloudseg.model.unet import SimpleUNet
from cloudseg.model.windows import choose_core, iter_padded_windows, margin_of
from cloudseg.recipe import Model


@settings(deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    core=st.sampled_from([16, 32, 64, 256]),
    margin=st.sampled_from([0, 8, 32]),
)
def test_cores_cover_the_scene_once_and_padded_windows_look_far_enough(
    height: int, width: int, core: int, margin: int
) -> None:
    seen = np.zeros((height, width), int)
    windows = list(iter_padded_windows(height, width, core=core, margin=margin, multiple=8))
    sizes = [-(-side // 8) for side in (windows[0].padded.height, windows[0].padded.width)]
    for window in windows:
        seen[window.core.slices] += 1
        for axis, length in ((0, height), (1, width)):
            inner, padded = (part.slices[axis] for part in (window.core, window.padded))
            assert padded.start % 8 == 0
            assert 0 <= padded.start <= max(0, inner.start - margin)
            assert min(length, inner.stop + margin) <= padded.stop <= length
            cells = -(-(padded.stop - padded.start) // 8)
            assert cells == sizes[axis], "one size for all"
            assert 8 * cells <= min(core + 2 * margin, -(-length // 8) * 8)
    assert (seen == 1).all()


def test_the_cores_of_a_scene_are_equal_and_as_few_as_before() -> None:
    """A tile of Sentinel-2 at 30 m: nine passes of 1552 pixels per side, not of 1632."""
    windows = list(iter_padded_windows(3660, 3660, core=1152, margin=240, multiple=16))
    assert len(windows) == 9
    assert {(window.padded.height, window.padded.width) for window in windows} == {
        (1552, 1552),
        (1552, 1548),
        (1548, 1552),
        (1548, 1548),
    }


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_margin_is_wider_than_what_a_pixel_can_see(levels: int) -> None:
    widths = tuple(2 for _ in range(levels))
    net = SimpleUNet(1, widths).eval()
    size = 256
    x = torch.zeros(1, 1, size, size, requires_grad=True)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_().add_(0.1)  # all positive: nothing cancels, no ReLU is dead
    offset = 2 ** (levels - 1)
    reach = 0
    for at in range(128, 128 + offset):
        (gradient,) = torch.autograd.grad(net(x)[0, 0, at, at], x)
        rows = torch.nonzero(gradient[0, 0].abs().sum(1)).flatten()
        reach = max(reach, at - int(rows.min()), int(rows.max()) - at)
    assert 0 < reach <= receptive_radius(Model(architecture="SimpleUNet", widths=widths))


def test_core_follows_the_memory_budget() -> None:
    assert choose_core(640, bytes_per_value=4, budget_bytes=512 << 20, margin=28) == 384
    assert choose_core(160, bytes_per_value=2, budget_bytes=512 << 20, margin=128) == 1024
    assert choose_core(10240, bytes_per_value=4, budget_bytes=1, margin=128) == 128


@pytest.mark.parametrize(("factor", "core"), [(1, 640), (9, 640), (12, 384), (30, 128)])
def test_core_is_smaller_where_a_working_pixel_is_many_scene_pixels(factor: int, core: int) -> None:
    """The nightly net at 90 m on scenes of 90, 10, 7.5 and 3 m: what is upsampled and written at once stays bounded."""
    assert choose_core(160, bytes_per_value=4, budget_bytes=512 << 20, margin=112, factor=factor) == core
    assert factor * (core + 112) < 7300


@settings(max_examples=20, deadline=None)
@given(radius=st.integers(0, 300), multiple=st.sampled_from([1, 2, 4, 16]), halo=st.integers(0, 1))
def test_margin_is_whole_cells(radius: int, multiple: int, halo: int) -> None:
    margin = margin_of(radius, multiple, halo)
    assert margin % multiple == 0
    assert radius + halo <= margin < radius + halo + multiple


@pytest.mark.parametrize(("core", "margin"), [(0, 8), (16, -8), (12, 8), (16, 4)])
def test_impossible_windows_are_refused(core: int, margin: int) -> None:
    with pytest.raises(ValueError, match="must be multiples"):
        list(iter_padded_windows(10, 10, core=core, margin=margin, multiple=8))
