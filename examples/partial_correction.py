"""From a wrong mask to an accepted partial correction in the next snapshot, on synthetic tiles. About half a minute.

    python examples/partial_correction.py [FOLDER]

FOLDER keeps what it makes; by default a scratch directory that is deleted at the end. What a person does in QGIS, one
polygon around snow that is no cloud, is done by `draw`. docs/how-to/partial_correction.md tells the story.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyogrio.raw
import rasterio
from rasterio import features
from shapely import to_wkb
from shapely.geometry import MultiPolygon, shape

SCENE = "synthetic_alps_004"
"""A mountain scene; a fifth of it is snow under a clear sky."""
BRIGHT = 3500
"""Reflectance x 10 000 in red: snow, or cloud."""


def take_snow_for_cloud(tiles: Path) -> np.ndarray:
    """Spoil a label, as somebody did who took snow for cloud; return where, `(row, col)`."""
    with rasterio.open(tiles / "images" / f"{SCENE}.tif") as image:
        bright = image.read(1) > BRIGHT
    with rasterio.open(tiles / "labels" / f"{SCENE}.tif", "r+") as label:
        classes = label.read(1)
        snow = bright & (classes == 0)
        classes[snow] = 1
        label.write(classes, 1)
    return snow


def draw(layer: Path, snow: np.ndarray, scene: dict[str, object]) -> None:
    """Draw polygons around the largest fields of snow and choose the class `clear`, as a person does in QGIS."""
    transform = rasterio.Affine(*scene["transform"])
    found = [shape(field) for field, _ in features.shapes(snow.astype("uint8"), mask=snow, transform=transform)]
    largest = sorted(found, key=lambda field: field.area, reverse=True)[:3]
    outlines = MultiPolygon([field.simplify(20) for field in largest])  # 20 m: nobody follows every pixel
    values: Sequence[tuple[str, str]] = (("class", "clear"), ("note", "snow, seen as ground on other dates"))
    pyogrio.raw.write(
        layer,
        np.array([to_wkb(outlines)], object),
        [np.array([value], object) for _, value in values],
        np.array([name for name, _ in values], object),
        layer="labels",
        driver="GPKG",
        geometry_type="MultiPolygon",
        crs=scene["crs"],
        append=True,
    )


def partial_correction(folder: Path) -> None:
    """Run every step in `folder` and print what it returns."""
    os.environ["CLOUDSEG_HOME"] = str(folder / "home")

    from cloudseg import stages
    from cloudseg.raster.synthetic import make_tiles

    make_tiles(folder / "tiles", count=12, unlabeled=0, size=192)
    snow = take_snow_for_cloud(folder / "tiles")
    stages.ingest(str(folder / "tiles"))
    before = stages.snapshot("smoke")
    trained = stages.train(before.snapshot_id, recipe="smoke")
    stages.promote(trained.weights_id, force=True, reason="an example needs a champion")
    stages.predict(new=True)

    scene = next(found for found in stages.scenes(limit=None) if found["name"] == SCENE)
    mask = next(found for found in stages.masks(limit=None) if found["scene"] == SCENE)
    print(f"see       {SCENE}: {mask['cloud_fraction']:.0%} cloud in {mask['uri']}")

    # cloudseg worklist --scene sc-… --out FOLDER/correct
    listed = stages.worklist(scene_ids=[scene["scene_id"]], out=str(folder / "correct"))
    print(f"open      {listed.folder}/worklist.qgs")

    draw(folder / "correct" / "labels" / f"{scene['scene_id']}.gpkg", snow, scene)
    print("draw      polygons around snow, class clear")

    # cloudseg ingest FOLDER/correct
    ingested = stages.ingest(str(folder / "correct"))
    (label_id,) = ingested.proposed
    waiting = stages.label(label_id)
    print(f"hand in   {label_id} is {waiting['state']}: {waiting['reason']}")

    # cloudseg labels diff lb-… --out FOLDER/diff.png
    diff = stages.diff_label(label_id, str(folder / "diff.png"))
    print(f"look      {diff['changed']} in {diff['file']}")

    unchanged = stages.snapshot("smoke")
    print(f"wait      the snapshot is still {unchanged.snapshot_id}, created: {unchanged.created}")

    # cloudseg labels accept lb-… --actor ada --reason "snow"
    stages.accept_labels([label_id], actor="ada", reason="snow, not cloud")
    after = stages.snapshot("smoke")
    held = label_id in {entry["label_id"] for entry in stages.label(label_id)["in_use"]}
    in_snapshot = after.snapshot_id in stages.label(label_id)["snapshots"]
    print(f"accept    in use: {held}; snapshot {after.snapshot_id}, created: {after.created}, holds it: {in_snapshot}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        partial_correction(Path(sys.argv[1] if len(sys.argv) > 1 else scratch))
