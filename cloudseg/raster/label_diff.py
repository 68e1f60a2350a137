"""A picture of what a label changes: RGB, the label before and the label after, side by side, with exact counts."""

import io
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image, ImageDraw, ImageFont
from rasterio.enums import Resampling
from rasterio.windows import Window as RasterioWindow

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA, NO_DATA
from cloudseg.grid import Window, iter_strips
from cloudseg.raster.read import decoded, open_raster, read_overlay
from cloudseg.raster.thumbnail import OUTLINE, color_indexes, edge_of, stretch

SIDE: Final = 480
"""Longest side of a panel in pixels."""
_STRIP_ROWS: Final = 512
"""Rows that are in memory at a time."""
_MARGIN: Final = 0.25
"""Margin around what changed, as a share of its size."""
_LEAST: Final = 48
"""Least side of the window in scene pixels, so that a single pixel is shown with its surroundings."""
_GAP, _LINE, _FONT_SIZE = 8, 22, 13
# Colors of Okabe and Ito (2008), which color-blind readers can distinguish; the same as in reports.
_COLORS: Final = {MASK_CLEAR: (48, 52, 58), MASK_CLOUD: (245, 247, 250), MASK_NO_DATA: (140, 128, 150)}
_NAMES: Final = {MASK_CLEAR: "clear", MASK_CLOUD: "cloud", MASK_NO_DATA: "none"}
_TEXT, _PAPER = (30, 34, 40), (255, 255, 255)

UInt8 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LabelDiff:
    """What a label changes."""

    changed: dict[str, int]
    """Pixels by change, those that occur only: 'clear to cloud', 'none to clear' ..."""
    window: Window
    """The part of the scene that is drawn."""
    png: bytes


def draw_label_diff(
    scene: str, before: Sequence[str], after: Sequence[str], captions: tuple[str, str, str]
) -> LabelDiff:
    """Draw a scene and two overlays of its labels where they differ; the whole scene where they do not.

    Memory: strips of the rasters, and three small panels.

    Args:
        scene: the canonical raster.
        before: canonical labels, oldest first; none: nothing is labeled.
        after: the same.
        captions: of the three panels.
    """
    with ExitStack() as stack:
        pixels = stack.enter_context(open_raster(scene))
        overlays = [
            _Overlay([stack.enter_context(open_raster(path)) for path in paths], pixels.height, pixels.width)
            for paths in (before, after)
        ]
        changed, box = _count(overlays[0], overlays[1])
        window = _around(box, pixels.height, pixels.width)
        step = max(1, -(-max(window.height, window.width) // SIDE))
        shape = (-(-window.height // step), -(-window.width // step))
        color = _read_color(pixels, window, shape)
        classes = _sample(overlays[0], overlays[1], window, step)
    return LabelDiff(changed, window, _png(color, *classes, captions))


class _Overlay:
    """Labels of a scene, laid over each other; 255 everywhere if there are none."""

    def __init__(self, datasets: list[rasterio.DatasetReader], height: int, width: int) -> None:
        self._datasets = datasets
        self.height, self.width = height, width

    def read(self, window: Window) -> UInt8:
        if not self._datasets:
            return np.full((window.height, window.width), MASK_NO_DATA, np.uint8)
        return read_overlay(self._datasets, window)


def _count(before: _Overlay, after: _Overlay) -> tuple[dict[str, int], Window | None]:
    """Return the pixels by change, and the window of all changes, None without any."""
    counts = {(old, new): 0 for old in _NAMES for new in _NAMES if old != new}
    rows: list[int] = []
    cols: list[int] = []
    for strip in iter_strips(Window(0, 0, before.height, before.width), _STRIP_ROWS):
        old, new = before.read(strip), after.read(strip)
        for (a, b), count in counts.items():
            counts[a, b] = count + int(((old == a) & (new == b)).sum())
        differ = old != new
        if differ.any():
            in_rows, in_cols = np.flatnonzero(differ.any(axis=1)), np.flatnonzero(differ.any(axis=0))
            rows += [strip.row_off + int(in_rows[0]), strip.row_off + int(in_rows[-1])]
            cols += [int(in_cols[0]), int(in_cols[-1])]
    named = {f"{_NAMES[a]} to {_NAMES[b]}": count for (a, b), count in counts.items() if count}
    if not rows:
        return named, None
    return named, Window(min(rows), min(cols), max(rows) - min(rows) + 1, max(cols) - min(cols) + 1)


def _around(box: Window | None, height: int, width: int) -> Window:
    """Return the window to draw: a box with its margin, inside the scene."""
    if box is None:
        return Window(0, 0, height, width)

    def side(start: int, length: int, most: int) -> tuple[int, int]:
        wanted = min(most, max(_LEAST, round(length * (1 + 2 * _MARGIN))))
        first = min(max(0, start - (wanted - length) // 2), most - wanted)
        return first, wanted

    (row, rows), (col, cols) = side(box.row_off, box.height, height), side(box.col_off, box.width, width)
    return Window(row, col, rows, cols)


def _sample(before: _Overlay, after: _Overlay, window: Window, step: int) -> tuple[UInt8, UInt8]:
    """Return both overlays with one pixel for each block of `step` × `step`: one that changed if there is any.

    A change of a few pixels in a large window stays visible.
    """
    parts: list[tuple[UInt8, UInt8]] = []
    for row in range(0, window.height, rows := max(step, _STRIP_ROWS // step * step)):
        strip = Window(window.row_off + row, window.col_off, min(rows, window.height - row), window.width)
        old, new = (_blocks(overlay.read(strip), step) for overlay in (before, after))
        chosen = np.argmax(old != new, axis=2)[..., np.newaxis]
        parts.append((np.take_along_axis(old, chosen, 2)[..., 0], np.take_along_axis(new, chosen, 2)[..., 0]))
    return np.concatenate([old for old, _ in parts]), np.concatenate([new for _, new in parts])


def _blocks(classes: UInt8, step: int) -> UInt8:
    """Return `(block row, block col, pixel of the block)`; blocks at the edge repeat its pixels."""
    height, width = classes.shape
    padded = np.pad(classes, ((0, -height % step), (0, -width % step)), mode="edge")
    rows, cols = padded.shape[0] // step, padded.shape[1] // step
    return padded.reshape(rows, step, cols, step).transpose(0, 2, 1, 3).reshape(rows, cols, step * step)


def _read_color(pixels: rasterio.DatasetReader, window: Window, shape: tuple[int, int]) -> UInt8:
    """Return `(row, col, 3)` of a window, read from the overviews."""
    part = RasterioWindow(window.col_off, window.row_off, window.width, window.height)
    with decoded(pixels):
        dn = pixels.read(color_indexes(pixels), window=part, out_shape=(3, *shape), resampling=Resampling.average)
    return stretch(dn, np.all(dn != NO_DATA, axis=0))


def _png(color: UInt8, before: UInt8, after: UInt8, captions: tuple[str, str, str]) -> bytes:
    """Return the three panels with captions and a legend as a PNG; what changed is outlined."""
    height, width = before.shape
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    changed = _enlarge(before, size) != _enlarge(after, size)
    outline = edge_of(changed, ~changed)
    font = ImageFont.load_default(_FONT_SIZE)
    panel = max(size[0], SIDE // 2)  # room for the caption of a narrow scene
    sheet = Image.new("RGB", (3 * panel + 4 * _GAP, size[1] + 2 * _LINE + 3 * _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    pictures = [np.asarray(Image.fromarray(color).resize(size, Image.Resampling.LANCZOS)).copy()]
    pictures += [_paint(_enlarge(classes, size)) for classes in (before, after)]
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = _GAP + number * (panel + _GAP)
        if number:
            picture[outline] = OUTLINE
        draw.text((left, _GAP), _fitted(caption, panel, font), _TEXT, font)
        sheet.paste(Image.fromarray(picture), (left, _GAP + _LINE))
    _draw_legend(draw, _GAP, size[1] + _LINE + 2 * _GAP, font)
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()


def _enlarge(classes: UInt8, size: tuple[int, int]) -> UInt8:
    return np.asarray(Image.fromarray(classes).resize(size, Image.Resampling.NEAREST))


def _paint(classes: UInt8) -> UInt8:
    picture = np.zeros((*classes.shape, 3), np.uint8)
    for value, rgb in _COLORS.items():
        picture[classes == value] = rgb
    return picture


def _fitted(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    while len(text) > 1 and font.getlength(text) > width:
        text = text.rstrip("…")[:-1] + "…"
    return text


def _draw_legend(
    draw: ImageDraw.ImageDraw, left: float, top: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    names = [(_COLORS[value], {"none": "not labeled"}.get(name, name)) for value, name in _NAMES.items()]
    for color, name in [*names, (OUTLINE, "outline of what changed")]:
        draw.rectangle((left, top + 2, left + 12, top + 14), fill=color, outline=_TEXT)
        draw.text((left + 18, top), name, _TEXT, font)
        left += 18 + font.getlength(name) + 2 * _GAP
