"""Ingest: a folder of tiles into the catalog.

The naive side is a loop over the files in one process: read, scale in float64, write a plain GeoTIFF, one row each. It
checks nothing: no decoding limits, no footprint, no checksums, no overviews. So the time itself matters here, not the
ratio.
"""

import shutil
import sqlite3
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import rasterio

from benchmarks.folder import open_world
from benchmarks.harness import Turn, serve, stopwatch
from benchmarks.world import usable_cpus
from cloudseg.ingest import DecodeLimits
from cloudseg.ingest.pipeline import ingest_source

SOURCE_NOTE = "source.txt"
"""File in the benchmark's folder with the path of the folder with `images/` and `labels/`."""


def naive(folder: Path) -> Turn:
    """Ingest one file after the other."""
    images = sorted((_source(folder) / "images").glob("*.tif"))

    def work() -> tuple[int, float]:
        out = Path(tempfile.mkdtemp(dir=folder))
        megapixels = 0.0
        with sqlite3.connect(out / "rows.db") as db:
            db.execute("CREATE TABLE scene (name TEXT, path TEXT)")
            for image in images:
                megapixels += _copy_scaled(image, out / f"image-{image.name}", 1e-4)
                label = image.parents[1] / "labels" / image.name
                if label.exists():
                    _copy_scaled(label, out / f"label-{image.name}", 1.0)
                db.execute("INSERT INTO scene VALUES (?, ?)", (image.stem, str(out)))
        shutil.rmtree(out)
        return len(images), megapixels

    return lambda number: stopwatch(work)


def cloudseg(folder: Path) -> Turn:
    """Ingest into an empty catalog, as the stage does."""

    def work() -> tuple[int, float]:
        out = Path(tempfile.mkdtemp(dir=folder))
        store, catalog = open_world(out)
        record = ingest_source(store, catalog, str(_source(folder)), limits=DecodeLimits(), workers=usable_cpus())
        if record.quarantined or not record.added:
            raise RuntimeError(f"{len(record.added)} scenes added and {len(record.quarantined)} quarantined")
        with catalog.read() as db:
            pixels = db.exec_driver_sql("SELECT sum(height * width) FROM scene").scalar_one()
        catalog.engine.dispose()
        shutil.rmtree(out)
        return len(record.added), pixels / 1e6

    return lambda number: stopwatch(work)


def _source(folder: Path) -> Path:
    return Path((folder / SOURCE_NOTE).read_text(encoding="utf-8"))


def _copy_scaled(source: Path, target: Path, scale: float) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(source) as dataset:
            pixels = dataset.read().astype(np.float64) * scale
            profile = {
                "driver": "GTiff",
                "height": dataset.height,
                "width": dataset.width,
                "count": dataset.count,
                "dtype": "float64",
            }
            profile |= {"crs": dataset.crs, "transform": dataset.transform}
        with rasterio.open(target, "w", **profile) as out:
            out.write(pixels)
    return float(pixels.shape[1] * pixels.shape[2] / 1e6)


SIDES = {"naive": naive, "cloudseg": cloudseg}

if __name__ == "__main__":
    serve(SIDES[sys.argv[1]](Path(sys.argv[2])))
