"""xarray in, xarray out: the same mask as of the array, on the same coordinates."""

from pathlib import Path

import numpy as np
import odc.geo.xr  # noqa: F401 - the accessor `.odc`
import pytest
import rasterio
import rioxarray
import xarray as xr
from rasterio.transform import from_origin

import cloudseg
from cloudseg.errors import InputError
from tests.api.conftest import Home
from tests.predict.conftest import make_numbers

BANDS = ["red", "green", "blue", "nir"]


@pytest.fixture
def model(home: Home) -> cloudseg.Model:
    return cloudseg.load(home.weights_file)


@pytest.fixture
def tile(home: Home) -> Path:
    """The tile with the edge of a swath."""
    return home.tiles / "images" / "synthetic_marsh_007.tif"


def expected_of(model: cloudseg.Model, tile: Path) -> cloudseg.Prediction:
    with rasterio.open(tile) as dataset:
        return model.predict(dataset.read(), bands=BANDS, resolution_m=30)


def agrees(found: xr.Dataset, wanted: cloudseg.Prediction) -> bool:
    mask = np.where(wanted.mask == 255, np.nan, wanted.mask.astype("f4"))
    return np.array_equal(found.mask, mask, equal_nan=True) and np.array_equal(
        found.probability, wanted.probability, equal_nan=True
    )


def test_a_file_that_rioxarray_opened(model: cloudseg.Model, tile: Path) -> None:
    wanted = expected_of(model, tile)
    assert set(np.unique(wanted.mask)) == {0, 1, 255}
    with rioxarray.open_rasterio(tile) as opened:  # names, scale, no-data and CRS come with it
        found = model.predict(opened)
        assert agrees(found, wanted)
        assert found.mask.dims == ("y", "x")
        assert found.x.identical(opened.x)
        assert found.y.identical(opened.y)
        assert found.rio.crs == opened.rio.crs
        assert found.rio.transform() == opened.rio.transform()
        assert "band" not in found.coords
    assert found.odc.geobox.crs == found.rio.crs
    with rioxarray.open_rasterio(tile, chunks=64, mask_and_scale=True) as reflectance:  # dask, NaN for no data
        assert agrees(model.predict(reflectance, bands=BANDS), wanted)


def test_no_data_is_nan_in_memory_and_255_in_a_file(model: cloudseg.Model, tile: Path, tmp_path: Path) -> None:
    wanted = expected_of(model, tile)
    with rioxarray.open_rasterio(tile) as opened:
        found = model.predict(opened)
    valid = wanted.mask != 255
    assert float(found.mask.mean()) == pytest.approx(wanted.mask[valid].mean())
    assert float(found.probability.max()) <= 1
    found.mask.rio.to_raster(tmp_path / "mask.tif", dtype="uint8")
    with rasterio.open(tmp_path / "mask.tif") as written:
        assert written.nodata == 255
        assert (written.read(1) == wanted.mask).all()


def test_a_dataset_of_bands_over_time(model: cloudseg.Model) -> None:
    """As odc.stac.load returns it: a variable for each band, `nodata` in the attributes."""
    numbers = np.stack([make_numbers(60, 50, seed=seed) for seed in (1, 2)])
    numbers[1, :, :10] = 0
    axes = {"time": np.array(["2024-05-01", "2024-05-11"], "datetime64[ns]"), "y": 5e6 - 30.0 * np.arange(60)}
    coords = axes | {"x": 4e5 + 30.0 * np.arange(50)}
    cube = xr.Dataset(
        {name: (("time", "y", "x"), numbers[:, index], {"nodata": 0}) for index, name in enumerate(BANDS)},
        coords=coords,
    ).odc.assign_crs("EPSG:32631")
    cube["SCL"] = (("time", "y", "x"), np.zeros((2, 60, 50), np.uint8))
    found = model.predict(cube)
    assert found.mask.dims == ("time", "y", "x")
    assert found.time.identical(cube.time)
    for step in range(2):
        assert agrees(found.isel(time=step), model.predict(numbers[step], bands=BANDS, resolution_m=30))
    assert np.isnan(found.mask[1, :10]).all()
    assert not np.isnan(found.mask[0]).any()


def test_rows_from_south_to_north_give_the_same_mask(model: cloudseg.Model, tile: Path) -> None:
    with rioxarray.open_rasterio(tile) as opened:
        upright, turned = model.predict(opened), model.predict(opened.isel(y=slice(None, None, -1)))
    assert turned.y.identical(upright.y[::-1])
    assert np.array_equal(turned.mask[::-1], upright.mask, equal_nan=True)


def array(**changes: object) -> xr.DataArray:
    made = {"data": make_numbers(20, 20), "dims": ("band", "y", "x"), "coords": {"band": BANDS}} | changes
    return xr.DataArray(**made)


def test_names_of_bands_are_read_from_their_coordinate(model: cloudseg.Model) -> None:
    wanted = model.predict(make_numbers(20, 20), bands=BANDS, resolution_m=30)
    assert agrees(model.predict(array(), resolution_m=30), wanted)
    assert agrees(model.predict(array().transpose("y", "x", "band"), resolution_m=30), wanted)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (array(), "the size of a pixel is unknown"),
        (array(coords={"band": [1, 2, 3, 4]}), r"the model reads nir, red, green.*bands=\["),
        (array(dims=("band", "row", "x")), r"dimension of rows is not known \(found band, row, x.*rename"),
        (array(dims=("channel", "y", "x"), coords={}), "dimension of bands is not known"),
        (
            array(data=make_numbers(20, 20)[None], dims=("tile", "band", "y", "x")),
            r"unexpected dimensions \(found tile",
        ),
        (
            xr.Dataset({"B04": (("y", "x"), np.zeros((4, 4)))}),
            r"no variable has the name of a band \(found B04.*rename",
        ),
    ],
)
def test_what_is_missing_is_named(model: cloudseg.Model, pixels: xr.DataArray | xr.Dataset, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.predict(pixels)


def test_degrees_have_a_size_in_meters(model: cloudseg.Model) -> None:
    """About 30 m at 45°: 0.0003° of longitude are 23.6 m, of latitude 33.4 m, mean 28.5 m."""
    pixels = array(
        coords={"band": BANDS, "y": 45.0 - 0.0003 * np.arange(20), "x": 5 + 0.0003 * np.arange(20)}
    ).odc.assign_crs("EPSG:4326")
    wanted = model.predict(make_numbers(20, 20), bands=BANDS, resolution_m=28.5)
    other = model.predict(make_numbers(20, 20), bands=BANDS, resolution_m=60)
    found = model.predict(pixels)
    assert agrees(found, wanted)
    assert not agrees(found, other)
    assert from_origin(5 - 0.00015, 45 + 0.00015, 0.0003, 0.0003).almost_equals(found.rio.transform(), precision=1e-9)
