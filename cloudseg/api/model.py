"""A loaded model: masks arrays, xarray objects and files by the code that masks the scenes of the service."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cloudseg.api.device import open_device
from cloudseg.api.find_weights import CatalogWeights, find_weights
from cloudseg.api.grid import PixelGrid, Values
from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA
from cloudseg.raster.cleaning import Cleaning
from cloudseg.raster.thresholds import Threshold, resolve_threshold
from cloudseg.records import PredictFileRecord, Promise
from cloudseg.runtime import read_settings

if TYPE_CHECKING:
    import xarray

    from cloudseg.model.predictor import Predictor

log = logging.getLogger(__name__)
OnProgress = Callable[[int, int], object]
"""Called with the windows that are done and their total."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Mask and probability of an array."""

    mask: NDArray[np.uint8]
    """`(row, col)`: 0 clear, 1 cloud, 255 no data."""
    probability: NDArray[np.float32]
    """`(row, col)` of cloud, 0..1 in steps of 0.004 as published files have it; NaN where there are no data."""
    threshold: float
    """Cloud where `probability >= threshold`."""

    @property
    def cloud_fraction(self) -> float:
        """Cloudy share of the pixels with data; NaN if there is none."""
        valid = int(np.count_nonzero(self.mask != MASK_NO_DATA))
        return int(np.count_nonzero(self.mask == MASK_CLOUD)) / valid if valid else float("nan")


class Model:
    """Weights ready to predict; `cloudseg.load` returns one. Calls from several threads wait for each other's CPUs."""

    def __init__(self, predictor: "Predictor", version: int | None = None, promise: Promise | None = None) -> None:
        """Wrap a predictor.

        Args:
            predictor: holds the weights.
            version: of the weights in the catalog of this home, if they are in it.
            promise: the thresholds that this home chose for them on held-out places, if it did.
        """
        self._predictor, self._promise = predictor, promise
        self.version = version
        """Version in this home, None for weights of elsewhere."""

    @property
    def weights_id(self) -> str:
        """`w-` and 20 hexadecimal digits of the SHA-256 of the weights file."""
        return str(self._predictor.weights_id)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands that the model reads."""
        return self._predictor.meta.bands

    @property
    def optional_bands(self) -> tuple[str, ...]:
        """Those of `bands` that pixels may lack: the model was trained with and without them."""
        return self._predictor.meta.optional_bands

    @property
    def resolution_m(self) -> float | None:
        """Size in meters of the pixels that the net works on; finer ones are averaged. None: any."""
        return self._predictor.meta.working_resolution_m

    @property
    def threshold(self) -> float:
        """Probability from which a pixel is cloud, chosen on the validation places of the training."""
        return self._predictor.meta.threshold

    @property
    def thresholds(self) -> dict[str, float]:
        """Thresholds by name: `balanced`, and `careful` and `generous` where they could be promised for these weights.

        `docs/how-to/thresholds.md` says what each is for. A weights file alone has `balanced` only.
        """
        found = {"careful": self._promise.careful, "generous": self._promise.generous} if self._promise else {}
        return {"balanced": self.threshold} | {name: one.threshold for name, one in found.items() if one is not None}

    def _resolve(self, threshold: Threshold | None) -> float | None:
        return resolve_threshold(threshold, promise=self._promise, own=self.threshold, subject=self.weights_id)

    @property
    def arithmetic(self) -> str:
        """fp32, bf16 or int8: the same pixels give the same bytes in the same arithmetic."""
        return self._predictor.arithmetic

    def __repr__(self) -> str:
        version = "" if self.version is None else f" v{self.version}"
        return f"<cloudseg.Model {self.weights_id}{version}: {', '.join(self.bands)}, {self.arithmetic}>"

    @overload
    def predict(
        self,
        pixels: "xarray.DataArray | xarray.Dataset",
        *,
        bands: Sequence[str] | None = None,
        resolution_m: float | None = None,
        scale: float | None = None,
        offset: float | None = None,
        nodata: float | None = None,
        threshold: Threshold | None = None,
        min_area_m2: float = 0.0,
        min_hole_m2: float = 0.0,
        buffer_m: float = 0.0,
        progress: OnProgress | None = None,
    ) -> "xarray.Dataset": ...

    @overload
    def predict(
        self,
        pixels: ArrayLike,
        *,
        bands: Sequence[str] | None = None,
        resolution_m: float | None = None,
        scale: float | None = None,
        offset: float | None = None,
        nodata: float | None = None,
        threshold: Threshold | None = None,
        min_area_m2: float = 0.0,
        min_hole_m2: float = 0.0,
        buffer_m: float = 0.0,
        progress: OnProgress | None = None,
    ) -> Prediction: ...

    def predict(
        self,
        pixels: Any,
        *,
        bands: Sequence[str] | None = None,
        resolution_m: float | None = None,
        scale: float | None = None,
        offset: float | None = None,
        nodata: float | None = None,
        threshold: Threshold | None = None,
        min_area_m2: float = 0.0,
        min_hole_m2: float = 0.0,
        buffer_m: float = 0.0,
        progress: OnProgress | None = None,
    ) -> "Prediction | xarray.Dataset":
        """Return the mask and the probability of cloud of an array.

        Resampling to the model's resolution, windows with overlap, threshold and no-data are those of published masks:
        the same numbers give the same mask to the pixel as a file, an array or a scene.

        Args:
            pixels: `(band, row, col)`, rows from north to south, of uint8, uint16, int16, float32 or float64; or an
                xarray DataArray with a dimension for bands, or a Dataset with one variable for each band. Those bring
                band names, resolution (from the CRS in `spatial_ref`), scale and no-data value, where they have them;
                a dimension `time` is masked step by step.
            bands: name of each band in order, `-` for one that is not wanted: red, green, blue, nir, swir16 …
                Bands that the model does not read are ignored, but where one has no data the mask has none either.
                Those in `optional_bands` may be left out.
            resolution_m: ground size of a pixel in meters.
            scale: reflectance = number × scale + offset. By default floats are reflectance (0..1), 16-bit numbers
                reflectance × 10 000, 8-bit red, green and blue a true-color image of Sentinel-2.
            offset: the same, by default 0; -0.1 for Sentinel-2 since processing baseline 04.00 (2022).
            nodata: number of pixels without data; NaN always is. By default 0 where every band is 0.
            threshold: probability from which a pixel is cloud, instead of the model's, or its name in `thresholds`.
            min_area_m2: clouds smaller than this become clear.
            min_hole_m2: clear areas smaller than this become cloud, unless no cloud touches them.
            buffer_m: by how many meters clouds are widened, after that. Pixels without data stay such.
            progress: called with the windows that are done and their total.

        Returns:
            A `Prediction`; for xarray a Dataset on the same coordinates with float32 `mask` (0 clear, 1 cloud) and
            `probability` (0..1), NaN where there are no data.

        Raises:
            InputError: shape, data type, band names, resolution or numbers cannot be used; the message says what to
                pass.
            BadWeights: the net's output is not finite.
        """
        cleaning = Cleaning(self._resolve(threshold), min_area_m2, min_hole_m2, buffer_m)
        cleaning.check()
        values = Values(scale, offset, nodata)
        if is_xarray(pixels):
            from cloudseg.api.cube import predict_xarray

            return predict_xarray(self, self._predict_array, pixels, bands, resolution_m, values, cleaning, progress)
        grid = PixelGrid("the array", 0, 0, resolution_m)
        return self._predict_array(np.asarray(pixels), list(bands or ()), grid, values, cleaning, progress)

    def _predict_array(
        self,
        array: NDArray[Any],
        bands: list[str],
        grid: PixelGrid,
        values: Values,
        cleaning: Cleaning,
        progress: OnProgress | None,
    ) -> Prediction:
        """Mask an array `(band, row, col)`; height and width of the grid are those of the array."""
        from cloudseg.api.array_pixels import array_pixels
        from cloudseg.api.grid import check_bands, check_resolution
        from cloudseg.predict.clean import clean_array, ground_of
        from cloudseg.predict.draw import draw_arrays, plan_scene
        from cloudseg.raster.probability import STEPS

        check_bands(bands, self.bands, "the array", optional=self.optional_bands)
        check_resolution(grid.resolution_m, self.resolution_m, "the array")
        source = array_pixels(array, bands, scale=values.scale, offset=values.offset, nodata=values.nodata)
        height, width = source.shape
        grid = replace(grid, height=height, width=width)
        cleaning = cleaning.of_model(self.threshold)
        if cleaning.changes_areas:
            ground_of(grid, cleaning)  # before the work, not after it
        plan = plan_scene(grid, self._predictor, bands=source.names)
        mask, steps, _ = draw_arrays(source.open, grid, self._predictor, plan, on_progress=_counts(progress))
        mask = clean_array(mask, steps, cleaning, grid)
        probability = np.where(steps == MASK_NO_DATA, np.float32(np.nan), steps.astype(np.float32) / np.float32(STEPS))
        return Prediction(mask, probability, self.threshold if cleaning.threshold is None else cleaning.threshold)

    def predict_file(
        self,
        source: str | os.PathLike[str],
        out: str | os.PathLike[str],
        *,
        bands: Sequence[str] | None = None,
        resolution_m: float | None = None,
        probability: str | os.PathLike[str] | None = None,
        threshold: Threshold | None = None,
        min_area_m2: float = 0.0,
        min_hole_m2: float = 0.0,
        buffer_m: float = 0.0,
        progress: OnProgress | None = None,
    ) -> PredictFileRecord:
        """Mask a GeoTIFF or JPEG 2000 file and write a cloud-optimized GeoTIFF, as the service would publish it.

        The file is read by windows: memory does not grow with it. Band names, scale, offset and no-data come from the
        file as at ingest (descriptions, codes, colors, tags, a product id in its name, masks, alpha). It is opened in
        this process, without the sandbox of ingest: use it for files that you would open in QGIS.

        Args:
            source: the file. No virtual format.
            out: of the mask, uint8: 0 clear, 1 cloud, 255 no data; replaced if it exists.
            bands: names in file order, `-` for one that is not wanted, where the file does not name them.
            resolution_m: ground size of a pixel in meters, where the file has no CRS.
            probability: also write the probability here, uint8: value / 250, 255 no data.
            threshold: probability from which a pixel is cloud, instead of the model's, or its name in `thresholds`.
            min_area_m2: clouds smaller than this become clear.
            min_hole_m2: clear areas smaller than this become cloud, unless no cloud touches them.
            buffer_m: by how many meters clouds are widened, after that. Pixels without data stay such.
            progress: called with the windows that are done and their total.

        Raises:
            InputError: the file is missing, lacks a band or a resolution, or `out` cannot be written.
            BadScene: the file is not a usable raster, or its values cannot be reflectance.
            BadWeights: the net's output is not finite.
        """
        from cloudseg.api.file_mask import write_mask
        from cloudseg.api.grid import check_resolution
        from cloudseg.api.user_file import describe_file

        settings = read_settings()
        raster = describe_file(
            Path(source), self.bands, settings, optional=self.optional_bands, bands=bands, resolution_m=resolution_m
        )
        check_resolution(raster.grid.resolution_m, self.resolution_m, raster.grid.scene_id)
        return write_mask(
            self._predictor,
            raster,
            Path(out),
            None if probability is None else Path(probability),
            version=self.version,
            cleaning=Cleaning(self._resolve(threshold), min_area_m2, min_hole_m2, buffer_m).of_model(self.threshold),
            promise=self._promise,
            on_progress=_counts(progress),
        )


def load(weights: str | os.PathLike[str] | None = None) -> Model:
    """Load a model. Torch is imported here, not before, and not for weights that predict in int8.

    Args:
        weights: by default the champion of this home (`CLOUDSEG_HOME`, `CLOUDSEG_CATALOG_URL`); or a weights id
            (`w-…`), a version (`v31`), the path of a weights file, or the address (https, s3, file; http on this
            machine) of published weights or of their STAC item. What an address returns is compared with the checksum
            in the address (`…/models/SHA256/weights.safetensors`, or `#sha256=…` at its end), the parts of an item
            with the checksums in the item.

    Raises:
        SettingsError: torch is not installed.
        NotInCatalog: there is no such row, no champion yet, or no catalog.
        InputError: nothing is called so, or an address has no checksum or another scheme.
        BadWeights: the file cannot be loaded.
        ObjectCorrupt: the bytes do not match their checksum.
        StoreError: the store or the server fails.
    """
    found = find_weights(Path(weights) if isinstance(weights, os.PathLike) else weights)
    device = open_device(read_settings(), predicts=True)
    from cloudseg.model.predictor import open_predictor, predictor_of

    if isinstance(found, CatalogWeights):
        return Model(open_predictor(found.store, found.row, device), found.row.version, found.promise)
    return Model(predictor_of(found.data, found.int8() if found.int8 is not None and device.int8 else None, device))


def is_xarray(pixels: object) -> bool:
    """Return whether it is an xarray object, without importing xarray."""
    return any(
        kind.__module__.partition(".")[0] == "xarray" and kind.__name__ in ("DataArray", "Dataset")
        for kind in type(pixels).__mro__
    )


def _counts(progress: OnProgress | None) -> Any:
    return None if progress is None else lambda step: progress(step.done, step.total)
