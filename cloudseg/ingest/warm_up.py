"""Decode a tiny scene and label made here: processes forked later find drivers, databases and modules loaded."""

import os
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from rasterio.transform import from_origin

from cloudseg.bands import RGB
from cloudseg.ingest.class_mappings import BINARY
from cloudseg.ingest.decode import decode_scene
from cloudseg.ingest.decode_label import decode_label
from cloudseg.ingest.job import OUTPUT_NAME, LabelJob, RasterJob, SceneJob
from cloudseg.ingest.pixel_stream import PixelReceiver, PixelSender
from cloudseg.ingest.write_canonical import write_label, write_scene
from cloudseg.raster.cog import create_tiled

_SIDE: Final = 16
"""Pixels; the pixels of a scene fit into the buffer of a pipe."""
_MEMORY_MB: Final = 1024


def warm_up() -> None:
    """Do once what every decoder and writer does first. Opens no file but those that it writes itself."""
    with tempfile.TemporaryDirectory(prefix="cloudseg-warm-") as name:
        folder = Path(name)
        image, mask = folder / "source0", folder / "label"
        dn = np.arange(3 * _SIDE * _SIDE, dtype=np.uint16).reshape(3, _SIDE, _SIDE) * 7 + 1000  # reflectance of land
        _write(image, dn, RGB)
        _write(mask, (dn[:1] > 2000).astype(np.uint8), ("label",))
        _decode_scene(folder, image)
        _decode_label(folder, mask)


def _write(path: Path, values: np.ndarray, names: tuple[str, ...]) -> None:
    with create_tiled(
        path,
        height=_SIDE,
        width=_SIDE,
        count=len(values),
        dtype=str(values.dtype),
        crs="EPSG:32631",
        transform=from_origin(500_000, 5_600_000, 10, 10),
        nodata=None,
        descriptions=names,
    ) as out:
        out.write(values)


def _decode_scene(folder: Path, image: Path) -> None:
    job = SceneJob(
        name="warm-up",
        files=[RasterJob(path=str(image), display_name=image.name, bands=None)],
        needs_georeference=True,
        time_in_tags=True,
        is_product=True,
        out="",
        folder=str(folder),
        max_pixels=_SIDE * _SIDE,
        memory_mb=_MEMORY_MB,
    )
    sender, receiver = _pipe()
    decode_scene(job, lambda _: None, sender)
    write_scene(job, receiver, folder, max_bytes=1 << 20)


def _decode_label(folder: Path, mask: Path) -> None:
    job = LabelJob(
        path=str(mask),
        display_name=mask.name,
        source="warm-up",
        mappings=[list(BINARY.values)],
        scene_id="",
        scene=str(folder / OUTPUT_NAME),
        needs_georeference=True,
        out="",
        folder=str(folder),
        max_pixels=_SIDE * _SIDE,
        memory_mb=_MEMORY_MB,
    )
    own = folder / "out"
    own.mkdir()
    sender, receiver = _pipe()
    decode_label(job, sender)
    write_label(job, receiver, own)


def _pipe() -> tuple[PixelSender, PixelReceiver]:
    source, sink = os.pipe()
    return PixelSender(sink), PixelReceiver(source)
