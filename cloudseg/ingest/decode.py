"""Decode untrusted files into one canonical scene: uint16 COG, reflectance × 10 000, 0 = no data.

Runs in the sandboxed decoder process. Reads and writes by windows: memory does not grow with the scene.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.enums import MaskFlags, Resampling
from rasterio.transform import Affine
from rasterio.windows import Window as RasterioWindow

from cloudseg.bands import RGB
from cloudseg.errors import BadScene
from cloudseg.grid import Window
from cloudseg.ingest.georeference import Grid, same_extent, same_grid, to_grid, to_north_up
from cloudseg.ingest.job import RasterJob, SceneFacts, SceneJob
from cloudseg.ingest.radiometry import BandScale, band_names, band_scale, check_distribution, to_canonical
from cloudseg.ingest.untrusted import READ_ERRORS, check_pixels, open_untrusted, read_error
from cloudseg.raster.cog import create_tiled, write_cog
from cloudseg.raster.footprint import OVERVIEW_SIZE, footprint_bounds, footprint_of
from cloudseg.raster.read import GDAL_ENV

_WINDOW: Final = 1024
_STRIP_ROWS: Final = 512
_MAX_STRIP_WIDTH: Final = 16_384
_KEPT_TAGS: Final = {"SYNTHETIC": "synthetic", "GROUND": "ground", "GEOREFERENCE": "georeference", "SOURCE": "source"}
_MAX_TAG_LENGTH: Final = 200

UInt16 = npt.NDArray[np.uint16]
Bool = npt.NDArray[np.bool_]


@dataclass
class _Layer:
    """One open file and the bands to read from it. `view` is the dataset or a warped VRT on `grid`."""

    job: RasterJob
    view: Any
    grid: Grid
    names: list[str]
    indexes: list[int]
    scales: list[BandScale]
    striped: bool
    alpha: int | None
    masked: bool
    warped: str | None
    resampled: str | None = None


def decode_scene(job: SceneJob, on_size: Callable[[float], None]) -> SceneFacts:
    """Write the canonical COG of a scene to `job.out` and return its facts.

    Args:
        job: The files and limits.
        on_size: Called with pixels × bands in millions before any pixel is read.

    Raises:
        BadScene: The files do not make a scene.
    """
    with rasterio.Env(**GDAL_ENV), ExitStack() as stack:
        layers = [_open_layer(stack, job, file) for file in job.files]
        names = [name for layer in layers for name in layer.names]
        _check_bands(names, job.name)
        grid = _align_layers(stack, layers, job)
        on_size(grid.height * grid.width * len(names) / 1e6)
        tiled = Path(job.folder) / "tiled.tif"
        overview, step, valid_fraction = _write_canonical(tiled, layers, grid, names, job)
        tags = _canonical_tags(layers)
        write_cog(Path(job.out), tiled, resampling="average", tags=tags, compression="ZSTD", predictor=True)
        tiled.unlink()
        return _scene_facts(job, layers, grid, names, overview, step, valid_fraction, tags)


def _open_layer(stack: ExitStack, job: SceneJob, file: RasterJob) -> _Layer:
    opened = open_untrusted(file.path, file.display_name, max_pixels=job.max_pixels, memory_mb=job.memory_mb)
    dataset = stack.enter_context(opened)
    check_pixels(dataset, file.display_name)
    names = _names_of(dataset, file, job.name)
    view, grid, warped = to_north_up(
        dataset, file.display_name, needs_georeference=job.needs_georeference, max_pixels=job.max_pixels
    )
    if view is not dataset:
        stack.enter_context(view)
    wanted = [(index + 1, name) for index, name in enumerate(names) if name]
    scales = [
        band_scale(
            name,
            dataset.dtypes[index - 1],
            file.known_radiometry(),
            (dataset.scales[index - 1], dataset.offsets[index - 1]),
            dataset.nodatavals[index - 1],
            file.display_name,
            source=dataset.tags().get("SOURCE", ""),
        )
        for index, name in wanted
    ]
    flags = dataset.mask_flag_enums[wanted[0][0] - 1] if wanted else []
    return _Layer(
        job=file,
        view=view,
        grid=grid,
        names=[name for _, name in wanted],
        indexes=[index for index, _ in wanted],
        scales=scales,
        striped=dataset.block_shapes[0][1] == dataset.width,
        alpha=_alpha_index(view),
        warped=warped,
        masked=MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags,
    )


def _names_of(dataset: Any, file: RasterJob, scene: str) -> list[str | None]:
    """Return the name of each band, None for a band that is not wanted.

    Raises:
        BadScene: The file has another number of bands than names, or no usable names.
    """
    colors = [color.name for color in dataset.colorinterp]
    if file.bands is None:
        sensor = f"{scene} {dataset.tags().get('SENSOR', '')}"
        return band_names(list(dataset.descriptions), colors, sensor, file.display_name)
    visible = [color for color in colors if color != "alpha"]
    for names in (file.bands, *file.other_bands):
        if len(names) in (dataset.count, len(visible)):
            return [*names, *([None] * (dataset.count - len(names)))]
    raise BadScene(
        "unexpected number of bands",
        subject=file.display_name,
        found=dataset.count,
        expected=f"{len(file.bands)} ({', '.join(name or '-' for name in file.bands)})",
        next_step="Name every band of the file in --bands; write - for a band that is not wanted.",
    )


def _check_bands(names: list[str], scene: str) -> None:
    """Check that red, green and blue exist and that no band name occurs twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    missing = [band for band in RGB if band not in names]
    if twice or missing:
        raise BadScene(
            f"two bands have the name {', '.join(twice)}" if twice else f"the scene lacks {', '.join(missing)}",
            subject=scene,
            found=", ".join(names),
            expected="red, green and blue, each once",
        )


def _align_layers(stack: ExitStack, layers: list[_Layer], job: SceneJob) -> Grid:
    """Resample every file to the finest grid and return that grid.

    Raises:
        BadScene: The files do not cover the same extent.
    """
    finest = min(layers, key=lambda layer: abs(layer.grid.transform.a * layer.grid.transform.e)).grid
    for layer in layers:
        if same_grid(finest, layer.grid):
            continue
        if not same_extent(finest, layer.grid):
            raise BadScene(
                "the bands have different extents",
                subject=layer.job.display_name,
                found=_describe_grid(layer.grid),
                expected=_describe_grid(finest),
                next_step="Use the bands of one product.",
            )
        original_m = layer.grid.resolution_m() or 0.0
        layer.resampled = f"{', '.join(layer.names)}: {original_m:.4g} m to {finest.resolution_m():.4g} m, bilinear"
        layer.view = stack.enter_context(to_grid(layer.view, finest, Resampling.bilinear))
        layer.grid, layer.alpha = finest, _alpha_index(layer.view)
    return finest


def _describe_grid(grid: Grid) -> str:
    corner = f"corner {grid.transform.c:.6g} {grid.transform.f:.6g}, pixel {grid.transform.a:.6g}"
    return f"{grid.height} x {grid.width} pixels, {corner}, {str(grid.crs_text())[:40]}"


def _alpha_index(view: Any) -> int | None:
    return next((index + 1 for index, color in enumerate(view.colorinterp) if color.name == "alpha"), None)


def _write_canonical(
    tiled: Path, layers: list[_Layer], grid: Grid, names: list[str], job: SceneJob
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
            dn, valid = _read(layers, window)
            out.write(dn, window=_as_rasterio(window))
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
    return overview, step, 1 - missing / (grid.height * grid.width)


def _windows(grid: Grid, *, striped: bool) -> Iterator[Window]:
    """Yield windows that match the blocks of the source: strips over the whole width, or squares."""
    rows, cols = (_STRIP_ROWS, grid.width) if striped and grid.width <= _MAX_STRIP_WIDTH else (_WINDOW, _WINDOW)
    for row in range(0, grid.height, rows):
        for col in range(0, grid.width, cols):
            yield Window(row, col, min(rows, grid.height - row), min(cols, grid.width - col))


def _read(layers: list[_Layer], window: Window) -> tuple[UInt16, Bool]:
    """Return canonical digital numbers `(band, row, col)`, 0 where any band has no data, and the valid pixels."""
    parts: list[UInt16] = []
    valid = np.ones((window.height, window.width), bool)
    floats_at_zero = np.ones((window.height, window.width), bool)
    for layer in layers:
        raw = _read_raw(layer, layer.indexes, window)
        bands = [to_canonical(dn, scale) for dn, scale in zip(raw, layer.scales, strict=True)]
        band_valid = np.stack([each for _, each in bands])
        # In 8 bits 0 is also black: such a pixel is invalid only where every band is 0.
        valid &= band_valid.any(axis=0) if raw.dtype == np.uint8 else band_valid.all(axis=0)
        if layer.alpha is not None:
            valid &= _read_raw(layer, [layer.alpha], window)[0] > 0
        if layer.masked and layer.warped is None and layer.resampled is None:
            valid &= layer.view.read_masks(layer.indexes[0], window=_as_rasterio(window)) > 0
        # Reflectance products in floating point have 0 in every band at their margins and no nodata value.
        floats_at_zero &= (raw == 0).all(axis=0) if raw.dtype.kind == "f" else False
        parts += [dn for dn, _ in bands]
    valid &= ~floats_at_zero
    return np.stack(parts) * valid, valid


def _read_raw(layer: _Layer, indexes: list[int], window: Window) -> npt.NDArray[Any]:
    """Return the bands `(band, row, col)` in the file's data type."""
    try:
        found: npt.NDArray[Any] = layer.view.read(indexes, window=_as_rasterio(window))
    except READ_ERRORS as error:
        raise read_error(error, layer.job.display_name) from error
    return found


def _as_rasterio(window: Window) -> RasterioWindow:
    return RasterioWindow(window.col_off, window.row_off, window.width, window.height)


def _mark_valid(overview: Bool, valid: Bool, window: Window, step: int) -> None:
    """Set the overview pixels that contain a valid pixel of the window."""
    rows, cols = (
        np.arange(start, start + length) // step
        for start, length in ((window.row_off, window.height), (window.col_off, window.width))
    )
    row_starts, col_starts = (np.flatnonzero(np.diff(positions, prepend=-1)) for positions in (rows, cols))
    coarse = np.logical_or.reduceat(np.logical_or.reduceat(valid, row_starts, axis=0), col_starts, axis=1)
    overview[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] |= coarse


def _canonical_tags(layers: list[_Layer]) -> dict[str, str]:
    """Return the tags of the canonical file. They do not depend on file names, so that equal bytes give equal bytes."""
    sources = list(dict.fromkeys(scale.radiometry.source for layer in layers for scale in layer.scales))
    tags = {"CONTENT": "reflectance x 10000, 0 = no data", "RADIOMETRY": "; ".join(sources)}
    if resampled := [layer.resampled for layer in layers if layer.resampled]:
        tags["RESAMPLED"] = "; ".join(resampled)
    if warped := sorted({layer.warped for layer in layers if layer.warped}):
        tags["WARPED"] = "; ".join(warped)
    return tags


def _scene_facts(
    job: SceneJob,
    layers: list[_Layer],
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
    found |= {name.lower(): canonical_tags[name] for name in ("RESAMPLED", "WARPED") if name in canonical_tags}
    return {
        name: "".join(c if c.isprintable() else " " for c in text)[:_MAX_TAG_LENGTH]
        for name, text in sorted(found.items())
    }


def _acquisition_time(source_tags: list[dict[str, str]], *, trust_tiff_datetime: bool) -> datetime | None:
    """Return the acquisition time from the files' tags, in UTC, or None."""
    names = ("ACQUIRED_AT", "TIFFTAG_DATETIME") if trust_tiff_datetime else ("ACQUIRED_AT",)
    for text in (tags[name].strip() for tags in source_tags for name in names if tags.get(name)):
        try:
            # TIFF 6.0, DateTime: "YYYY:MM:DD HH:MM:SS"; some writers use ISO 8601.
            moment = datetime.fromisoformat(text[:10].replace(":", "-") + text[10:])
        except ValueError:
            continue
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return None
