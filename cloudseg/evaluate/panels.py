"""Draw a scene as panels side by side: RGB, label, masks. Free of torch: pages draw stored masks with it."""

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA, REFLECTANCE_SCALE
from cloudseg.evaluate.mosaic import owned_windows
from cloudseg.grid import Window

SIDE: Final = 288
"""Longest side of a panel in pixels."""
_GAP: Final = 6
_FRAME: Final = (150, 158, 168, 255)
"""A thin line around a panel, so that white cloud is distinguishable from a white page."""
_WHITE_AT: Final = 0.3558 * REFLECTANCE_SCALE
"""Reflectance shown as white: where the 8-bit true color of Sentinel-2 ends."""
# Colors of Okabe and Ito (2008), which color-blind readers can distinguish.
COLORS: Final = {
    "clear": (48, 52, 58),
    "cloud": (245, 247, 250),
    "none": (140, 128, 150),
    "missed": (0, 114, 178),
    "false": (230, 120, 0),
}

UInt8 = npt.NDArray[np.uint8]


class Canvas:
    """Label and mask of a decimated scene: every `step`-th row and column."""

    def __init__(self, windows: Sequence[Window], *, side: int, shape: tuple[int, int] | None = None) -> None:
        """Begin without data.

        Args:
            windows: of the chips of the scene, in the snapshot's pixels.
            side: longest side of the canvas in pixels, at most.
            shape: height and width of the scene in the snapshot's pixels; None: as far as the chips reach.
        """
        height, width = shape or (
            max(w.row_off + w.height for w in windows),
            max(w.col_off + w.width for w in windows),
        )
        self.step = max(1, -(-max(height, width) // side))
        self.shape = (-(-height // self.step), -(-width // self.step))
        self.owned = owned_windows(windows)
        self.label, self.mask = np.full(self.shape, MASK_NO_DATA, np.uint8), np.full(self.shape, MASK_NO_DATA, np.uint8)

    def put(self, window: Window, owned: Window, label: UInt8, mask: UInt8) -> None:
        """Write the owned part of a chip's label and mask."""
        self.put_layer(window, owned, self.label, label)
        self.put_layer(window, owned, self.mask, mask)

    def put_layer(self, window: Window, owned: Window, layer: UInt8, part: UInt8) -> None:
        """Write the owned part of a chip `(row, col)` or `(row, col, 3)` into an array of the canvas' shape."""
        rows = _multiples(owned.row_off, owned.height, self.step)
        cols = _multiples(owned.col_off, owned.width, self.step)
        source = np.ix_(rows - window.row_off, cols - window.col_off)
        layer[np.ix_(rows // self.step, cols // self.step)] = part[source]


def _multiples(start: int, length: int, step: int) -> npt.NDArray[np.intp]:
    """Return the multiples of `step` in `start` .. `start + length - 1`."""
    return np.arange(-(-start // step) * step, start + length, step)


def draw_colors(dn: npt.NDArray[np.uint16]) -> UInt8:
    """Return `(row, col, 3)`; fewer than three bands are shown as gray."""
    shown: UInt8 = np.clip(dn * (255 / _WHITE_AT), 0, 255).astype(np.uint8)
    of_three = shown if len(shown) == 3 else shown[:1].repeat(3, axis=0)
    picture: UInt8 = np.moveaxis(of_three, 0, 2)
    return picture


def draw_classes(classes: UInt8) -> UInt8:
    """Return `(row, col, 3)` of classes `(row, col)`: 0 clear, 1 cloud, 255 none."""
    picture = np.full((*classes.shape, 3), COLORS["none"], np.uint8)
    picture[classes == MASK_CLEAR], picture[classes == MASK_CLOUD] = COLORS["clear"], COLORS["cloud"]
    return picture


def draw_difference(label: UInt8, mask: UInt8, color: UInt8) -> UInt8:
    """Return the scene in dark gray, with missed and false cloud in color."""
    picture: UInt8 = (color.mean(axis=2, keepdims=True) * 0.55 + 20).astype(np.uint8).repeat(3, axis=2)
    picture[label == MASK_NO_DATA] = COLORS["none"]
    picture[(label == MASK_CLOUD) & (mask == MASK_CLEAR)] = COLORS["missed"]
    picture[(label == MASK_CLEAR) & (mask == MASK_CLOUD)] = COLORS["false"]
    return picture


def sheet_png(panels: Sequence[UInt8]) -> bytes:
    """Return panels side by side as a PNG; RGB is resampled with a Lanczos filter, classes by nearest neighbor.

    Args:
        panels: `(row, col, 3)` of one shape, RGB first.
    """
    height, width = panels[0].shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    sheet = Image.new("RGBA", (len(panels) * (size[0] + _GAP) - _GAP, size[1]), (0, 0, 0, 0))
    for n, panel in enumerate(panels):
        how = Image.Resampling.LANCZOS if n == 0 else Image.Resampling.NEAREST
        left = n * (size[0] + _GAP)
        sheet.paste(Image.fromarray(panel).resize(size, how), (left, 0))
        ImageDraw.Draw(sheet).rectangle((left, 0, left + size[0] - 1, size[1] - 1), outline=_FRAME)
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()
