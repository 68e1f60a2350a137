"""The open raster files of a scene, on one grid: band names, scales, validity and pixels of each.

Runs in the sandboxed decoder process.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import MaskFlags, Resampling

from cloudseg.errors import BadScene
from cloudseg.grid import Window
from cloudseg.ingest.band_codes import band_names
from cloudseg.ingest.georeference import Grid, same_extent, same_grid, to_grid, to_north_up
from cloudseg.ingest.job import RasterJob, SceneJob
from cloudseg.ingest.product_scale import product_scale
from cloudseg.ingest.radiometry import BandScale, band_scale, to_canonical
from cloudseg.ingest.untrusted import check_pixels, open_untrusted, rasterio_window, read_window

UInt16 = npt.NDArray[np.uint16]
Bool = npt.NDArray[np.bool_]


@dataclass
class Layer:
    """One open file and the bands to read from it."""

    job: RasterJob
    view: Any
    """The dataset, or a warped VRT on `grid`."""
    grid: Grid
    names: list[str]
    """Names of the wanted bands."""
    indexes: list[int]
    """Their indexes in the file, from 1."""
    scales: list[BandScale]
    striped: bool
    """Whether the blocks of the file span its whole width."""
    alpha: int | None
    """Index of the alpha band of `view`."""
    masked: bool
    """Whether the file has an internal mask, which is used only if the pixels are neither warped nor resampled."""
    warped: str | None
    """How the file was warped north-up."""
    resampled: str | None = None
    """How the file was resampled to the finest grid."""


def open_layer(stack: ExitStack, job: SceneJob, file: RasterJob) -> Layer:
    """Open and check one file of a scene.

    Args:
        stack: Closes the file.
        job: The scene's limits.
        file: The private copy.

    Raises:
        BadScene: The file is not a usable raster, or its bands, scale or georeference are unknown.
    """
    opened = open_untrusted(file.path, file.display_name, max_pixels=job.max_pixels, memory_mb=job.memory_mb)
    dataset = stack.enter_context(opened)
    check_pixels(dataset, file.display_name)
    names = _names_of(dataset, file, job.sensor)
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
            product_scale(dataset, index, file.known_radiometry(), job.sensor, file.display_name),
            (dataset.scales[index - 1], dataset.offsets[index - 1]),
            dataset.nodatavals[index - 1],
            file.display_name,
            source=dataset.tags().get("SOURCE", ""),
        )
        for index, name in wanted
    ]
    flags = dataset.mask_flag_enums[wanted[0][0] - 1] if wanted else []
    return Layer(
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


def _names_of(dataset: Any, file: RasterJob, sensor: str) -> list[str | None]:
    """Return the name of each band, None for a band that is not wanted.

    Raises:
        BadScene: The file has another number of bands than names, or no usable names.
    """
    colors = [color.name for color in dataset.colorinterp]
    if file.bands is None:
        return band_names(
            dataset.descriptions,
            colors,
            file.display_name,
            sensor=sensor,
            path=file.display_name,
            tags=dataset.tags(),
        )
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


def align_layers(stack: ExitStack, layers: list[Layer]) -> Grid:
    """Return the finest grid, and replace the `view` of every layer on another grid by a resampled one.

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


def read_layers(layers: list[Layer], window: Window) -> tuple[UInt16, Bool]:
    """Return canonical digital numbers `(band, row, col)`, 0 where any band has no data, and the valid pixels."""
    parts: list[UInt16] = []
    valid = np.ones((window.height, window.width), bool)
    floats_at_zero = np.ones((window.height, window.width), bool)
    for layer in layers:
        raw = read_window(layer.view, layer.indexes, window, layer.job.display_name)
        bands = [to_canonical(dn, scale) for dn, scale in zip(raw, layer.scales, strict=True)]
        band_valid = np.stack([each for _, each in bands])
        # In 8 bits 0 is also black: such a pixel is invalid only where every band is 0.
        valid &= band_valid.any(axis=0) if raw.dtype == np.uint8 else band_valid.all(axis=0)
        if layer.alpha is not None:
            valid &= read_window(layer.view, layer.alpha, window, layer.job.display_name) > 0
        if layer.masked and layer.warped is None and layer.resampled is None:
            valid &= layer.view.read_masks(layer.indexes[0], window=rasterio_window(window)) > 0
        # Reflectance products in floating point have 0 in every band at their margins and no nodata value.
        floats_at_zero &= (raw == 0).all(axis=0) if raw.dtype.kind == "f" else False
        parts += [dn for dn, _ in bands]
    valid &= ~floats_at_zero
    return np.stack(parts) * valid, valid
