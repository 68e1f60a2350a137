"""QGIS styles of rasters. QGIS applies `name.qml` beside `name.tif` when it opens the raster.

The elements and attributes are those that QGIS 3.34 writes (`QgsPalettedRasterRenderer::writeXml`,
`QgsSingleBandPseudoColorRenderer::writeXml`, `QgsMultiBandColorRenderer::writeXml`); older and newer
releases of QGIS 3 read them, too.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA

QGIS_VERSION: Final = "3.34.0-Prizren"
DOCTYPE: Final = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"

_VIRIDIS: Final = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""RGB at 0, 1/4 .. 1 (van der Walt and Smith 2015, matplotlib): its steps differ for color-blind people too."""
_OPAQUE: Final = 255
_VISIBLE: Final = 0.05
"""Probability below which nothing is drawn, so that the image below a clear area stays visible."""


@dataclass(frozen=True)
class StyledClass:
    """How a class is drawn and named in the legend."""

    value: int
    label: str
    color: tuple[int, int, int]
    """RGB, 0 to 255."""
    alpha: int
    """Opacity, 0 to 255."""


COLORS: Final = {MASK_CLEAR: (46, 92, 74), MASK_CLOUD: (245, 245, 245), MASK_NO_DATA: (0, 0, 0)}
"""RGB of the classes of a mask, for the color table of the file and the `color_hint` of its item."""
MASK_STYLE: Final = (
    StyledClass(MASK_CLEAR, "Clear", COLORS[MASK_CLEAR], 0),
    StyledClass(MASK_CLOUD, "Cloud", COLORS[MASK_CLOUD], 200),
)
"""The legend of a mask in QGIS: the ground is seen where it is clear, and faintly through cloud.

No data is transparent by the file's nodata value.
"""


def mask_colormap() -> dict[int, tuple[int, int, int, int]]:
    """Return RGBA of the classes; GeoTIFF stores no alpha, but viewers draw nodata transparent."""
    return {value: (*color, 0 if value == MASK_NO_DATA else 255) for value, color in COLORS.items()}


def paletted_pipe(classes: Sequence[StyledClass]) -> ET.Element:
    """Return the `pipe` of a raster of classes; other values are not drawn."""
    pipe = ET.Element("pipe")
    renderer = ET.SubElement(pipe, "rasterrenderer", type="paletted", band="1", alphaBand="-1", opacity="1")
    palette = ET.SubElement(renderer, "colorPalette")
    for entry in classes:
        facts = {"value": str(entry.value), "label": entry.label, "color": _hex(entry.color), "alpha": str(entry.alpha)}
        ET.SubElement(palette, "paletteEntry", facts)
    return pipe


def classes_qml(classes: Sequence[StyledClass]) -> str:
    """Return the style of a raster of classes as a QML document."""
    return _raster_qml(paletted_pipe(classes))


def probability_qml() -> str:
    """Return the style of a probability as a QML document."""
    return _raster_qml(probability_pipe())


def probability_pipe() -> ET.Element:
    """Return the `pipe` of a probability: nothing at 0, then violet to yellow.

    The values are those after GDAL's scale, 0 to 1, as QGIS reads the band.
    """
    pipe = ET.Element("pipe")
    facts = {"type": "singlebandpseudocolor", "band": "1", "alphaBand": "-1", "opacity": "1"}
    limits = {"classificationMin": "0", "classificationMax": "1"}
    renderer = ET.SubElement(pipe, "rasterrenderer", facts | limits)
    names = {"colorRampType": "INTERPOLATED", "classificationMode": "1", "clip": "0"}
    shader = ET.SubElement(
        ET.SubElement(renderer, "rastershader"), "colorrampshader", names | {"minimumValue": "0", "maximumValue": "1"}
    )
    _ramp_item(shader, 0.0, "0 % cloud", _VIRIDIS[0], 0)
    _ramp_item(shader, _VISIBLE, f"{_VISIBLE:.0%}".replace("%", " %"), _VIRIDIS[0], _OPAQUE)
    for step, color in enumerate(_VIRIDIS[1:], start=1):
        _ramp_item(shader, step / 4, f"{25 * step} %", color, _OPAQUE)
    return pipe


def colors_pipe(bands: Sequence[int], brightest: int) -> ET.Element:
    """Return the `pipe` of an image of three bands, stretched linearly.

    Args:
        bands: numbers of red, green and blue, from 1.
        brightest: value that is drawn at full brightness.
    """
    pipe = ET.Element("pipe")
    names = ("red", "green", "blue")
    numbers = {f"{name}Band": str(band) for name, band in zip(names, bands, strict=True)}
    facts = {"type": "multibandcolor", "alphaBand": "-1", "opacity": "1"}
    renderer = ET.SubElement(pipe, "rasterrenderer", facts | numbers)
    for name in names:
        stretch = ET.SubElement(renderer, f"{name}ContrastEnhancement")
        ET.SubElement(stretch, "minValue").text = "0"
        ET.SubElement(stretch, "maxValue").text = str(brightest)
        ET.SubElement(stretch, "algorithm").text = "StretchToMinimumMaximum"
    return pipe


def document(root: ET.Element) -> str:
    """Return a QGIS document as text."""
    ET.indent(root)
    return DOCTYPE + ET.tostring(root, encoding="unicode") + "\n"


def _ramp_item(shader: ET.Element, value: float, label: str, color: tuple[int, int, int], alpha: int) -> None:
    facts = {"value": repr(value), "label": label, "color": _hex(color), "alpha": str(alpha)}
    ET.SubElement(shader, "item", facts)


def _raster_qml(pipe: ET.Element) -> str:
    root = ET.Element("qgis", version=QGIS_VERSION, styleCategories="Symbology")
    root.append(pipe)
    ET.SubElement(root, "blendMode").text = "0"
    return document(root)


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
