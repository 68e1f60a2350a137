"""The open raster files of a scene, on one grid: band names, scales, validity and pixels of each.

Runs in the sandboxed decoder process.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import Resampling

from cloudseg.bands import RGB
from cloudseg.errors import BadScene
from cloudseg.grid import Window
from cloudseg.ingest.alpha import is_alpha, is_lossy, least_opaque
from cloudseg.ingest.band_codes import band_names
from cloudseg.ingest.black import black_margin
from cloudseg.ingest.georeference import Grid, same_extent, same_grid, to_grid, to_north_up
from cloudseg.ingest.job import RasterJob, SceneJob
from cloudseg.ingest.pam import PamBand, read_pam
from cloudseg.ingest.product_scale import product_scale
from cloudseg.ingest.quality import QualityLayer
from cloudseg.ingest.radiometry import BandScale, band_scale, to_canonical
from cloudseg.ingest.sensor_hints import is_sentinel2
from cloudseg.ingest.untrusted import check_pixels, open_untrusted, read_window
from cloudseg.ingest.validity import Mask, copy_of_mask, copy_without_alpha, masks_of

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
    warped: str | None
    """How the file was warped north-up."""
    resampled: str | None = None
    """How the file was resampled to the finest grid."""
    alpha: int | None = None
    """Index of the alpha band of `view`."""
    lossy: bool = False
    """Whether the pixels were compressed with loss."""
    least_alpha: int = 1
    """Smallest value of alpha that counts as observed."""
    masks: list[Mask] = field(default_factory=list)
    """On the grid of `view`."""
    dataset: Any = None
    """The file that `view` shows, on its own pixels."""
    nodata: float | None = None
    """The nodata value that a sidecar states for the first band; None where it states none."""
    validity: list[str] = field(default_factory=list)
    """What stated where pixels were observed, besides nodata values, for the scene's tags."""


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
    original = dataset = stack.enter_context(opened)
    check_pixels(dataset, file.display_name)
    pam = read_pam(Path(f"{file.path}.aux.xml"), f"{file.display_name}.aux.xml", dataset.count)
    colors = [_pam(pam, index).color or color.name for index, color in enumerate(dataset.colorinterp, 1)]
    names = _names_of(dataset, file, job.sensor, pam, colors)
    alpha, image_alpha = _alpha_band(dataset, file, names, colors)
    if image_alpha and (len(job.files) > 1 or _needs_warp(dataset)):
        dataset = copy_without_alpha(stack, dataset, file.display_name)
    nodata = next((band.nodata for band in pam.values() if band.nodata is not None), None)
    view, grid, warped = to_north_up(
        dataset,
        file.display_name,
        needs_georeference=job.needs_georeference,
        max_pixels=job.max_pixels,
        nodata=nodata,
        georeference_beside=", ".join(file.georeference_beside),
    )
    wanted = [(index, name) for index, name in enumerate(names, 1) if name]
    layer = Layer(
        job=file,
        view=view,
        grid=grid,
        names=[name for _, name in wanted],
        indexes=[index for index, _ in wanted],
        scales=[_scale_of(original, file, index, name, _pam(pam, index), job.sensor) for index, name in wanted],
        striped=dataset.block_shapes[0][1] == dataset.width,
        warped=warped,
        alpha=alpha,
        lossy=is_lossy(original),
        least_alpha=least_opaque(original),
        masks=masks_of(stack, original, job, file, [index for index, _ in wanted]),
        dataset=dataset,
        nodata=nodata,
    )
    layer.validity = _stated_by(layer, pam, image_alpha)
    if view is not dataset:
        stack.enter_context(view)
        layer.alpha = alpha or _added_alpha(dataset, view)
        layer.masks = [_warped_mask(stack, job, layer, mask, index) for index, mask in enumerate(layer.masks)]
    return layer


def _pam(pam: dict[int, PamBand], index: int) -> PamBand:
    return pam.get(index, PamBand())


def _scale_of(dataset: Any, file: RasterJob, index: int, name: str, stated: PamBand, sensor: str) -> BandScale:
    """Return the scale of a band; what a sidecar states comes before what the file states, as in GDAL."""
    scale, offset, nodata = dataset.scales[index - 1], dataset.offsets[index - 1], dataset.nodatavals[index - 1]
    return band_scale(
        name,
        dataset.dtypes[index - 1],
        product_scale(dataset, index, file.known_radiometry(), sensor, file.display_name),
        (scale if stated.scale is None else stated.scale, offset if stated.offset is None else stated.offset),
        nodata if stated.nodata is None else stated.nodata,
        file.display_name,
        source=dataset.tags().get("SOURCE", ""),
        may_have_offset=is_sentinel2(file.display_name, dataset.tags()),
    )


def _alpha_band(
    dataset: Any, file: RasterJob, names: list[str | None], colors: list[str]
) -> tuple[int | None, int | None]:
    """Return the index of the alpha band, and of a band that is tagged alpha and is none.

    None where there is none. A band with a name, from `--bands` or its description, is an image; so is one that
    `--bands` leaves out by name (`-`).
    """
    index = next((index for index, color in enumerate(colors, 1) if color == "alpha"), None)
    if index is None:
        return None, None
    left_out = any(
        len(given) >= index for given in (file.bands or (), *file.other_bands) if len(given) == dataset.count
    )
    if names[index - 1] or left_out or not is_alpha(dataset, index, file.display_name):
        return None, index
    return index, None


def _needs_warp(dataset: Any) -> bool:
    transform = dataset.transform
    return not (transform.b == 0 and transform.d == 0 and transform.a > 0 and transform.e < 0) or bool(dataset.gcps[0])


def _stated_by(layer: Layer, pam: dict[int, PamBand], image_alpha: int | None) -> list[str]:
    """Return what states where pixels were observed, for the scene's tags."""
    found = ["internal mask" if mask.inside else "mask beside the file" for mask in layer.masks]
    found += ["alpha band"] if layer.alpha is not None else []
    found += ["nodata value beside the file"] if any(band.nodata is not None for band in pam.values()) else []
    return found + ([f"band {image_alpha} is tagged alpha but not used as such"] if image_alpha else [])


def _warped_mask(stack: ExitStack, job: SceneJob, layer: Layer, mask: Mask, index: int) -> Mask:
    """Return the mask of a layer that was warped north-up, warped in the same way."""
    copy = copy_of_mask(stack, mask, layer.dataset)
    view, _, _ = to_north_up(
        copy.view, mask.display_name, needs_georeference=job.needs_georeference, max_pixels=job.max_pixels
    )
    return replace(copy, view=stack.enter_context(view))


def _names_of(
    dataset: Any, file: RasterJob, sensor: str, pam: dict[int, PamBand], colors: list[str]
) -> list[str | None]:
    """Return the name of each band, None for a band that is not wanted.

    Raises:
        BadScene: The file has another number of bands than names, or no usable names.
    """
    if file.bands is None:
        descriptions = [_pam(pam, index).description or text for index, text in enumerate(dataset.descriptions, 1)]
        return band_names(
            descriptions, colors, file.display_name, sensor=sensor, path=file.display_name, tags=dataset.tags()
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


def align_layers(stack: ExitStack, job: SceneJob, layers: list[Layer]) -> Grid:
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
        _resample(stack, job, layer, finest)
    return finest


def _resample(stack: ExitStack, job: SceneJob, layer: Layer, grid: Grid) -> None:
    """Replace the view and the masks of a layer by ones on another grid.

    A pixel is observed if all pixels that it is interpolated from are.
    """
    before = layer.view
    layer.view = stack.enter_context(to_grid(before, grid, Resampling.bilinear, layer.nodata))
    layer.grid, layer.alpha = grid, layer.alpha or _added_alpha(before, layer.view)
    for index, mask in enumerate(layer.masks):
        copy = mask
        if before is layer.dataset:
            copy = copy_of_mask(stack, mask, layer.dataset)
        layer.masks[index] = replace(copy, view=stack.enter_context(to_grid(copy.view, grid, Resampling.bilinear)))


def _added_alpha(source: Any, view: Any) -> int | None:
    """Return the index of the alpha band that warping has added, if it has."""
    return int(view.count) if view.count > source.count else None


def _describe_grid(grid: Grid) -> str:
    corner = f"corner {grid.transform.c:.6g} {grid.transform.f:.6g}, pixel {grid.transform.a:.6g}"
    return f"{grid.height} x {grid.width} pixels, {corner}, {str(grid.crs_text())[:40]}"


def read_layers(layers: list[Layer], quality: list[QualityLayer], window: Window) -> tuple[UInt16, Bool]:
    """Return canonical digital numbers `(band, row, col)`, 0 where any band has no data, and the valid pixels."""
    parts: list[UInt16] = []
    shape = window.height, window.width
    valid, all_filled = np.ones(shape, bool), np.ones(shape, bool)
    for layer in layers:
        raw = read_window(layer.view, layer.indexes, window, layer.job.display_name)
        bands = [to_canonical(dn, scale) for dn, scale in zip(raw, layer.scales, strict=True)]
        for _, observed in bands:
            valid &= observed
        for mask in layer.masks:
            valid &= mask.read(window)
        if layer.alpha is not None:
            valid &= read_window(layer.view, layer.alpha, window, layer.job.display_name) >= layer.least_alpha
        if layer.lossy and all(0.0 in scale.shared_fills for scale in layer.scales):
            valid &= ~_black_margin(layer, raw, window)
        for original, scale in zip(raw, layer.scales, strict=True):
            all_filled &= _is_any(original, scale.shared_fills)
        parts += [dn for dn, _ in bands]
    valid &= ~all_filled
    for each in quality:
        valid &= each.read(window)
    dn = np.stack(parts)
    dn *= valid
    return dn, valid


def _is_any(dn: Any, values: Sequence[float]) -> Bool:
    """Return where digital numbers are one of a few values."""
    found = np.zeros(dn.shape, bool)
    for value in values:
        found |= dn == value
    return found


def _black_margin(layer: Layer, raw: Any, window: Window) -> Bool:
    """Return the pixels of a black margin of an 8-bit image; none if red, green and blue are not in one file."""
    if not set(RGB) <= set(layer.names):
        return np.zeros(raw.shape[1:], bool)
    colors = [layer.names.index(name) for name in RGB]

    def read_around(pixels: int) -> tuple[Any, tuple[int, int]]:
        row, col = max(0, window.row_off - pixels), max(0, window.col_off - pixels)
        height = min(layer.grid.height, window.row_off + window.height + pixels) - row
        width = min(layer.grid.width, window.col_off + window.width + pixels) - col
        indexes = [layer.indexes[color] for color in colors]
        around = read_window(layer.view, indexes, Window(row, col, height, width), layer.job.display_name)
        return around, (window.row_off - row, window.col_off - col)

    return black_margin(raw[colors], read_around)
