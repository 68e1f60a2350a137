"""Data types and numbers of bands that a file may have."""

from pathlib import Path

import numpy as np
import pytest

from cloudseg.grid import Window
from cloudseg.raster.read import open_raster, read_scene
from tests.ingest.conftest import Service
from tests.ingest.tiles import SIZE, random_dn, write


def _read(service: Service, name: str, *bands: str) -> tuple[np.ndarray, np.ndarray]:
    scene = service.scenes()[name]
    with open_raster(service.store.gdal_path(scene.key)) as dataset:
        return read_scene(dataset, Window(0, 0, scene.height, scene.width), bands)


def test_sixteen_bands_of_which_some_have_known_names(service: Service, inbox: Path) -> None:
    names = [
        "B01",
        "B02",
        "B03",
        "B04",
        "B05",
        "B06",
        "B07",
        "B08",
        "B8A",
        "B09",
        "B10",
        "B11",
        "B12",
        "SCL",
        "AOT",
        "WVP",
    ]
    write(inbox / "sixteen.tif", random_dn(16), names=names)
    assert service.ingest(inbox).quarantined == []
    assert len(service.scenes()["sixteen"].bands) == 13
    assert np.array_equal(_read(service, "sixteen", "red", "nir")[0], random_dn(16)[[3, 7]])


def test_sixteen_bands_without_names_are_named_with_the_option(service: Service, inbox: Path) -> None:
    write(inbox / "sixteen.tif", random_dn(16), names=None)
    service.ingest(inbox)
    assert "band names are unknown" in service.quarantine()["sixteen"].what
    service.ingest(inbox, bands=["-", "blue", "green", "red"] + ["-"] * 12)
    assert np.array_equal(_read(service, "sixteen", "red")[0], random_dn(16)[3:4])
    service.ingest(write(inbox / "other.tif", random_dn(16, seed=1), names=None).parent, bands=["red", "green", "blue"])
    assert "unexpected number of bands" in service.quarantine()["other"].what


def test_seventy_bands_are_too_many(service: Service, inbox: Path) -> None:
    write(inbox / "seventy.tif", random_dn(70, 16), names=None)
    service.ingest(inbox)
    assert "too many bands" in service.quarantine()["seventy"].what


@pytest.mark.parametrize("nodata", [-9999, None])
def test_signed_integers_keep_slightly_negative_reflectance_and_drop_fill(
    service: Service, inbox: Path, nodata: int | None
) -> None:
    pixels = random_dn(dtype="int16")
    pixels[:, 0, :] = -120
    pixels[:, :, :12] = -9999
    write(inbox / "signed.tif", pixels, nodata=nodata)
    assert service.ingest(inbox).quarantined == []
    found, valid = _read(service, "signed", "red")
    assert not valid[:, :12].any()
    assert valid[:, 12:].all()
    assert (found[0, 0, 12:] == 1).all()
    assert np.array_equal(found[0, 1:, 12:], pixels[0, 1:, 12:])
    assert service.scenes()["signed"].valid_fraction == pytest.approx(0.75)


@pytest.mark.parametrize("fill", [-9999.0, -3.4e38, float("nan"), float("-inf"), float("inf")])
def test_undeclared_fill_of_floats_is_no_data(service: Service, inbox: Path, fill: float) -> None:
    pixels = random_dn().astype(np.float32) / 10_000
    pixels[:, :, : SIZE // 4] = fill
    write(inbox / "floats.tif", pixels)
    assert service.ingest(inbox).quarantined == []
    assert service.scenes()["floats"].valid_fraction == pytest.approx(0.75)


@pytest.mark.parametrize("dtype", ["uint32", "int32", "complex64", "int8"])
def test_other_data_types_are_refused_with_a_next_step(service: Service, inbox: Path, dtype: str) -> None:
    write(inbox / "other.tif", random_dn(low=1, high=100).astype(dtype))
    service.ingest(inbox)
    entry = service.quarantine()["other"]
    assert (entry.what, entry.found) == ("unsupported data type", dtype)
    assert "uint16" in entry.next_step
