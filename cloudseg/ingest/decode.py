"""Decode untrusted files into one canonical scene: uint16 COG, reflectance × 10 000, 0 = no data.

Runs in the sandboxed decoder process. Reads and writes by windows: memory does not grow with the scene.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import rasterio
import shapely
from rasterio.transform import Affine

from cloudseg.bands import RGB
from cloudseg.errors import BadScene
from cloudseg.grid import Window
from cloudseg.ingest.georeference import Grid
from cloudseg.ingest.job import SceneFacts, SceneJob
from cloudseg.ingest.layer import Bool, Layer, align_layers, open_layer, read_layers
from cloudseg.ingest.offset_check import check_offset
from cloudseg.ingest.plausibility import check_distribution
from cloudseg.ingest.quality import QualityLayer, open_quality
from cloudseg.ingest.untrusted import rasterio_window
from cloudseg.raster.cog import create_tiled, write_cog
from cloudseg.raster.footprint import OVERVIEW_SIZE, footprint_bounds, footprint_of
from cloudseg.raster.read import GDAL_ENV

_WINDOW: Final = 1024
_STRIP_ROWS: Final = 512
_MAX_STRIP_WIDTH: Final = 16_384
_KEPT_TAGS: Final = {"SYNTHETIC": "synthetic", "GROUND": "ground", "GEOREFERENCE": "georeference", "SOURCE": "source"}
_ROW_TAGS: Final = ("RESAMPLED", "WARPED", "RADIOMETRY_GUESS")
"""Tags of the canonical file that the scene's row keeps too."""
_MAX_TAG_LENGTH: Final = 200


def decode_scene(job: SceneJob, on_size: Callable[[float], None]) -> SceneFacts:
    """Write the canonical COG of a scene to `job.out` and return its facts.

    Args:
        job: The files and limits.
        on_size: Called with pixels × bands in millions before any pixel is read.

    Raises:
        BadScene: The files do not make a scene.
    """
    with rasterio.Env(**GDAL_ENV), ExitStack() as stack:
        layers = [open_layer(stack, job, file) for file in job.files]
        names = [name for layer in layers for name in layer.names]
        _check_bands(names, job.name)
        grid = align_layers(stack, job, layers)
        quality = [open_quality(stack, job, layer, grid) for layer in job.quality]
        on_size(grid.height * grid.width * len(names) / 1e6)
        tiled = Path(job.folder) / "tiled.tif"
        overview, step, valid_fraction = _write_canonical(tiled, layers, quality, grid, names, job)
        tags = _canonical_tags(layers)
        write_cog(Path(job.out), tiled, resampling="average", tags=tags, compression="ZSTD", predictor=True)
        tiled.unlink()
        stated = [text for layer in layers for text in layer.validity] + [layer.title for layer in quality]
        facts = _scene_facts(job, layers, grid, names, overview, step, valid_fraction, tags)
        return facts.model_copy(update={"tags": facts.tags | _validity_tag(stated)})


def _check_bands(names: list[str], scene: str) -> None:
    """Check that red, green and blue exist and that no band name occurs twice."""
    duplicates = sorted({name for name in names if names.count(name) > 1})
    missing = [band for band in RGB if band not in names]
    if duplicates or missing:
        raise BadScene(
            f"two bands have the name {', '.join(duplicates)}"
            if duplicates
            else f"the scene lacks {', '.join(missing)}",
            subject=scene,
            found=", ".join(names),
            expected="red, green and blue, each once",
        )


def _write_canonical(
    tiled: Path, layers: list[Layer], quality: list[QualityLayer], grid: Grid, names: list[str], job: SceneJob
) -> tuple[Bool, int, float]:
    """Write the canonical pixels to `tiled`.

    Returns:
        Overview of the valid pixels `(row, col)`, its step in pixels, and the valid fraction.

    Raises:
        BadScene: No pixel is valid, or the pixel values cannot be reflectance.
    """
    step = max(1, -(-max(grid.shape) // OVERVIEW_SIZE))
    overview = np.zeros((-(-grid.height // step), -(-grid.width // step)), bool)
    counts = np.zeros((len(names), 65536), np.int64)
    with create_tiled(
        tiled,
        height=grid.height,
        width=grid.width,
        count=len(names),
        dtype="uint16",
        crs=grid.crs_text(),
        transform=grid.transform,
        nodata=0,
        descriptions=names,
    ) as out:
        for window in _windows(grid, striped=any(layer.striped for layer in layers)):
            dn, valid = read_layers(layers, quality, window)
            out.write(dn, window=rasterio_window(window))
            _mark_valid(overview, valid, window, step)
            for band, values in enumerate(dn):
                counts[band] += np.bincount(values.ravel(), minlength=65536)
    missing = int(counts[0, 0])
    counts[:, 0] = 0
    if missing == grid.height * grid.width:
        raise BadScene(
            "no valid pixels: all are nodata or NaN",
            subject=job.name,
            expected="at least one valid pixel",
            next_step="Get the file again, or use another date.",
        )
    scales = {name: scale for layer in layers for name, scale in zip(layer.names, layer.scales, strict=True)}
    check_distribution(counts, scales, job.name, is_product=job.is_product)
    check_offset(counts, scales, layers, grid, job.name)
    return overview, step, 1 - missing / (grid.height * grid.width)


def _windows(grid: Grid, *, striped: bool) -> Iterator[Window]:
    """Yield windows that match the blocks of the source: strips over the whole width, or squares."""
    rows, cols = (_STRIP_ROWS, grid.width) if striped and grid.width <= _MAX_STRIP_WIDTH else (_WINDOW, _WINDOW)
    for row in range(0, grid.height, rows):
        for col in range(0, grid.width, cols):
            yield Window(row, col, min(rows, grid.height - row), min(cols, grid.width - col))


def _mark_valid(overview: Bool, valid: Bool, window: Window, step: int) -> None:
    """Set the overview pixels that contain a valid pixel of the window."""
    rows, cols = (
        np.arange(start, start + length) // step
        for start, length in ((window.row_off, window.height), (window.col_off, window.width))
    )
    row_starts, col_starts = (np.flatnonzero(np.diff(positions, prepend=-1)) for positions in (rows, cols))
    coarse = np.logical_or.reduceat(np.logical_or.reduceat(valid, row_starts, axis=0), col_starts, axis=1)
    overview[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] |= coarse


def _canonical_tags(layers: list[Layer]) -> dict[str, str]:
    """Return the tags of the canonical file. They do not depend on file names: equal input yields equal bytes."""
    sources = list(dict.fromkeys(scale.radiometry.source for layer in layers for scale in layer.scales))
    tags = {"CONTENT": "reflectance x 10000, 0 = no data", "RADIOMETRY": "; ".join(sources)}
    guesses = [scale.radiometry.source for layer in layers for scale in layer.scales if scale.radiometry.guessed]
    if guesses:
        tags["RADIOMETRY_GUESS"] = "; ".join(dict.fromkeys(guesses))
    if resampled := [layer.resampled for layer in layers if layer.resampled]:
        tags["RESAMPLED"] = "; ".join(resampled)
    if warped := sorted({layer.warped for layer in layers if layer.warped}):
        tags["WARPED"] = "; ".join(warped)
    return tags


def _scene_facts(
    job: SceneJob,
    layers: list[Layer],
    grid: Grid,
    names: list[str],
    overview: Bool,
    step: int,
    valid_fraction: float,
    tags: dict[str, str],
) -> SceneFacts:
    """Return what the catalog stores about a decoded scene."""
    footprint = None
    if grid.crs is not None:
        extent = grid.height / step, grid.width / step
        coarse = Affine(grid.transform.a * step, 0, grid.transform.c, 0, grid.transform.e * step, grid.transform.f)
        footprint = footprint_of(overview, coarse, str(grid.crs_text()), extent=extent)
    source_tags = [layer.view.tags() for layer in layers]
    return SceneFacts(
        radiometry=tags["RADIOMETRY"],
        crs=grid.crs_text(),
        transform=list(grid.transform)[:6],
        height=grid.height,
        width=grid.width,
        resolution_m=grid.resolution_m(),
        bands=names,
        valid_fraction=valid_fraction,
        acquired_at=_acquisition_time(source_tags, trust_tiff_datetime=job.time_in_tags),
        footprint_wkb_hex=shapely.to_wkb(footprint, hex=True) if footprint is not None else None,
        bounds=list(footprint_bounds(footprint)) if footprint is not None else None,
        center=list(grid.center()) if grid.crs else None,
        tags=_row_tags(source_tags, tags),
    )


def _row_tags(source_tags: list[dict[str, str]], canonical_tags: dict[str, str]) -> dict[str, str]:
    """Return the few tags that a scene's row keeps: short, printable strings."""
    found = {
        ours: tags[theirs] for tags in reversed(source_tags) for theirs, ours in _KEPT_TAGS.items() if tags.get(theirs)
    }
    found |= {name.lower(): canonical_tags[name] for name in _ROW_TAGS if name in canonical_tags}
    return {
        name: "".join(c if c.isprintable() else " " for c in text)[:_MAX_TAG_LENGTH]
        for name, text in sorted(found.items())
    }


def _validity_tag(stated: list[str]) -> dict[str, str]:
    """Return what states where the scene was observed, besides nodata values in the files; empty if nothing does."""
    return {"validity": "; ".join(dict.fromkeys(stated))[:_MAX_TAG_LENGTH]} if stated else {}


def _acquisition_time(source_tags: list[dict[str, str]], *, trust_tiff_datetime: bool) -> datetime | None:
    """Return the acquisition time from the files' tags, in UTC, or None."""
    names = ("ACQUIRED_AT", "TIFFTAG_DATETIME") if trust_tiff_datetime else ("ACQUIRED_AT",)
    for text in (tags[name].strip() for tags in source_tags for name in names if tags.get(name)):
        try:
            # TIFF 6.0, DateTime: "YYYY:MM:DD HH:MM:SS"; some writers use ISO 8601.
            moment = datetime.fromisoformat(text[:10].replace(":", "-") + text[10:])
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):  # in UTC it may be before the year 1 or after 9999
            continue
    return None
