"""Decode untrusted files into the pixels of one canonical scene: uint16, reflectance × 10 000, 0 = no data.

Runs in the sandboxed decoder process. Reads and sends by windows: memory does not grow with the scene. What it sends is
written by another process (`cloudseg.ingest.write_canonical`).
"""

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Final

import numpy as np
import rasterio

from cloudseg.bands import RGB
from cloudseg.errors import BadScene
from cloudseg.ingest.block_cache import room_for_blocks
from cloudseg.ingest.georeference import Grid
from cloudseg.ingest.job import SceneJob, ScenePixels, SceneReading
from cloudseg.ingest.layer import Layer, align_layers, open_layer, read_layers
from cloudseg.ingest.offset_check import check_offset
from cloudseg.ingest.pixel_stream import PixelSender, windows_of
from cloudseg.ingest.plausibility import check_distribution
from cloudseg.ingest.quality import QualityLayer, open_quality
from cloudseg.raster.read import GDAL_ENV

_WINDOW: Final = 1024
_STRIP_ROWS: Final = 512
_MAX_STRIP_WIDTH: Final = 16_384
_KEPT_TAGS: Final = {"SYNTHETIC": "synthetic", "GROUND": "ground", "GEOREFERENCE": "georeference", "SOURCE": "source"}
_ROW_TAGS: Final = ("RESAMPLED", "WARPED", "RADIOMETRY_GUESS")
"""Tags of the canonical file that the scene's row keeps too."""
_MAX_TAG_LENGTH: Final = 200


def decode_scene(job: SceneJob, on_size: Callable[[float], None], pixels: PixelSender) -> SceneReading:
    """Send the canonical pixels of a scene to the writer and return what the files say besides.

    Args:
        job: The files and limits.
        on_size: Called with pixels × bands in millions before any pixel is read.
        pixels: The pipe to the writer.

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
        tags = _canonical_tags(layers)
        _send_canonical(layers, quality, grid, names, tags, job, pixels)
        stated = [text for layer in layers for text in layer.validity] + [layer.title for layer in quality]
        source_tags = [layer.view.tags() for layer in layers]
        return SceneReading(
            radiometry=tags["RADIOMETRY"],
            acquired_at=_acquisition_time(source_tags, trust_tiff_datetime=job.time_in_tags),
            tags=_row_tags(source_tags, tags) | _validity_tag(stated),
        )


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


def _send_canonical(
    layers: list[Layer],
    quality: list[QualityLayer],
    grid: Grid,
    names: list[str],
    tags: dict[str, str],
    job: SceneJob,
    pixels: PixelSender,
) -> None:
    """Send the canonical pixels.

    Raises:
        BadScene: No pixel is valid, or the pixel values cannot be reflectance.
    """
    counts = np.zeros((len(names), 1), np.int64)
    rows, cols = _window_size(grid, striped=any(layer.striped for layer in layers))
    head = ScenePixels(
        rows=rows,
        cols=cols,
        crs=grid.crs_text(),
        transform=list(grid.transform)[:6],
        height=grid.height,
        width=grid.width,
        bands=names,
        tags=tags,
    )
    pixels.begin(head)
    with room_for_blocks([layer.dataset for layer in layers], rows, cols, job.memory_mb):
        for window in windows_of(grid.height, grid.width, head):
            dn, _ = read_layers(layers, quality, window)
            pixels.send(dn)
            for band, values in enumerate(dn):
                found = np.bincount(values.ravel())
                if len(found) > counts.shape[1]:
                    counts = np.pad(counts, ((0, 0), (0, len(found) - counts.shape[1])))
                counts[band, : len(found)] += found
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
    pixels.commit()


def _window_size(grid: Grid, *, striped: bool) -> tuple[int, int]:
    """Return rows and columns of windows that match the blocks of the source.

    They are strips over the whole width, or squares.
    """
    return (_STRIP_ROWS, grid.width) if striped and grid.width <= _MAX_STRIP_WIDTH else (_WINDOW, _WINDOW)


def _canonical_tags(layers: list[Layer]) -> dict[str, str]:
    """Return the tags of the canonical file. They do not depend on file names: equal input yields equal bytes."""
    sources = list(dict.fromkeys(scale.radiometry.source for layer in layers for scale in layer.scales))
    tags = {"RADIOMETRY": "; ".join(sources)}
    guesses = [scale.radiometry.source for layer in layers for scale in layer.scales if scale.radiometry.guessed]
    if guesses:
        tags["RADIOMETRY_GUESS"] = "; ".join(dict.fromkeys(guesses))
    if resampled := [layer.resampled for layer in layers if layer.resampled]:
        tags["RESAMPLED"] = "; ".join(resampled)
    if warped := sorted({layer.warped for layer in layers if layer.warped}):
        tags["WARPED"] = "; ".join(warped)
    return tags


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
