"""Masks of a raster, inside it or beside it, which state the pixels that were observed.

Runs in the sandboxed decoder process.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rasterio.enums import MaskFlags
from rasterio.io import MemoryFile

from cloudseg.errors import BadScene
from cloudseg.grid import Window, iter_windows
from cloudseg.ingest.job import RasterJob, SceneJob
from cloudseg.ingest.untrusted import open_untrusted, rasterio_window, read_window

Bool = npt.NDArray[np.bool_]

_WINDOW: Final = 1024
_OBSERVED: Final = 255
"""Value of a mask that is written here, as GDAL's masks have it (RFC 15)."""


@dataclass(frozen=True)
class Mask:
    """Pixels of a raster that were observed, stated by the raster itself or by a file beside it."""

    view: Any
    """A dataset or warped VRT; for a mask inside a raster the raster itself."""
    indexes: list[int]
    inside: bool
    """Whether it is the mask of the bands `indexes` instead of the bands themselves."""
    display_name: str
    least: int = 1
    """Smallest value of an observed pixel."""

    def read(self, window: Window) -> Bool:
        """Return the observed pixels `(row, col)` of a window.

        Raises:
            BadScene: The file is truncated or corrupt.
        """
        values = read_window(self.view, self.indexes, window, self.display_name, masks=self.inside)
        return np.asarray((values >= self.least).all(axis=0))


def masks_of(stack: ExitStack, dataset: Any, job: SceneJob, file: RasterJob, indexes: list[int]) -> list[Mask]:
    """Return the masks inside a raster and beside it (`.msk`).

    Args:
        stack: Closes the files.
        dataset: The open raster.
        job: The scene's limits.
        file: The private copy.
        indexes: The wanted bands.

    Raises:
        BadScene: The mask beside the raster cannot be read or has another size.
    """
    found = []
    flags = dataset.mask_flag_enums[indexes[0] - 1] if indexes else [MaskFlags.all_valid]
    if not {MaskFlags.all_valid, MaskFlags.alpha, MaskFlags.nodata} & set(flags):
        one_for_all = MaskFlags.per_dataset in flags
        found.append(Mask(dataset, indexes[:1] if one_for_all else indexes, True, file.display_name))
    beside = Path(f"{file.path}.msk")
    if beside.exists():
        found.append(_mask_beside(stack, beside, dataset, job, f"{file.display_name}.msk", indexes))
    return found


def _mask_beside(
    stack: ExitStack, path: Path, dataset: Any, job: SceneJob, display_name: str, indexes: list[int]
) -> Mask:
    """Open a `.msk` file: a GeoTIFF of one band for all bands of the raster, or one for each (GDAL RFC 15)."""
    opened = open_untrusted(str(path), display_name, max_pixels=job.max_pixels, memory_mb=job.memory_mb)
    mask = stack.enter_context(opened)
    if mask.shape != dataset.shape or mask.count not in (1, dataset.count) or set(mask.dtypes) != {"uint8"}:
        raise BadScene(
            "the mask beside the raster does not fit it",
            subject=display_name,
            found=f"{mask.height} x {mask.width} pixels, {mask.count} bands, {mask.dtypes[0]}",
            expected=f"{dataset.height} x {dataset.width} pixels, 1 or {dataset.count} bands, uint8",
            next_step="Make the mask again from this raster, or remove it if the raster is complete without it.",
        )
    return Mask(mask, [1] if mask.count == 1 else indexes, False, display_name)


def copy_of_mask(stack: ExitStack, mask: Mask, raster: Any) -> Mask:
    """Return a mask as a raster with the georeference of its raster, so that it can be warped like it.

    Args:
        stack: Frees its memory.
        mask: On the pixels of the raster.
        raster: The dataset that the mask belongs to.
    """
    memory = stack.enter_context(MemoryFile())
    with _create_like(memory, raster, "uint8", ["observed"]) as out:
        for window in iter_windows(raster.height, raster.width, _WINDOW):
            values = mask.read(window).astype(np.uint8) * np.uint8(_OBSERVED)
            out.write(values, 1, window=rasterio_window(window))
    return replace(mask, view=stack.enter_context(memory.open()), indexes=[1], inside=False, least=_OBSERVED)


def copy_without_alpha(stack: ExitStack, raster: Any, display_name: str) -> Any:
    """Write the bands of a raster without their color interpretation: GDAL would warp by an alpha band that is none."""
    indexes = list(raster.indexes)
    descriptions = [text or "" for text in raster.descriptions]
    memory = stack.enter_context(MemoryFile())
    with _create_like(memory, raster, raster.dtypes[0], descriptions, raster.nodata) as out:
        out.update_tags(**raster.tags())
        for window in iter_windows(raster.height, raster.width, _WINDOW):
            pixels = read_window(raster, indexes, window, display_name)
            out.write(pixels, window=rasterio_window(window))
    return stack.enter_context(memory.open())


def _create_like(
    memory: MemoryFile, raster: Any, dtype: str, descriptions: Sequence[str], nodata: float | None = None
) -> Any:
    """Open a new raster on the pixels of another, with its georeference; compressed, as the process writes no files."""
    points, points_crs = raster.gcps
    by_points = raster.crs is None and points and points_crs
    georeference = (
        {"gcps": points, "crs": points_crs} if by_points else {"crs": raster.crs, "transform": raster.transform}
    )
    dataset = memory.open(
        driver="GTiff",
        height=raster.height,
        width=raster.width,
        count=len(descriptions),
        dtype=dtype,
        nodata=nodata,
        tiled=True,
        compress="ZSTD",
        zstd_level=1,
        photometric="MINISBLACK",
        alpha="NO",
        bigtiff="IF_SAFER",
        **georeference,
    )
    dataset.descriptions = tuple(descriptions)
    return dataset
