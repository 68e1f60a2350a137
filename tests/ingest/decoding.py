"""Decode files in the process of the test: what the sandboxed decoder and writer do, without the sandbox."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import rasterio

from cloudseg.ingest.candidate import QualityKind
from cloudseg.ingest.decode import decode_scene
from cloudseg.ingest.decode_label import decode_label
from cloudseg.ingest.job import OUTPUT_NAME, LabelFacts, LabelJob, QualityJob, RasterJob, SceneFacts, SceneJob
from cloudseg.ingest.pixel_stream import PixelReceiver, PixelSender
from cloudseg.ingest.write_canonical import write_label, write_scene

R = TypeVar("R")
W = TypeVar("W")
_MAX_BYTES = 1 << 30


def _one_after_the_other(
    read: Callable[[PixelSender], R], write: Callable[[PixelReceiver, Path], W], out: str
) -> tuple[R, W]:
    """Return what the decoder read and the writer wrote, with the canonical raster at `out`.

    A file takes the place of their pipe: threads would share the filters of warnings.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pipe = folder / "pipe"
        reading = read(PixelSender(os.open(pipe, os.O_WRONLY | os.O_CREAT)))
        receiver = PixelReceiver(os.open(pipe, os.O_RDONLY))
        try:
            written = write(receiver, folder)
        finally:
            receiver._file.close()
        (folder / OUTPUT_NAME).replace(out)
    return reading, written


def scene_facts(job: SceneJob) -> SceneFacts:
    """Decode a scene to `job.out` and return its facts."""
    reading, written = _one_after_the_other(
        lambda pixels: decode_scene(job, lambda _: None, pixels),
        lambda pixels, folder: write_scene(job, pixels, folder, _MAX_BYTES),
        job.out,
    )
    return SceneFacts(**dict(reading), **dict(written))


def label_facts(job: LabelJob) -> LabelFacts:
    """Decode a label to `job.out` and return its facts."""
    reading, written = _one_after_the_other(
        lambda pixels: decode_label(job, pixels), lambda pixels, folder: write_label(job, pixels, folder), job.out
    )
    return LabelFacts(**dict(reading), **dict(written))


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
    facts = scene_facts(job)
    with rasterio.open(folder / "scene_out.tif") as dataset:
        return facts, dataset.read()


def valid(pixels: np.ndarray) -> np.ndarray:
    """Return the valid pixels `(row, col)` of canonical ones."""
    return np.asarray((pixels > 0).all(axis=0))
