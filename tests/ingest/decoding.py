"""Decode rasters in the process of the test: what the sandboxed decoder does, without the sandbox."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio

from cloudseg.ingest.candidate import QualityKind
from cloudseg.ingest.decode import decode_scene
from cloudseg.ingest.job import QualityJob, RasterJob, SceneFacts, SceneJob


def decode(
    folder: Path,
    *files: Path,
    bands: Sequence[Sequence[str | None] | None] | None = None,
    quality: Mapping[QualityKind, Path] | None = None,
    radiometry: tuple[float, float, float | None, str, bool] | None = None,
) -> tuple[SceneFacts, np.ndarray]:
    """Return the facts of a scene and its canonical pixels `(band, row, col)`.

    Args:
        folder: For the canonical raster and temporary files.
        *files: The rasters; their sidecars lie beside them.
        bands: Names of the bands of each file; None: from the file.
        quality: Quality layers by kind.
        radiometry: Of every file.
    """
    names = bands or [None] * len(files)
    jobs = [
        RasterJob(
            path=str(file),
            display_name=file.name,
            bands=list(each) if each is not None else None,
            radiometry=radiometry,
        )
        for file, each in zip(files, names, strict=True)
    ]
    job = SceneJob(
        name="scene",
        files=jobs,
        quality=[
            QualityJob(path=str(path), display_name=path.name, kind=kind) for kind, path in (quality or {}).items()
        ],
        needs_georeference=True,
        time_in_tags=False,
        is_product=False,
        out=str(folder / "scene_out.tif"),
        folder=str(folder),
        max_pixels=4_000_000,
        memory_mb=2048,
    )
    facts = decode_scene(job, on_size=lambda _: None)
    with rasterio.open(folder / "scene_out.tif") as dataset:
        return facts, dataset.read()


def valid(pixels: np.ndarray) -> np.ndarray:
    """Return the valid pixels `(row, col)` of canonical ones."""
    return np.asarray((pixels > 0).all(axis=0))
