"""QGIS styles: how the layers of a worklist look and how a polygon's class is chosen.

The elements and attributes are those that QGIS 3.34 writes (`QgsVectorLayer::writeStyle`,
`QgsPalettedRasterRenderer::writeXml`); older and newer releases of QGIS 3 read them, too.
"""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Final

from cloudseg.raster.style import QGIS_VERSION, StyledClass, document, paletted_pipe

CLASSES: Final = {"cloud": 1, "clear": 0}
"""Values of the attribute `class`, and what they become in a label."""

COLORS: Final = {"cloud": (204, 121, 167), "clear": (0, 114, 178), "": (230, 159, 0)}
"""RGB of the polygons; color-blind people can distinguish them (Okabe and Ito 2008, "Color universal design")."""
MASK_COLOR: Final = (240, 228, 66)
"""Yellow of the same palette, for the clouds of the mask."""
MASK_ALPHA: Final = 90
"""Opacity of those clouds, 0 to 255."""
FILL_ALPHA: Final = 70
"""Opacity of the inside of polygons, 0 to 255; their outline is opaque."""


def label_style(hidden: Mapping[str, str]) -> list[ET.Element]:
    """Return the style of the layer of polygons.

    Args:
        hidden: attributes that no user fills in, with the value that every new polygon gets.
    """
    return [_renderer(), *_form(hidden)]


def label_qml(hidden: Mapping[str, str]) -> str:
    """Return the same style as a QML document, for the table `layer_styles` of a GeoPackage."""
    root = ET.Element("qgis", version=QGIS_VERSION, styleCategories="Symbology|Fields|Forms")
    root.extend(label_style(hidden))
    return document(root)


def mask_style() -> ET.Element:
    """Return the `pipe` of the mask: clouds in transparent yellow, clear and no data invisible."""
    return paletted_pipe([StyledClass(0, "clear", (0, 0, 0), 0), StyledClass(1, "cloud", MASK_COLOR, MASK_ALPHA)])


def rgb_style() -> ET.Element:
    """Return the `pipe` of the picture: its bands as they are, because it is stretched already."""
    pipe = ET.Element("pipe")
    bands = {"redBand": "1", "greenBand": "2", "blueBand": "3", "alphaBand": "-1"}
    ET.SubElement(pipe, "rasterrenderer", {"type": "multibandcolor", "opacity": "1"} | bands)
    return pipe


def _renderer() -> ET.Element:
    renderer = ET.Element("renderer-v2", type="categorizedSymbol", attr="class", enableorderby="0", forceraster="0")
    categories = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    for number, (value, color) in enumerate(COLORS.items()):
        label = value or "class missing"
        ET.SubElement(
            categories, "category", value=value, label=label, symbol=str(number), render="true", type="string"
        )
        symbols.append(_fill(str(number), color))
    return renderer


def _fill(name: str, color: tuple[int, int, int]) -> ET.Element:
    """Return a transparent fill with an opaque outline, so that the picture below stays visible."""
    rgb = ",".join(map(str, color))
    symbol = ET.Element("symbol", type="fill", name=name, alpha="1", clip_to_extent="1", force_rhr="0")
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    options = ET.SubElement(layer, "Option", type="Map")
    values = {
        "color": f"{rgb},{FILL_ALPHA}",
        "outline_color": f"{rgb},255",
        "outline_style": "solid",
        "outline_width": "0.6",
        "outline_width_unit": "MM",
        "style": "solid",
    }
    for key, value in values.items():
        ET.SubElement(options, "Option", name=key, type="QString", value=value)
    return symbol


def _form(hidden: Mapping[str, str]) -> list[ET.Element]:
    """Return the form of a polygon: a list of classes that must be chosen, a note, and hidden attributes."""
    configuration = ET.Element("fieldConfiguration")
    _field(configuration, "class", "ValueMap").append(_value_map())
    ET.SubElement(_field(configuration, "note", "TextEdit"), "Option")
    defaults = ET.Element("defaults")
    for name, value in hidden.items():
        ET.SubElement(_field(configuration, name, "Hidden"), "Option")
        ET.SubElement(defaults, "default", field=name, expression=f"'{value}'", applyOnUpdate="0")
    constraints = ET.Element("constraints")
    # Constraint 1 is "not null", strength 1 is "hard": a polygon without class cannot be saved.
    strengths = {"notnull_strength": "1", "unique_strength": "0", "exp_strength": "0"}
    ET.SubElement(constraints, "constraint", {"field": "class", "constraints": "1"} | strengths)
    suppress = ET.Element("featformsuppress")
    suppress.text = "2"  # the form opens after every polygon, whatever the user's default is
    return [configuration, defaults, constraints, suppress]


def _field(configuration: ET.Element, name: str, widget: str) -> ET.Element:
    field = ET.SubElement(configuration, "field", name=name, configurationFlags="NoFlag")
    return ET.SubElement(ET.SubElement(field, "editWidget", type=widget), "config")


def _value_map() -> ET.Element:
    options = ET.Element("Option", type="Map")
    values = ET.SubElement(options, "Option", name="map", type="List")
    for name in CLASSES:
        ET.SubElement(ET.SubElement(values, "Option", type="Map"), "Option", name=name, type="QString", value=name)
    return options
