"""The QGIS project of a worklist: for each scene its polygons on the mask on the picture, and a bookmark per window.

The project is written as XML, because QGIS cannot be a dependency of a service. Elements and attributes are those that
QGIS 3.34 reads (`QgsProject::readProjectFile`, `QgsMapLayer::readLayerXml`, `QgsBookmark::fromXml`); every path is
relative to the project.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

from rasterio.crs import CRS
from rasterio.transform import Affine

from cloudseg.raster.style import QGIS_VERSION, document
from cloudseg.records import Scene, WorklistItem, WorklistWindow
from cloudseg.worklist.geopackage import LAYER
from cloudseg.worklist.style import label_style, mask_style, rgb_style

Extent = tuple[float, float, float, float]
"""Least x, least y, greatest x, greatest y, in the CRS of a scene."""


@dataclass(frozen=True)
class Entry:
    """A scene of the project; paths are relative to the project."""

    item: WorklistItem
    scene: Scene
    polygons: str
    mask: str
    rgb: str


@dataclass(frozen=True)
class _Layer:
    """A layer as the tree and the list of layers need it."""

    layer_id: str
    name: str
    source: str
    provider: str
    style: list[ET.Element]
    crs: str


def project_document(title: str, entries: Sequence[Entry]) -> str:
    """Return the project as text.

    Args:
        title: shown in the title bar.
        entries: at least one; the map begins at the first window of the first.
    """
    first = entries[0]
    root = ET.Element("qgis", version=QGIS_VERSION, projectname=title)
    ET.SubElement(root, "homePath", path="")
    ET.SubElement(root, "title").text = title
    ET.SubElement(root, "projectCrs").append(_spatial_ref(_crs(first)))
    tree, layers = ET.SubElement(root, "layer-tree-group"), ET.Element("projectlayers")
    for entry in entries:
        _add_entry(tree, layers, entry)
    root.append(_canvas(_extent(first.scene, first.item.windows[0]), _crs(first)))
    root.append(layers)
    root.append(_bookmarks(entries))
    paths = ET.SubElement(ET.SubElement(root, "properties"), "Paths")
    ET.SubElement(paths, "Absolute", type="bool").text = "false"
    return document(root)


def _add_entry(tree: ET.Element, layers: ET.Element, entry: Entry) -> None:
    """Add the three layers of a scene, the topmost first; only the first scene is shown and unfolded."""
    first = entry.item.rank == 1
    group = ET.SubElement(tree, "layer-tree-group", {"name": _title(entry)} | _state(shown=first, unfolded=first))
    for layer in _layers(entry):
        names = {"id": layer.layer_id, "name": layer.name, "source": layer.source, "providerKey": layer.provider}
        ET.SubElement(group, "layer-tree-layer", names | _state(shown=True, unfolded=layer.provider == "ogr"))
        layers.append(_map_layer(layer))


def _layers(entry: Entry) -> list[_Layer]:
    scene_id, crs = entry.scene.scene_id, _crs(entry)
    hidden = {"scene_id": scene_id, "mask_id": entry.item.mask_id}
    polygons = f"{entry.polygons}|layername={LAYER}"
    return [
        _Layer(f"labels_{scene_id}", f"draw here: labels of {scene_id}", polygons, "ogr", label_style(hidden), crs),
        _Layer(f"mask_{scene_id}", "mask", entry.mask, "gdal", [mask_style()], crs),
        _Layer(f"rgb_{scene_id}", "picture", entry.rgb, "gdal", [rgb_style()], crs),
    ]


def _map_layer(layer: _Layer) -> ET.Element:
    is_vector = layer.provider == "ogr"
    kind = {"type": "vector", "geometry": "Polygon", "wkbType": "MultiPolygon"} if is_vector else {"type": "raster"}
    element = ET.Element("maplayer", kind)
    for name, text in (("id", layer.layer_id), ("datasource", layer.source), ("layername", layer.name)):
        ET.SubElement(element, name).text = text
    ET.SubElement(element, "srs").append(_spatial_ref(layer.crs))
    ET.SubElement(element, "provider", {"encoding": "UTF-8"} if is_vector else {}).text = layer.provider
    element.extend(layer.style)
    return element


def _bookmarks(entries: Sequence[Entry]) -> ET.Element:
    bookmarks = ET.Element("Bookmarks")
    for entry in entries:
        for number, window in enumerate(entry.item.windows, start=1):
            left, bottom, right, top = _extent(entry.scene, window)
            corners = ((left, bottom), (right, bottom), (right, top), (left, top), (left, bottom))
            ring = ", ".join(f"{x!r} {y!r}" for x, y in corners)
            bookmark = ET.SubElement(
                bookmarks,
                "Bookmark",
                id=f"{entry.scene.scene_id}_{number}",
                name=f"{entry.item.rank}.{number} {entry.item.reason.replace('_', ' ')}",
                group=_title(entry),
                extent=f"POLYGON(({ring}))",
            )
            bookmark.append(_spatial_ref(_crs(entry)))
    return bookmarks


def _canvas(extent: Extent, crs: str) -> ET.Element:
    canvas = ET.Element("mapcanvas", name="theMapCanvas", annotationsVisible="1")
    ET.SubElement(canvas, "units").text = "degrees" if CRS.from_user_input(crs).is_geographic else "meters"
    element = ET.SubElement(canvas, "extent")
    for name, value in zip(("xmin", "ymin", "xmax", "ymax"), extent, strict=True):
        ET.SubElement(element, name).text = repr(value)
    ET.SubElement(canvas, "rotation").text = "0"
    ET.SubElement(canvas, "destinationsrs").append(_spatial_ref(crs))
    return canvas


def _spatial_ref(crs: str) -> ET.Element:
    """Return a CRS: QGIS takes the authority's code if there is one, else the WKT."""
    known = CRS.from_user_input(crs)
    element = ET.Element("spatialrefsys", nativeFormat="Wkt")
    ET.SubElement(element, "wkt").text = known.to_wkt(version="WKT2_2019")
    if authority := known.to_authority():
        ET.SubElement(element, "authid").text = ":".join(authority)
    return element


def _extent(scene: Scene, window: WorklistWindow) -> Extent:
    transform = Affine(*scene.transform)
    left, top = transform @ (window.col_off, window.row_off)
    right, bottom = transform @ (window.col_off + window.width, window.row_off + window.height)
    return min(left, right), min(top, bottom), max(left, right), max(top, bottom)


def _title(entry: Entry) -> str:
    return f"{entry.item.rank} · {entry.scene.name}"


def _state(*, shown: bool, unfolded: bool) -> dict[str, str]:
    return {"checked": "Qt::Checked" if shown else "Qt::Unchecked", "expanded": "1" if unfolded else "0"}


def _crs(entry: Entry) -> str:
    """Return the CRS of a scene; a scene with a mask has one."""
    if entry.scene.crs is None:
        raise ValueError(f"{entry.scene.scene_id} has no CRS")
    return entry.scene.crs
