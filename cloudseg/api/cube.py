"""Mask xarray objects: they say what their bands, grid and no-data are; the result is on their coordinates.

Reads the conventions of rioxarray and odc-geo: a scalar coordinate `spatial_ref` with `crs_wkt`, `_FillValue` or
`nodata`, `scale_factor` and `add_offset` in attributes or encoding, band names in a coordinate or in `long_name`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine

from cloudseg.api.array_pixels import SUBJECT
from cloudseg.api.grid import PixelGrid, Values
from cloudseg.bands import BAND_NAMES, MASK_NO_DATA
from cloudseg.errors import InputError
from cloudseg.ingest.georeference import Grid
from cloudseg.raster.cleaning import Cleaning
from cloudseg.raster.probability import STEPS

if TYPE_CHECKING:
    from cloudseg.api.model import Model, OnProgress, Prediction

_ROWS: Final = ("y", "latitude", "lat", "northing")
_COLS: Final = ("x", "longitude", "lon", "easting")
_BANDS: Final = ("band", "bands", "wavelength", "variable")
_TIME: Final = "time"
_MASK_ATTRS: Final = {
    "long_name": "cloud mask",
    "flag_values": [0, 1],
    "flag_meanings": "clear cloud",
    "comment": "0 clear, 1 cloud, NaN no data",
}
"""Names of the classes as in the CF conventions 1.11, section 3.5."""
_PROBABILITY_ATTRS: Final = {"long_name": "probability of cloud", "units": "1", "valid_min": 0.0, "valid_max": 1.0}


def predict_xarray(
    model: "Model",
    predict: "Callable[..., Prediction]",
    pixels: xr.DataArray | xr.Dataset,
    bands: Sequence[str] | None,
    resolution_m: float | None,
    values: Values,
    cleaning: Cleaning,
    progress: "OnProgress | None",
) -> xr.Dataset:
    """Return mask and probability of an xarray object; the other arguments and errors are those of `Model.predict`.

    `predict` masks an array (`Model._predict_array`).
    """
    array = _band_array(pixels)
    row, col = _dimension(array, _ROWS, "rows"), _dimension(array, _COLS, "columns")
    band = _dimension(array, _BANDS, "bands")
    if extra := [name for name in array.dims if name not in (row, col, band, _TIME)]:
        raise InputError(
            "unexpected dimensions",
            subject=SUBJECT,
            found=", ".join(map(str, extra)),
            expected=f"{band}, {row}, {col}, and {_TIME} if there are several dates",
            next_step="Select one of them: array.isel(NAME=0).",
        )
    names = list(bands) if bands is not None else _band_names(array, band)
    stated_nodata, tagged = _stated(array)
    if _TIME in array.dims:
        steps = [array.isel({_TIME: index}) for index in range(array.sizes[_TIME])]
        if not steps:
            raise InputError("the array has no dates", subject=SUBJECT, expected=f"a {_TIME} of 1 or more")
    else:
        steps = [array]
    masked = []
    for step in steps:
        plane = step.transpose(band, row, col)
        upside_down = _is_ascending(plane, row)
        is_tagged = values.scale is None and values.offset is None
        found = predict(
            np.asarray(plane.values)[:, :: -1 if upside_down else 1],
            names,
            _grid(plane, row, col, resolution_m),
            Values(
                tagged[0] if is_tagged else values.scale,
                tagged[1] if is_tagged else values.offset,
                stated_nodata if values.nodata is None else values.nodata,
            ),
            cleaning,
            progress,
        )
        mask = np.where(found.mask == MASK_NO_DATA, np.float32(np.nan), found.mask.astype(np.float32))
        flip = slice(None, None, -1 if upside_down else 1)
        masked.append(_dataset(plane, row, col, mask[flip], found.probability[flip]))
    result = xr.concat(masked, _TIME, coords="minimal", compat="override") if _TIME in array.dims else masked[0]
    result.attrs = {"cloudseg_weights_id": model.weights_id, "cloudseg_threshold": found.threshold}
    return with_encoding(result)


def with_encoding(dataset: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with names of classes, and the types in which files and netCDF hold its variables."""
    for name, attrs, step in (("mask", _MASK_ATTRS, None), ("probability", _PROBABILITY_ATTRS, 1 / STEPS)):
        variable = dataset[name]
        variable.attrs = {**variable.attrs, **attrs}
        variable.encoding = {"dtype": "uint8", "_FillValue": MASK_NO_DATA} | ({"scale_factor": step} if step else {})
        if "spatial_ref" in dataset.coords:
            variable.encoding["grid_mapping"] = "spatial_ref"
    return dataset


def _band_array(pixels: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Return a DataArray with a dimension for bands; of a Dataset the variables whose names are those of bands."""
    if isinstance(pixels, xr.DataArray):
        return pixels
    names = [str(name) for name in pixels.data_vars if name in BAND_NAMES]
    if not names:
        raise InputError(
            "no variable has the name of a band",
            subject=SUBJECT,
            found=", ".join(map(str, pixels.data_vars)) or "no variables",
            expected=", ".join(BAND_NAMES),
            next_step="Rename them: dataset.rename(B04='red', …).",
        )
    array = pixels[names].to_dataarray("band")
    first = pixels[names[0]]
    # Attributes of the variables are lost in `to_dataarray`; no-data value and scale are the same for all or unusable.
    stated = {name: _stated(pixels[name]) for name in names}
    if len(set(stated.values())) > 1:
        raise InputError(
            "the bands have several scales or no-data values",
            subject=SUBJECT,
            found="; ".join(f"{name}: nodata {value[0]}, scale {value[1]}" for name, value in stated.items()),
            next_step="Convert them to reflectance first, with NaN for no data.",
        )
    array.attrs, array.encoding = dict(first.attrs), dict(first.encoding)
    array.attrs.pop("long_name", None)
    return array


def _dimension(array: xr.DataArray, known: Sequence[str], what: str) -> str:
    found = [str(name) for name in array.dims if str(name).lower() in known]
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"the dimension of {what} is not known",
        subject=SUBJECT,
        found=", ".join(map(str, array.dims)),
        expected=" or ".join(known),
        next_step=f"Rename it: array.rename(NAME={known[0]!r}).",
    )


def _band_names(array: xr.DataArray, band: str) -> list[str]:
    """Return the names that the coordinate of the bands or `long_name` has; none where neither has any."""
    if band in array.coords and array[band].dtype.kind in "UOS":
        return [str(name) for name in array[band].values]
    names = array.attrs.get("long_name")
    return [str(name) for name in names] if isinstance(names, tuple | list) else []


def _stated(array: xr.DataArray) -> tuple[float | None, tuple[float | None, float | None]]:
    """Return the no-data value, and scale and offset that are not applied yet; None where nothing is stated.

    xarray moves `_FillValue`, `scale_factor` and `add_offset` into the encoding when it applies them.
    """
    attrs = array.attrs
    nodata = attrs.get("_FillValue", attrs.get("nodata"))
    scale, offset = attrs.get("scale_factor"), attrs.get("add_offset")
    if (scale, offset) in ((1.0, 0.0), (1.0, None)):
        scale = offset = None
    return (
        float(nodata) if nodata is not None and np.isfinite(nodata) else None,
        (None if scale is None else float(scale), None if offset is None else float(offset)),
    )


def _is_ascending(plane: xr.DataArray, row: str) -> bool:
    return row in plane.coords and plane.sizes[row] > 1 and bool(plane[row].values[0] < plane[row].values[-1])


def _grid(plane: xr.DataArray, row: str, col: str, resolution_m: float | None) -> PixelGrid:
    """Return where the pixels are, from the CRS in `spatial_ref` and the coordinates, as far as they say it."""
    reference = plane.coords.get(str(plane.encoding.get("grid_mapping", "spatial_ref")))
    wkt = None if reference is None else reference.attrs.get("crs_wkt", reference.attrs.get("spatial_ref"))
    if wkt is None or any(name not in plane.coords or plane.sizes[name] < 2 for name in (row, col)):
        return PixelGrid(SUBJECT, plane.sizes[row], plane.sizes[col], resolution_m)
    xs, ys = plane[col].values.astype(float), plane[row].values.astype(float)
    width, height = (abs(values[-1] - values[0]) / (len(values) - 1) for values in (xs, ys))
    corner = Affine(width, 0, xs.min() - width / 2, 0, -height, ys.max() + height / 2)
    found = Grid(CRS.from_wkt(str(wkt)), corner, len(ys), len(xs))
    size = found.resolution_m() if resolution_m is None else resolution_m
    return PixelGrid(SUBJECT, len(ys), len(xs), size, found.crs_text(), list(corner)[:6])


def _dataset(
    plane: xr.DataArray, row: str, col: str, mask: NDArray[np.float32], probability: NDArray[np.float32]
) -> xr.Dataset:
    """Return the Dataset on the coordinates of the array that do not belong to bands."""
    coords = {name: value for name, value in plane.coords.items() if set(value.dims) <= {row, col}}
    variables = {"mask": ((row, col), mask), "probability": ((row, col), probability)}
    return xr.Dataset(variables, coords=coords)
