"""What follows from the shape of a net alone, without torch: how far it sees, and how much memory a pass takes."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from cloudseg.recipe import Model


class Blocks(NamedTuple):
    """Consecutive equal blocks; the first one has the stride."""

    expand: int
    kernel: int
    stride: int
    out: int
    repeats: int


STAGES: Final[tuple[tuple[Blocks, ...], ...]] = (
    (Blocks(1, 3, 1, 16, 1),),  # after a 3x3 convolution with stride 2
    (Blocks(6, 3, 2, 24, 2),),
    (Blocks(6, 5, 2, 40, 2),),
    (Blocks(6, 3, 2, 80, 3), Blocks(6, 5, 1, 112, 3)),
)
"""EfficientNet-B0 (Tan and Le 2019, table 1) to 1/16, one entry per halving of the resolution."""


def receptive_radius(model: Model) -> int:
    """Return the pixels on each side that can change an output pixel: the overlap that windows of a scene need."""
    return _efficient_radius(model.widths) if model.architecture == "EfficientUNet" else _radius(model.widths)


def values_per_pixel(model: Model) -> int:
    """Return how many values a forward pass holds at once for each pixel of its input: limits the size of a window."""
    return _efficient_values(model.widths) if model.architecture == "EfficientUNet" else _values(model.widths)


def _radius(widths: Sequence[int]) -> int:
    """Return the pixels on each side that can change an output pixel.

    Level l works on pixels of 2**l: its four 3x3 convolutions (two in the bottleneck) reach 4 * 2**l pixels, and
    each of the poolings and up-convolutions reaches less than one pixel of the level below.
    """
    multiple = 1 << (len(widths) - 1)
    return 4 * (multiple - 1) + 2 * multiple + (multiple - 1)


def _values(widths: Sequence[int]) -> int:
    """Return how many values a forward pass holds at once for each pixel of the input.

    Ten maps of the first level: skip, upsampled, concatenated (two), input and output of the running convolution,
    and what the allocator keeps around them (measured: 10.7 with 16 channels in bf16, the float32 input included).
    """
    return 10 * widths[0]


def _efficient_radius(widths: Sequence[int]) -> int:
    """Return the pixels on each side that can change an output pixel: half of every kernel, at its resolution."""
    levels = len(widths)
    encoder = 1  # the stem
    for level, stage in enumerate(STAGES[:levels], start=1):
        for blocks in stage:
            first = blocks.kernel // 2 * (1 << level) // blocks.stride
            encoder += first + (blocks.repeats - 1) * (blocks.kernel // 2 * (1 << level))
    # Two 3x3 convolutions per level; upsampling repeats pixels (less than one of the level below), the last one
    # interpolates between neighbors.
    decoder = sum(2 * (1 << level) + (2 << level) for level in range(1, levels)) + 2
    return encoder + decoder


def _efficient_values(widths: Sequence[int]) -> int:
    """Return how many values a forward pass holds at once for each pixel of the input, measured or slightly more.

    The encoder's widest maps hold 100, a wide decoder at half the resolution exceeds it. Measured in fp32: 95
    with 32-64-96-96, 187 with 128-128-96-96, 201 with 64-256-96-96 (bytes per pixel of a pass of 768 or 1024 pixels
    per side, by the peak of the process, over 4). By strips a pass of 32-64-96-96 holds 64; the number stays, as
    the windows of a scene, and with them how its probability is rounded, follow from it.
    """
    below = widths[1] if len(widths) > 1 else widths[0]
    return max(100, 3 * (2 * widths[0] + 2 * below + STAGES[0][-1].out) // 8)
