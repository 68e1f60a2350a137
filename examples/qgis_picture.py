"""Draw a QGIS project as QGIS shows it, without a window. A few seconds.

    python3 examples/qgis_picture.py PROJECT PICTURE

Runs in a Python with PyQGIS (Debian's package `python3-qgis`) and needs nothing else. PROJECT is a `.qgs` file, such as
the map of `cloudseg serve` hands out at "Open in QGIS". Prints what QGIS knows of each layer as JSON.
"""

import json
import os
import sys
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from qgis.core import (
    Qgis,
    QgsApplication,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
)
from qgis.PyQt.QtCore import QSize


def draw(project: QgsProject, picture: str, side: int = 512) -> None:
    """Draw the visible layers over their whole extent."""
    layers = [node.layer() for node in project.layerTreeRoot().findLayers() if node.isVisible()]
    extent = QgsRectangle()
    for layer in layers:
        extent.combineExtentWith(layer.extent())
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setDestinationCrs(project.crs())
    settings.setExtent(extent)
    scale = side / max(extent.width(), extent.height())
    settings.setOutputSize(QSize(round(extent.width() * scale), round(extent.height() * scale)))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    errors = [error.message for error in job.errors()]
    if errors or not job.renderedImage().save(picture):
        sys.exit(f"{picture}: {'; '.join(errors) or 'cannot be written'}")


def facts_of(layer: QgsRasterLayer) -> dict[str, Any]:
    """Return what QGIS knows of a layer."""
    return {
        "name": layer.name(),
        "valid": layer.isValid(),
        "crs": layer.crs().authid(),
        "size": [layer.height(), layer.width()],
        "renderer": layer.renderer().type() if layer.isValid() else None,
        "legend": [label for label, _ in layer.renderer().legendSymbologyItems()] if layer.isValid() else [],
        "error": layer.error().summary(),
    }


def main(path: str, picture: str) -> None:
    """Open a project, draw it, print its layers."""
    application = QgsApplication([], False)
    application.initQgis()
    project = QgsProject.instance()
    if not project.read(path):
        sys.exit(f"{path}: {project.error()}")
    layers = [facts_of(node.layer()) for node in project.layerTreeRoot().findLayers()]
    if broken := [layer for layer in layers if not layer["valid"]]:
        sys.exit(f"{path}: QGIS cannot open {json.dumps(broken)}")
    draw(project, picture)
    print(json.dumps({"qgis": Qgis.version(), "crs": project.crs().authid(), "layers": layers}))
    project.clear()
    application.exitQgis()


if __name__ == "__main__":
    main(*sys.argv[1:3])
