"""No block of a file is decoded twice: what was decoded is still there after the file is gone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio

from cloudseg.api.user_file import describe_file
from cloudseg.grid import Window
from cloudseg.ingest import block_cache
from cloudseg.ingest.block_cache import room_for_blocks
from cloudseg.runtime import read_settings
from tests.ingest.tiles import random_dn, write

RGB = ("red", "green", "blue")
SIDE = 256


@pytest.fixture(autouse=True)
def cache_afterwards() -> Iterator[None]:
    """GDAL has one cache for the process; the outermost environment gives it back the size that it found."""
    yield
    with rasterio.Env(), rasterio.Env(GDAL_CACHEMAX=64 << 20):
        pass


def destroy(path: Path) -> None:
    """Overwrite all bytes of a file that is open."""
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))


@pytest.mark.parametrize("least_mb", [64, 0])
def test_the_blocks_of_a_row_stay_for_the_windows_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least_mb: int
) -> None:
    """A strip of the user's file ends within a block of JPEG 2000; the next one needs the same blocks."""
    monkeypatch.setattr(block_cache, "_LEAST_MB", least_mb)
    dn = random_dn(4, 4 * SIDE)[:, :SIDE]
    options = {"driver": "JP2OpenJPEG", "quality": 100, "reversible": "YES"}
    path = write(tmp_path / "tile.jp2", dn, names=None, blockxsize=SIDE, blockysize=SIDE, **options)
    file = describe_file(path, RGB, read_settings(), bands=("red", "green", "blue", "nir"), resolution_m=10)
    with file.open() as read:
        read(Window(0, 0, 128, 4 * SIDE), RGB)
        destroy(path)
        below = read(Window(128, 0, 128, 4 * SIDE), RGB)
    np.testing.assert_array_equal(below, dn[:3, 128:])


def cache_bytes(path: Path, rows: int, cols: int, memory_mb: int = 3072) -> int:
    with rasterio.open(path) as dataset:
        return int(room_for_blocks([dataset, dataset], rows, cols, memory_mb).options["GDAL_CACHEMAX"])


def test_the_cache_is_as_large_as_what_windows_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_cache, "_LEAST_MB", 0)
    path = write(tmp_path / "tiled.tif", random_dn(3, 700), tiled=True, blockxsize=SIDE, blockysize=SIDE)
    block = 2 * SIDE * SIDE * 3 * np.dtype(np.uint16).itemsize  # of both files
    assert cache_bytes(path, 512, 512) == 1.25 * block * 4  # windows of whole blocks: those of one window
    assert cache_bytes(path, 128, 700) == 1.25 * block * 3  # half a block high: a row of blocks
    assert cache_bytes(path, 300, 300) == 1.25 * block * 3 * 3  # across three rows of blocks at most
    assert cache_bytes(path, 300, 300, memory_mb=4) == 1 << 20  # and never more than a quarter of the memory


def test_the_cache_has_at_least_the_size_of_the_service(tmp_path: Path) -> None:
    assert cache_bytes(write(tmp_path / "small.tif", random_dn(3, 64)), 64, 64) == 64 << 20
