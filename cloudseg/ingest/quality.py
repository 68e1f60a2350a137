"""Quality layers of products: which pixels they state as not observed.

Clouds in them are not looked at: this service finds clouds itself. Runs in the sandboxed decoder process.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rasterio.enums import Resampling

from cloudseg.errors import BadScene
from cloudseg.grid import Window
from cloudseg.ingest.candidate import QualityKind
from cloudseg.ingest.georeference import Grid, same_extent, same_grid, to_grid, to_north_up
from cloudseg.ingest.job import QualityJob, SceneJob
from cloudseg.ingest.untrusted import open_untrusted, read_window

Bool = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]

_UDM_MISSING: Final = 0b0111_1101
"""Bits of Planet's unusable data mask but for its cloud bit (1) and the unused one (7)."""

UNUSABLE: Final[dict[QualityKind, Callable[[Values], Bool]]] = {
    # USGS LSDS-1619, Landsat 8-9 Collection 2 Level 2 Science Product Guide, QA_PIXEL: bit 0 is fill.
    "landsat_qa_pixel": lambda values: (values & 1) == 1,
    # NASA HLS User Guide 2.0, Fmask: 255 is fill.
    "hls_fmask": lambda values: values == 255,
    # Planet, UDM 2 specification, band 8 (the unusable data mask, UDM): bit 0 black fill, bits 2 to 6 missing or
    # suspect pixels of a band.
    "planet_udm2": lambda values: (values & _UDM_MISSING) != 0,
    # ESA, Sentinel-2 Level-2A scene classification: 0 no data, 1 saturated or defective.
    "sentinel2_scl": lambda values: values <= 1,
}
"""Whether a value states that the pixel was not observed."""

_BANDS: Final[dict[QualityKind, dict[int, int]]] = {"planet_udm2": {1: 1, 8: 8}}
"""Band with the flags by the number of bands, where it is not the first of one: UDM2 has 8 bands, the older UDM one."""
_TITLES: Final[dict[QualityKind, str]] = {
    "landsat_qa_pixel": "QA_PIXEL fill",
    "hls_fmask": "Fmask fill",
    "planet_udm2": "UDM unusable",
    "sentinel2_scl": "SCL no data and defective",
}


@dataclass(frozen=True)
class QualityLayer:
    """An open quality layer on the grid of its scene."""

    job: QualityJob
    view: Any
    index: int
    """Band with the flags, from 1."""
    alpha: int | None
    """Band of `view` that is 0 outside of the layer; None where it covers the whole scene."""

    @property
    def title(self) -> str:
        """What the layer states, for the scene's tags."""
        return _TITLES[self.job.kind]

    def read(self, window: Window) -> Bool:
        """Return the pixels `(row, col)` of a window that the layer does not state as unusable.

        Raises:
            BadScene: The file is truncated or corrupt.
        """
        observed = ~UNUSABLE[self.job.kind](read_window(self.view, self.index, window, self.job.display_name))
        if self.alpha is not None:
            # Half a coarse pixel at the border, for which the layer says nothing.
            observed |= read_window(self.view, self.alpha, window, self.job.display_name) == 0
        return observed


def open_quality(stack: ExitStack, job: SceneJob, layer: QualityJob, grid: Grid) -> QualityLayer:
    """Open a quality layer on the grid of its scene; pixels of another size are taken over by nearest neighbor.

    Args:
        stack: Closes the file.
        job: The scene's limits.
        layer: The private copy.
        grid: The grid of the scene.

    Raises:
        BadScene: The file is not such a layer, or it does not cover the extent of the scene.
    """
    opened = open_untrusted(layer.path, layer.display_name, max_pixels=job.max_pixels, memory_mb=job.memory_mb)
    dataset = stack.enter_context(opened)
    index = _BANDS.get(layer.kind, {1: 1}).get(dataset.count)
    if index is None or np.dtype(dataset.dtypes[0]).kind not in "iu":
        raise BadScene(
            "the quality layer does not have the bands of its kind",
            subject=layer.display_name,
            found=f"{dataset.count} bands, {dataset.dtypes[0]}",
            expected=f"{layer.kind}: integers, {' or '.join(map(str, _BANDS.get(layer.kind, {1: 1})))} bands",
            next_step="Get the file again from its source, or leave it out if the scene is complete without it.",
        )
    view, own, _ = to_north_up(
        dataset, layer.display_name, needs_georeference=job.needs_georeference, max_pixels=job.max_pixels
    )
    if view is not dataset:
        stack.enter_context(view)
    if same_grid(grid, own):
        return QualityLayer(layer, view, index, _added(dataset, view))
    if not same_extent(*sorted((grid, own), key=lambda each: abs(each.transform.a))):
        raise BadScene(
            "the quality layer has another extent than its scene",
            subject=layer.display_name,
            found=f"{own.height} x {own.width} pixels, {str(own.crs_text())[:40]} {list(own.transform)[:6]}"[:200],
            expected=f"{grid.height} x {grid.width} pixels, {str(grid.crs_text())[:40]} {list(grid.transform)[:6]}"[
                :200
            ],
            next_step="Use the layer of the same product, or leave it out.",
        )
    aligned = stack.enter_context(to_grid(view, grid, Resampling.nearest))
    return QualityLayer(layer, aligned, index, _added(dataset, aligned))


def _added(dataset: Any, view: Any) -> int | None:
    """Return the index of the alpha band that warping has added, if it has."""
    return int(view.count) if view.count > dataset.count else None
