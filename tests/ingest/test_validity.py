"""Masks, alpha bands, black margins and fill values: what of a raster was observed."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.transform import Affine, from_origin

from cloudseg.errors import BadScene
from tests.ingest.decoding import decode, valid
from tests.ingest.tiles import SIZE, UTM, random_dn, write

SOUTH_UP = Affine(10, 0, 500_000, 0, 10, 5_599_520)
ROTATED = UTM @ Affine.rotation(30)
LEFT = np.arange(SIZE)[np.newaxis, :].repeat(SIZE, axis=0) < 12
"""A quarter of the raster: its first 12 columns."""


def _mask(path: Path, observed: np.ndarray, **more: object) -> None:
    """Write a mask beside a raster."""
    pixels = np.atleast_3d(observed.T).T.astype(np.uint8) * 255
    write(path.with_name(f"{path.name}.msk"), pixels, names=None, crs=None, transform=None, **more)  # type: ignore[arg-type]


def _with_internal_mask(path: Path, observed: np.ndarray) -> Path:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(observed.astype(np.uint8) * 255)
    return path


@pytest.mark.parametrize("compress", [None, "deflate"])
def test_black_in_all_three_bands_of_8_bits_was_not_observed(tmp_path: Path, compress: str | None) -> None:
    pixels = random_dn(dtype="uint8", low=20, high=250)
    pixels[0, 20:] = 0  # black in one band is a color
    pixels[:, LEFT] = 0
    path = write(tmp_path / "tci.tif", pixels, names=None, photometric="RGB", compress=compress)
    facts, canonical = decode(tmp_path, path)
    assert np.array_equal(valid(canonical), ~LEFT)
    assert facts.valid_fraction == 0.75


@pytest.mark.parametrize("quality", [75, 90])
def test_a_black_margin_stays_one_after_lossy_compression(tmp_path: Path, quality: int) -> None:
    rows, cols = np.mgrid[:1200, :1200]
    image = 90 + 60 * np.sin(rows / 17) * np.cos(cols / 23)  # JPEG is meant for smooth images
    pixels = np.stack([image, image + 10, image + 20]).astype(np.uint8)
    wedge = cols + rows / 3 < 500
    pixels[:, wedge] = 0
    path = write(tmp_path / "tci.tif", pixels, names=None, photometric="YCBCR", compress="JPEG", jpeg_quality=quality)
    found = valid(decode(tmp_path, path)[1])
    assert found[~wedge].all()
    assert found[wedge].mean() < 0.01
    with rasterio.open(path) as dataset:
        assert (dataset.read()[:, wedge].max(axis=0) > 0).mean() > 0.02  # the values themselves do not tell


def test_dark_sea_is_not_a_black_margin(tmp_path: Path) -> None:
    pixels = random_dn(3, 256, low=1, high=12, dtype="uint8")
    pixels[:, 100:, :] += 60
    path = write(tmp_path / "sea.tif", pixels, names=None, photometric="RGB")
    assert valid(decode(tmp_path, path)[1]).all()


def test_dark_sea_beside_a_black_margin_stays_without_lossy_compression(tmp_path: Path) -> None:
    pixels = random_dn(3, low=1, high=12, dtype="uint8")
    pixels[:, LEFT] = 0
    path = write(tmp_path / "sea.tif", pixels, names=None, photometric="RGB", compress="deflate")
    assert np.array_equal(valid(decode(tmp_path, path)[1]), ~LEFT)


def test_8_bits_with_another_nodata_value_may_be_black(tmp_path: Path) -> None:
    pixels = random_dn(dtype="uint8", low=20, high=250)
    pixels[:, LEFT] = 0
    pixels[:, 40:] = 255
    path = write(tmp_path / "tci.tif", pixels, names=None, photometric="RGB", nodata=255)
    found = valid(decode(tmp_path, path)[1])
    assert found[:40].all()
    assert not found[40:].any()


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("int16", -9999), ("uint16", 65535), ("float32", -1.0), ("float32", float("nan"))]
)
def test_zero_is_an_observation_where_the_file_declares_another_value(
    tmp_path: Path, dtype: str, nodata: float
) -> None:
    pixels = random_dn().astype(dtype)
    if dtype == "float32":
        pixels /= 10_000
    pixels[:, LEFT] = nodata
    pixels[:, 30:, 20:] = 0
    found = valid(decode(tmp_path, write(tmp_path / "a.tif", pixels, nodata=nodata))[1])
    assert np.array_equal(found, ~LEFT)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
def test_undeclared_zero_is_fill_in_every_band_at_once(tmp_path: Path, dtype: str) -> None:
    pixels = random_dn().astype(dtype)
    if dtype == "float32":
        pixels /= 10_000
    pixels[:, LEFT] = 0
    pixels[0, 30:] = 0
    whole, _ = decode(tmp_path, write(tmp_path / "a.tif", pixels))
    assert whole.valid_fraction == 0.75
    files = [write(tmp_path / f"{band}.tif", pixels[[band]], names=None) for band in range(3)]
    split, _ = decode(tmp_path, *files, bands=[["red"], ["green"], ["blue"]])
    assert split.valid_fraction == 0.75


def test_the_fill_of_a_product_is_one_in_any_band(tmp_path: Path) -> None:
    pixels = random_dn()
    pixels[1, LEFT] = 0
    path = write(tmp_path / "a.tif", pixels)
    assert decode(tmp_path, path, radiometry=(1e-4, 0.0, 0, "product", False))[0].valid_fraction == 0.75
    assert decode(tmp_path, path)[0].valid_fraction == 1


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("transform", [UTM, SOUTH_UP])
def test_masks_apply_to_rasters_that_are_north_up_or_turned(tmp_path: Path, transform: Affine, *, inside: bool) -> None:
    path = write(tmp_path / "a.tif", random_dn(), transform=transform)
    if inside:
        _with_internal_mask(path, ~LEFT)
    else:
        _mask(path, ~LEFT)
    facts, canonical = decode(tmp_path, path)
    assert np.array_equal(valid(canonical), ~LEFT)
    assert facts.tags["validity"] == ("internal mask" if inside else "mask beside the file")


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("how", ["rotated", "points"])
def test_masks_are_warped_with_their_raster(tmp_path: Path, how: str, *, inside: bool) -> None:
    pixels = random_dn()
    georeference: dict[str, object] = {"transform": ROTATED}
    if how == "points":
        corners = ((0, 0), (0, SIZE), (SIZE, 0), (SIZE, SIZE))
        georeference = {
            "transform": None,
            "gcps": [GroundControlPoint(row, col, *(ROTATED @ (col, row))) for row, col in corners],
        }
    bare = write(tmp_path / "bare.tif", pixels, **georeference)  # type: ignore[arg-type]
    nodata = pixels.copy()
    nodata[:, LEFT] = 65535
    expected = valid(decode(tmp_path, write(tmp_path / "nodata.tif", nodata, nodata=65535, **georeference))[1])  # type: ignore[arg-type]
    if inside:
        _with_internal_mask(bare, ~LEFT)
    else:
        _mask(bare, ~LEFT)
    found = valid(decode(tmp_path, bare)[1])
    assert 0.2 < found.mean() < 0.6
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("inside", [True, False])
def test_masks_of_a_coarse_band_are_resampled(tmp_path: Path, *, inside: bool) -> None:
    fine = [write(tmp_path / f"{band}.tif", random_dn(1, seed=band), names=None) for band in range(2)]
    observed = ~LEFT[::2, ::2]
    pixels = random_dn(1, SIZE // 2)
    pixels[:, ~observed] = 60_000  # what a mask hides must not shine through at its edge
    coarse = write(tmp_path / "coarse.tif", pixels, names=None, transform=from_origin(500_000, 5_600_000, 20, 20))
    if inside:
        _with_internal_mask(coarse, observed)
    else:
        _mask(coarse, observed)
    _, canonical = decode(tmp_path, *fine, coarse, bands=[["red"], ["green"], ["blue"]])
    found = valid(canonical)
    assert not found[:, :12].any()
    assert found[:, 14:].all()
    assert canonical[2].max() < 10_000


def test_a_mask_of_every_band_beside_the_raster(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", random_dn(4), names=("red", "green", "blue", "cloudy"))
    masks = np.ones((4, SIZE, SIZE), bool)
    masks[1, :10] = False
    masks[3] = False  # of a band that is not wanted
    _mask(path, masks)
    assert np.array_equal(valid(decode(tmp_path, path)[1])[:, 0], np.arange(SIZE) >= 10)


def test_a_mask_that_does_not_fit_refuses_the_scene(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", random_dn())
    _mask(path, np.ones((SIZE - 1, SIZE), bool))
    with pytest.raises(BadScene, match="does not fit"):
        decode(tmp_path, path)
    path.with_name("a.tif.msk").write_bytes(b"no mask")
    with pytest.raises(BadScene, match="not a supported raster") as error:
        decode(tmp_path, path)
    assert error.value.subject == "a.tif.msk"


def _rgba(path: Path, alpha: np.ndarray, dtype: str = "uint8", **more: object) -> Path:
    high = 250 if dtype == "uint8" else 9000
    pixels = np.concatenate([random_dn(3, low=20, high=high, dtype=dtype), alpha[np.newaxis].astype(dtype)])
    path = write(path, pixels, names=None, photometric="RGB", alpha="YES", **more)  # type: ignore[arg-type]
    with rasterio.open(path) as dataset:
        assert dataset.colorinterp[3] == ColorInterp.alpha
    return path


@pytest.mark.parametrize(("dtype", "opaque"), [("uint8", 255), ("uint16", 65535), ("uint16", 255), ("uint16", 1)])
def test_an_alpha_band_of_few_values_is_one(tmp_path: Path, dtype: str, opaque: int) -> None:
    facts, canonical = decode(tmp_path, _rgba(tmp_path / "a.tif", ~LEFT * opaque, dtype))
    assert np.array_equal(valid(canonical), ~LEFT)
    assert facts.tags["validity"] == "alpha band"


@pytest.mark.parametrize("transform", [UTM, SOUTH_UP])
def test_an_image_that_is_tagged_alpha_hides_nothing(tmp_path: Path, transform: Affine) -> None:
    image = random_dn(1, low=0, high=200)[0]
    image[LEFT] = 0  # near infrared over water
    facts, canonical = decode(tmp_path, _rgba(tmp_path / "a.tif", image, transform=transform))
    assert facts.bands == ["red", "green", "blue"]
    assert valid(canonical).all()
    assert facts.tags["validity"] == "band 4 is tagged alpha but not used as such"


def test_a_wide_soft_edge_is_transparency(tmp_path: Path) -> None:
    cols = np.arange(SIZE)[np.newaxis, :].repeat(SIZE, axis=0)
    alpha = np.clip((cols - 11) * 32, 0, 255)  # transparent in LEFT, 7 of 48 columns in between
    facts, canonical = decode(tmp_path, _rgba(tmp_path / "drone.tif", alpha))
    assert np.array_equal(valid(canonical), cols > 11)
    assert facts.tags["validity"] == "alpha band"


def test_names_of_bands_overrule_a_tag_of_alpha(tmp_path: Path) -> None:
    path = _rgba(tmp_path / "a.tif", ~LEFT * 255)
    assert decode(tmp_path, path)[0].valid_fraction == 0.75
    assert decode(tmp_path, path, bands=[["red", "green", "blue"]])[0].valid_fraction == 0.75
    assert decode(tmp_path, path, bands=[["red", "green", "blue", None]])[0].valid_fraction == 1
    wide = _rgba(tmp_path / "b.tif", random_dn(1)[0], "uint16", transform=SOUTH_UP)
    facts, canonical = decode(tmp_path, wide, bands=[["red", "green", "blue", "nir"]])
    assert facts.valid_fraction == 1
    assert np.array_equal(canonical[3], random_dn(1)[0][::-1])
