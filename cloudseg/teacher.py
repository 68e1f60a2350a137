"""A second opinion on clouds: ukis-csmask (German Aerospace Center, Apache-2.0), whose nets are in its package.

The extra `teacher`. It is imported when it is opened, never before, and nothing that the gate decides depends on it. A
fixed model beside ours shows what ours cannot: it was trained on other labels (SPARCS and CloudSEN12+), so where both
agree against a label, the label is suspect. Alone it is no reference: pooled IoU 0.70 on 31 Landsat-8 Biome cut-outs,
0.74 on 3 chips of On Cloud N, 0.71 on 21 scenes of the Sentinel-2 catalogue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

import numpy as np
import rasterio

from cloudseg.bands import BLUE, GREEN, MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA, NIR, NO_DATA, RED, REFLECTANCE_SCALE
from cloudseg.errors import SettingsError
from cloudseg.grid import decimation, iter_windows
from cloudseg.raster.read import UInt8, read_scene
from cloudseg.raster.resample import UInt16, downsample, scene_window, working_shape

PACKAGE: Final = "ukis-csmask"
RESOLUTION_M: Final = 30.0
"""Finer scenes are averaged to it: "approximately 30 m" is what its documentation recommends."""
_BANDS: Final = (BLUE, GREEN, RED, NIR)
_CLOUD: Final = 1
"""Its classes: 0 background, 1 cloud, 2 cloud shadow. Shadow is clear here."""
_TILE: Final = 256
"""Pixels along an axis of its own tiles; smaller images are enlarged by mirroring."""
_WINDOW: Final = 1024
"""Working pixels along an axis that are masked at a time."""
_OVERLAP: Final = 64


@dataclass(frozen=True)
class Teacher:
    """The opened model."""

    name: str
    """Package and version, for reports."""
    _open: Any
    _threads: int

    def mask(self, dataset: rasterio.DatasetReader, bands: Sequence[str], resolution_m: float | None) -> UInt8:
        """Return the mask of a scene, uint8 `(row, col)`: 0 clear, 1 cloud, 255 no data.

        Memory: the mask, and about 300 MB for a window.

        Args:
            dataset: a canonical scene.
            bands: of the scene.
            resolution_m: of the scene; None: it is used as it is.

        Raises:
            DataError: the scene lacks red, green or blue.
        """
        factor = decimation(resolution_m, RESOLUTION_M)
        read = [band for band in _BANDS if band in bands or band != NIR]
        found = np.full((dataset.height, dataset.width), MASK_NO_DATA, np.uint8)
        for window in iter_windows(*working_shape(dataset.height, dataset.width, factor), _WINDOW, _OVERLAP):
            target = scene_window(window, factor, dataset.height, dataset.width)
            dn, _ = read_scene(dataset, target, read)
            found[target.slices] = self.mask_pixels(dn, read, resolution_m)
        return found

    def mask_pixels(self, dn: UInt16, bands: Sequence[str], resolution_m: float | None) -> UInt8:
        """Return the mask of canonical digital numbers `(band, row, col)`, as `mask` does.

        Red stands in for near infrared where there is none: that costs 0.07 IoU on the Landsat-8 Biome cut-outs and
        nothing visible on Sentinel-2 (measured).
        """
        factor = decimation(resolution_m, RESOLUTION_M)
        four = dn[[list(bands).index(band if band in bands else RED) for band in _BANDS]]
        classes = self._classify(downsample(four, factor)[0])
        fine = classes.repeat(factor, axis=0).repeat(factor, axis=1)[: dn.shape[1], : dn.shape[2]]
        return np.where(np.all(four != NO_DATA, axis=0), fine, np.uint8(MASK_NO_DATA))

    def _classify(self, dn: UInt16) -> UInt8:
        """Return 0 and 1 for canonical digital numbers `(band, row, col)` in the order of `_BANDS`."""
        height, width = dn.shape[1:]
        padding = ((0, 0), (0, max(0, _TILE - height)), (0, max(0, _TILE - width)))
        image = np.pad(dn, padding, mode="symmetric").transpose(1, 2, 0).astype(np.float32) / REFLECTANCE_SCALE
        found = self._open(
            image, list(_BANDS), product_level="l1c", nodata_value=0, intra_op_num_threads=self._threads
        ).csm[:height, :width, 0]
        return np.where(found == _CLOUD, np.uint8(MASK_CLOUD), np.uint8(MASK_CLEAR))


def open_teacher(threads: int = 0) -> Teacher:
    """Import the model.

    Args:
        threads: of its arithmetic; 0: as onnxruntime chooses.

    Raises:
        SettingsError: the extra is not installed.
    """
    try:
        model = import_module("ukis_csmask.mask").CSmask
    except ImportError as error:
        raise SettingsError(
            "the second opinion needs ukis-csmask",
            subject=PACKAGE,
            found=f"not installed ({type(error).__name__}: {str(error).splitlines()[0]})",
            next_step="Install the extra: pip install 'cloudseg[teacher]' (158 MB).",
        ) from error
    return Teacher(f"{PACKAGE} {version(PACKAGE)}", model, threads)
