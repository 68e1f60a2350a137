"""What arrives at a demo after its first training: a correction of a label, and two files that are no scenes."""

from pathlib import Path
from typing import Final

import rasterio

BROKEN: Final = "synthetic_cut_off.tif"
NO_IMAGE: Final = "synthetic_no_image.tif"
_KEPT_BYTES: Final = 4000
"""Of the image that is cut off: its header is whole, its pixels are not."""


def write_second_day(tiles: Path, folder: Path) -> str:
    """Write a folder that ingest can read, and return the name of the scene whose label it corrects.

    Args:
        tiles: folder of the demo's tiles (`cloudseg.raster.synthetic.make_tiles`).
        folder: folder to write into; written again, the bytes are the same.
    """
    image = min((tiles / "images").iterdir())
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "images" / BROKEN).write_bytes(image.read_bytes()[:_KEPT_BYTES])
    (folder / "images" / NO_IMAGE).write_text("A sentence is no image.\n", encoding="utf-8")
    with rasterio.open(tiles / "labels" / image.name) as source:
        classes, profile, tags = source.read(1), source.profile, source.tags()
    # A quarter of the scene: somebody drew the thin cloud that the label had left out.
    side = classes.shape[0] // 2
    classes[:side, :side] = 1
    with rasterio.open(folder / "labels" / image.name, "w", **profile) as out:
        out.update_tags(**tags | {"LABEL_SOURCE": "analyst:ada"})
        out.write(classes, 1)
    return image.stem
