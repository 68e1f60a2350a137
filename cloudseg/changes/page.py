"""The page of a comparison: one self-contained HTML file."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from cloudseg import __version__
from cloudseg.bands import NO_DATA
from cloudseg.changes.measure import COLORS, NAMES
from cloudseg.raster.thumbnail import NO_DATA_GRAY, stretch
from cloudseg.records import Json

_GAP: Final = 6
_MOST_ROWS: Final = 200
"""Rows of a table on the page; the JSON beside it has all."""


@dataclass(frozen=True)
class Picture:
    """A scene of the page: its figures, and a PNG of scene and change map."""

    change: Json
    png: bytes


def change_page(figures: Json, pictures: Sequence[Picture]) -> str:
    """Return the page; all values are escaped, and nothing is loaded from elsewhere.

    Args:
        figures: what `changes.json` holds.
        pictures: of the scenes that changed most.
    """
    environment = Environment(
        loader=PackageLoader("cloudseg.changes"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [{**picture.change, "png": base64.b64encode(picture.png).decode()} for picture in pictures]
    return environment.get_template("changes.html").render(
        figures=figures,
        groups=(("Sensor", figures["by_sensor"]), ("Ground", figures["by_ground"])),
        pictures=shown,
        most=_MOST_ROWS,
        key=[(name, "#{:02x}{:02x}{:02x}".format(*COLORS[value])) for value, name in NAMES.items()],
        code_version=__version__,
    )


def picture_png(dn: npt.NDArray[np.uint16], classes: npt.NDArray[np.uint8]) -> bytes:
    """Return scene and change map side by side as a PNG.

    Args:
        dn: reflectance x 10 000, `(3, row, col)`.
        classes: change classes, `(row, col)`.
    """
    height, width = classes.shape
    valid = np.all(dn != NO_DATA, axis=0)
    color = stretch(dn, valid)
    color[~valid] = NO_DATA_GRAY
    painted = np.zeros((height, width, 3), np.uint8)
    for value, rgb in COLORS.items():
        painted[classes == value] = rgb
    sheet = Image.new("RGB", (2 * width + _GAP, height), (255, 255, 255))
    sheet.paste(Image.fromarray(color), (0, 0))
    sheet.paste(Image.fromarray(painted), (width + _GAP, 0))
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()
