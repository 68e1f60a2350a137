"""The GeoPackage that is drawn into: an empty layer of polygons with its style (OGC 12-128r19)."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import pyogrio.raw

from cloudseg.worklist.style import label_qml

LAYER: Final = "labels"
_FIELDS: Final = ("class", "note", "scene_id", "mask_id")
_STYLES: Final = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
    f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
    useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
    update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""
"""The table in which QGIS keeps styles of a GeoPackage; it finds the table by its row in gpkg_contents."""


def write_label_layer(path: Path, *, crs: str, scene_id: str, mask_id: str, written_at: datetime) -> None:
    """Write an empty layer `labels` of polygons with the attribute `class`, and the style that QGIS opens it with.

    Scene and mask are named in the metadata of the layer (`CLOUDSEG_SCENE_ID`, `CLOUDSEG_MASK_ID`, as in the tags of a
    mask) and in every polygon that is drawn in QGIS. The same arguments give the same content.

    Args:
        path: of the new file.
        crs: `EPSG:n` or WKT, of the scene.
        scene_id: the scene that is labeled.
        mask_id: the mask that is corrected.
        written_at: time of the last change that the file states.
    """
    pyogrio.raw.write(
        path,
        np.empty(0, object),
        [np.empty(0, object) for _ in _FIELDS],
        np.array(_FIELDS, object),
        layer=LAYER,
        driver="GPKG",
        geometry_type="MultiPolygon",  # QGIS stores a drawn polygon as one, and splitting or merging keeps working
        crs=crs,
        layer_metadata={"CLOUDSEG_SCENE_ID": scene_id, "CLOUDSEG_MASK_ID": mask_id},
    )
    moment = f"{written_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.000Z}"
    qml = label_qml({"scene_id": scene_id, "mask_id": mask_id})
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(_STYLES)
        db.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles', '')"
        )
        db.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
            "styleQML, styleSLD, useAsDefault, description, owner, update_time) "
            "SELECT '', '', table_name, column_name, ?, ?, '', 1, '', '', ? FROM gpkg_geometry_columns",
            ("cloudseg label", qml, moment),
        )
        db.execute("UPDATE gpkg_contents SET last_change = ?", (moment,))
        db.execute("UPDATE gpkg_metadata_reference SET timestamp = ?", (moment,))
