"""Cloud-Optimized GeoTIFFs: valid, deterministic, with tags, names and colors."""

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate

from cloudseg.raster import cog
from cloudseg.raster.cog import create_tiled, write_cog

COLORS = {0: (120, 160, 200, 255), 1: (255, 255, 255, 255), 255: (0, 0, 0, 0)}


def _mask(folder: Path, name: str) -> Path:
    classes = np.zeros((1100, 700), np.uint8)
    classes[300:, 200:500] = 1
    classes[:, 600:] = 255
    tiled, out = folder / f"{name}.tiled.tif", folder / f"{name}.tif"
    with create_tiled(
        tiled,
        height=1100,
        width=700,
        count=1,
        dtype="uint8",
        crs="EPSG:32760",
        transform=from_origin(300000, 8200000, 10, 10),
        nodata=255,
        descriptions=["mask"],
        colormap=COLORS,
    ) as dataset:
        dataset.write(classes, 1)
    write_cog(out, tiled, resampling="mode", tags={"CLOUDSEG_THRESHOLD": "0.5", "NAME": "Wölkchen <b>"})
    return out


def test_a_mask_is_a_strictly_valid_cog_with_its_facts(tmp_path: Path) -> None:
    out = _mask(tmp_path, "mask")
    valid, errors, warnings = cog_validate(out, strict=True, quiet=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(out) as dataset:
        assert dataset.tags()["CLOUDSEG_THRESHOLD"] == "0.5"
        assert dataset.tags()["NAME"] == "Wölkchen <b>"
        assert dataset.descriptions == ("mask",)
        assert dataset.nodata == 255
        assert dataset.crs.to_epsg() == 32760
        assert dataset.colormap(1)[1] == (255, 255, 255, 255)
        assert dataset.block_shapes == [(512, 512)]
        assert set(np.unique(dataset.read(1, out_shape=(275, 175)))) == {0, 1, 255}


def test_the_same_pixels_give_the_same_bytes(tmp_path: Path) -> None:
    assert _mask(tmp_path, "one").read_bytes() == _mask(tmp_path, "two").read_bytes()


@pytest.mark.parametrize("resampling", ["mode", "average"])
def test_any_number_of_threads_gives_the_same_bytes(tmp_path: Path, resampling: cog.Resampling) -> None:
    classes = np.random.default_rng(0).integers(0, 250, (1700, 1900)).astype(np.uint8)
    tiled = tmp_path / "tiled.tif"
    with create_tiled(
        tiled,
        height=1700,
        width=1900,
        count=1,
        dtype="uint8",
        crs="EPSG:32760",
        transform=from_origin(300000, 8200000, 10, 10),
        nodata=255,
        descriptions=["mask"],
    ) as dataset:
        dataset.write(classes, 1)
    made = []
    for threads in (1, 2, 5, None):
        write_cog(tmp_path / "out.tif", tiled, resampling=resampling, tags={"NAME": "noise"}, threads=threads)
        made.append((tmp_path / "out.tif").read_bytes())
    assert made[1:] == made[:1] * 3


def test_four_bands_of_reflectance_keep_their_names_and_have_no_alpha(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 9000, (4, 600, 520), dtype=np.uint16)
    names = ("red", "green", "blue", "nir")
    with create_tiled(
        tmp_path / "tiled.tif",
        height=600,
        width=520,
        count=4,
        dtype="uint16",
        crs=None,
        transform=from_origin(0, 0, 1, 1),
        nodata=0,
        descriptions=names,
    ) as dataset:
        dataset.write(pixels)
    write_cog(
        tmp_path / "scene.tif",
        tmp_path / "tiled.tif",
        resampling="average",
        tags={},
        compression="ZSTD",
        predictor=True,
    )
    assert cog_validate(tmp_path / "scene.tif", strict=True, quiet=True)[0]
    with rasterio.open(tmp_path / "scene.tif") as dataset:
        assert dataset.descriptions == names
        assert np.array_equal(dataset.read(), pixels)
        assert dataset.read_masks(4).all()


def _scene(folder: Path, height: int, width: int, *, halve: bool = False) -> AbstractContextManager[cog.CogWriter]:
    """Open `out.tif` in the folder as ingest opens a canonical scene."""
    return cog.create_cog(
        folder / "out.tif",
        folder,
        height=height,
        width=width,
        count=4,
        dtype="uint16",
        crs="EPSG:32631",
        transform=from_origin(500_000, 5_600_000, 10, 10),
        nodata=0,
        descriptions=["red", "green", "blue", "nir"],
        resampling="average",
        tags={"CONTENT": "noise"},
        compression="ZSTD",
        predictor=True,
        halve=halve,
    )


def test_a_raster_that_waits_in_memory_becomes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 9000, (4, 700, 900)).astype(np.uint16)
    made = []
    for most in (cog.IN_MEMORY_BYTES, 0):
        monkeypatch.setattr(cog, "IN_MEMORY_BYTES", most)
        folder = tmp_path / str(most)
        folder.mkdir()
        with _scene(folder, 700, 900) as out:
            out.write(pixels)
        assert (folder / "tiled.tif").exists() == (most == 0)
        made.append((folder / "out.tif").read_bytes())
    assert made[0] == made[1]


@pytest.mark.parametrize(("height", "width"), [(1200, 2048), (2050, 1030)])
def test_overviews_made_meanwhile_are_those_of_gdal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, height: int, width: int
) -> None:
    monkeypatch.setattr(cog, "IN_MEMORY_BYTES", 0)
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 65536, (4, height, width)).astype(np.uint16)
    pixels[:, rng.random((height, width)) < 0.3] = 0
    pixels[:, :600, 500:] = 0
    made = []
    for halve in (True, False):
        folder = tmp_path / str(halve)
        folder.mkdir()
        with _scene(folder, height, width, halve=halve) as out:
            for row in range(0, height, 512):
                rows = min(512, height - row)
                out.write(pixels[:, row : row + rows], window=Window(0, row, width, rows))
        assert (folder / "tiled.tif.ovr").exists() == halve
        made.append((folder / "out.tif").read_bytes())
    if (height, width) == (1200, 2048):  # else GDAL rounds the side of the third overview down, or up
        assert made[0] == made[1]
    for level in (0, 1):
        with rasterio.open(tmp_path / "True" / "out.tif", overview_level=level) as ours:
            overview = ours.read()
        with rasterio.open(tmp_path / "False" / "out.tif", overview_level=level) as theirs:
            assert level or np.array_equal(overview, theirs.read())
        assert overview.shape[1:] == (-(-height // (2 << level)), -(-width // (2 << level)))
    assert cog_validate(tmp_path / "True" / "out.tif", strict=True, quiet=True)[0]


def test_windows_that_an_overview_does_not_fill_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cog, "IN_MEMORY_BYTES", 0)
    with (
        pytest.raises(ValueError, match="even offset"),
        cog.create_cog(
            tmp_path / "out.tif",
            tmp_path,
            height=600,
            width=600,
            count=1,
            dtype="uint16",
            crs="EPSG:32631",
            transform=from_origin(500_000, 5_600_000, 10, 10),
            nodata=0,
            descriptions=["red"],
            resampling="average",
            tags={},
            halve=True,
        ) as out,
    ):
        out.write(np.ones((1, 5, 600), np.uint16), window=Window(0, 0, 600, 5))
    assert not (tmp_path / "out.tif").exists()
