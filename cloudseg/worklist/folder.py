"""Write a worklist as a folder for QGIS: a project, a layer to draw into per scene, pictures and masks.

`cloudseg ingest` of that folder reads `labels/` only (`cloudseg.ingest.layouts.worklist_folder`).
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Final

from cloudseg.catalog import Catalog, model_rows, scene_rows
from cloudseg.errors import InputError
from cloudseg.records import WorklistItem
from cloudseg.storage import Store, whole_object
from cloudseg.worklist.build import Worklist
from cloudseg.worklist.geopackage import write_label_layer
from cloudseg.worklist.layers import cut_around, write_mask, write_rgb
from cloudseg.worklist.project import Entry, project_document
from cloudseg.worklist.style import CLASSES, label_qml

PROJECT: Final = "worklist.qgs"
_LABELS: Final = "labels"
_LAYERS: Final = "layers"

_README: Final = """# Worklist {worklist_id}

1. Open `{project}` in QGIS 3.34 or newer. *View > Show Spatial Bookmark Manager* goes from window to window.
2. Choose the layer "draw here" of a scene, *Toggle Editing*, *Add Polygon*: outline what the mask (yellow) has wrong,
   and choose `cloud` or `clear`. What you leave out stays as it is: it means "no opinion", not "clear".
3. *Save Layer Edits*, then close QGIS: until then the drawing may lie in a second file beside `labels/*.gpkg`.
4. Hand it in: `cloudseg ingest` with the path of this folder, or move it into the inbox. Only `labels/` is read.
5. `cloudseg labels list` shows what became of it. A correction waits there until someone accepts it.

| | scene | why |
|---|---|---|
{rows}
"""


def write_folder(store: Store, catalog: Catalog, worklist: Worklist, folder: Path) -> None:
    """Write the folder of a worklist; it appears complete or not at all.

    Args:
        store: of scenes and masks.
        catalog: of their rows.
        worklist: what to label.
        folder: path of the new folder; an empty one may exist.

    Raises:
        InputError: the folder is not empty, or it cannot be written.
        StoreError: a scene or a mask cannot be read.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                "the folder of a worklist must be new: it may hold polygons that are not handed in yet",
                subject=str(folder),
                found="a file" if folder.is_file() else f"{len(list(folder.iterdir()))} files",
                expected="no such folder, or an empty one",
                next_step="Choose another name, or ingest it and delete it.",
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise InputError(
            "the folder cannot be written", subject=str(folder), found=error.strerror, next_step="Choose another one."
        ) from error
    try:
        _write(store, catalog, worklist, beside)
        beside.chmod(0o755)  # mkdtemp makes folders that only their owner can enter
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(store: Store, catalog: Catalog, worklist: Worklist, folder: Path) -> None:
    (folder / _LABELS).mkdir()
    entries = [_write_entry(store, catalog, item, folder) for item in worklist.items]
    if entries:
        (folder / PROJECT).write_text(project_document(f"cloudseg worklist {worklist.worklist_id}", entries), "utf-8")
    classes = "".join(f"{name},{value}\n" for name, value in CLASSES.items())
    (folder / "classes.csv").write_text(f"class,value\n{classes}", "utf-8")
    (folder / "labels.qml").write_text(label_qml({}), "utf-8")
    items = [item.as_json() for item in worklist.items]
    facts = {"worklist_id": worklist.worklist_id, "items": items}
    (folder / "worklist.json").write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", "utf-8")
    rows = "\n".join(f"| {item.rank} | {item.scene} ({item.scene_id}) | {item.words} |" for item in worklist.items)
    readme = _README.format(worklist_id=worklist.worklist_id, project=PROJECT, rows=rows)
    (folder / "README.md").write_text(readme, "utf-8")


def _write_entry(store: Store, catalog: Catalog, item: WorklistItem, folder: Path) -> Entry:
    with catalog.read() as db:
        scene = scene_rows.get_scene(db, item.scene_id)
        mask = model_rows.get_mask(db, item.mask_id)
    entry = Entry(
        item=item,
        scene=scene,
        polygons=f"./{_LABELS}/{scene.scene_id}.gpkg",
        mask=f"./{_LAYERS}/{scene.scene_id}/mask.tif",
        rgb=f"./{_LAYERS}/{scene.scene_id}/rgb.tif",
    )
    (folder / _LAYERS / scene.scene_id).mkdir(parents=True)
    cut = cut_around(scene, item.windows)
    with (
        whole_object(store, scene, f"scene {scene.scene_id}") as scene_file,
        whole_object(store, mask, f"mask {mask.mask_id}") as mask_file,
    ):
        write_rgb(folder / entry.rgb, str(scene_file), scene, cut)
        write_mask(folder / entry.mask, str(mask_file), scene, cut)
    write_label_layer(
        folder / entry.polygons,
        crs=scene.crs or "",
        scene_id=scene.scene_id,
        mask_id=mask.mask_id,
        written_at=mask.created_at,
    )
    return entry
