"""QGIS project files of rasters: layers with addresses and styles, which QGIS opens by a double click.

The elements are those that QGIS 3.34 writes and needs to open a project (`QgsProject::writeProjectFile`,
`QgsMapLayer::writeLayerXml`); it fills in the rest.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

from rasterio.crs import CRS

from cloudseg.raster.style import QGIS_VERSION, document


@dataclass(frozen=True)
class ProjectLayer:
    """A raster and how it is drawn."""

    layer_id: str
    """At least 10 letters: QGIS 3.40 replaces shorter ones, so that the tree of layers refers to nothing."""
    name: str
    source: str
    """What GDAL opens: a path, or `/vsicurl/` and an address."""
    pipe: ET.Element
    visible: bool = True


def project_qgs(title: str, layers: Sequence[ProjectLayer], crs: str, bounds: tuple[float, float, float, float]) -> str:
    """Return a project.

    Args:
        title: name of the project.
        layers: from the top to the bottom, all in the same CRS.
        crs: CRS of the layers and of the map, as an authority code or WKT.
        bounds: west, south, east, north in the CRS: what the map shows at first.
    """
    root = ET.Element("qgis", version=QGIS_VERSION, projectname=title)
    ET.SubElement(root, "title").text = title
    ET.SubElement(root, "projectCrs").append(_reference_system(crs))
    tree = ET.SubElement(root, "layer-tree-group")
    order = ET.SubElement(root, "layerorder")
    root.append(_canvas(crs, bounds))
    found = ET.SubElement(root, "projectlayers")
    for layer in layers:
        state = "Qt::Checked" if layer.visible else "Qt::Unchecked"
        facts = {"id": layer.layer_id, "name": layer.name, "source": layer.source, "providerKey": "gdal"}
        ET.SubElement(tree, "layer-tree-layer", facts | {"checked": state, "expanded": str(int(layer.visible))})
        ET.SubElement(order, "layer", id=layer.layer_id)
        found.append(_map_layer(layer, crs))
    # Without this property QGIS does not look at the CRS of the project.
    system = ET.SubElement(ET.SubElement(root, "properties"), "SpatialRefSys")
    ET.SubElement(system, "ProjectionsEnabled", type="int").text = "1"
    return document(root)


def _map_layer(layer: ProjectLayer, crs: str) -> ET.Element:
    element = ET.Element("maplayer", type="raster")
    ET.SubElement(element, "id").text = layer.layer_id
    ET.SubElement(element, "datasource").text = layer.source
    ET.SubElement(element, "layername").text = layer.name
    ET.SubElement(element, "provider").text = "gdal"
    ET.SubElement(element, "srs").append(_reference_system(crs))
    element.append(layer.pipe)
    ET.SubElement(element, "blendMode").text = "0"
    return element


def _canvas(crs: str, bounds: tuple[float, float, float, float]) -> ET.Element:
    canvas = ET.Element("mapcanvas", name="theMapCanvas")
    ET.SubElement(canvas, "units").text = "meters" if CRS.from_user_input(crs).is_projected else "degrees"
    extent = ET.SubElement(canvas, "extent")
    for name, value in zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True):
        ET.SubElement(extent, name).text = repr(float(value))
    ET.SubElement(canvas, "destinationsrs").append(_reference_system(crs))
    return canvas


def _reference_system(crs: str) -> ET.Element:
    """Return a CRS; QGIS looks at the authority's code first, and at the WKT where there is none."""
    known = CRS.from_user_input(crs)
    authority = known.to_authority()
    element = ET.Element("spatialrefsys")
    ET.SubElement(element, "wkt").text = known.to_wkt()
    ET.SubElement(element, "authid").text = ":".join(authority) if authority else ""
    return element
