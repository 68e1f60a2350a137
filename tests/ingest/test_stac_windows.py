"""Windows of TIFFs that are cut out by range: every kind of file, and files that are damaged or hostile."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from cloudseg.ingest.stac_source.hosts import HostPolicy, Refused
from cloudseg.ingest.stac_source.http_client import HttpClient, HttpOptions
from cloudseg.ingest.stac_source.tiff_file import NoWindow, read_tiff
from cloudseg.ingest.stac_source.tiff_window import cut_windows, write_cut
from cloudseg.ingest.tiff_layout import check_blocks
from tests.ingest.stac_server import StacServer, run_server
from tests.ingest.stac_tiles import LEFT, TOP, box_of_pixels, dn, write_cog

SIDE = 300
"""No multiple of a block, so the last row and column of blocks are not full."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StacServer]:
    with run_server(tmp_path / "www") as running:
        yield running


def client_of(server: StacServer) -> HttpClient:
    return HttpClient(HttpOptions(HostPolicy(private=(server.url.removeprefix("http://"),)), timeout_s=5, attempts=2))


def write(path: Path, **more: Any) -> np.ndarray:
    """Write three bands of noise and return them."""
    pixels = np.stack([dn(band, side=SIDE) for band in range(3)]).astype(more.pop("dtype", "uint16"))
    transform = more.pop("transform", from_origin(LEFT, TOP, 10, 10))
    mask = more.pop("mask", None)
    profile = {"driver": "GTiff", "crs": "EPSG:32631", "transform": transform, "nodata": 7, **more}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", height=SIDE, width=SIDE, count=3, dtype=pixels.dtype, **profile) as out,
    ):
        out.write(pixels)
        out.scales, out.offsets = (0.0001,) * 3, (-0.1,) * 3
        out.descriptions = ("red", "green", "blue")
        if mask is not None:
            out.write_mask(mask)
    return pixels


def cut(server: StacServer, name: str, bbox: list[float], to: Path) -> Any:
    client = client_of(server)
    (found,) = cut_windows([read_tiff(client, client.probe(f"{server.url}/{name}"))], tuple(bbox))  # type: ignore[arg-type]
    write_cut(client, found, to)
    return found.window


TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64}


@pytest.mark.parametrize(
    "profile",
    [
        TILED | {"compress": "deflate", "predictor": 2},
        TILED | {"compress": "lzw", "interleave": "band"},
        TILED | {"compress": "zstd", "BIGTIFF": "YES"},
        TILED | {"compress": "lerc", "MAX_Z_ERROR": 0},
        TILED | {"compress": "jpeg", "dtype": "uint8", "photometric": "ycbcr"},
        TILED | {"compress": None, "ENDIANNESS": "BIG"},
        TILED | {"compress": "deflate", "ENDIANNESS": "BIG", "BIGTIFF": "YES", "interleave": "band"},
        TILED | {"compress": "deflate", "dtype": "float32", "predictor": 3},
        {"compress": "deflate", "blockysize": 32},
        {"compress": None, "blockysize": 7, "interleave": "band"},
        {"driver": "COG", "compress": "deflate", "blocksize": 128},
    ],
    ids=lambda profile: "-".join(str(value) for value in profile.values()),
)
def test_a_window_has_the_pixels_and_the_tags_of_its_file(
    server: StacServer, tmp_path: Path, profile: dict[str, Any]
) -> None:
    write(server.folder / "a.tif", **profile)
    for row, col, height, width in ((100, 70, 40, 100), (250, 250, 200, 200), (0, 0, 20, 20)):
        out = tmp_path / f"{row}.tif"
        window = cut(server, "a.tif", box_of_pixels(row, col, height, width), out)
        with out.open("rb") as handle:
            check_blocks(handle, "cut")
        with rasterio.open(server.folder / "a.tif") as whole, rasterio.open(out) as part:
            rows, cols = window.slices
            assert np.array_equal(part.read(), whole.read()[:, rows, cols])
            assert part.transform == whole.transform @ rasterio.Affine.translation(window.col_off, window.row_off)
            assert (part.crs, part.nodata, part.dtypes) == (whole.crs, whole.nodata, whole.dtypes)
            assert (part.scales, part.offsets, part.descriptions) == (whole.scales, whole.offsets, whole.descriptions)
            assert rows.start <= row + 3
            assert rows.stop >= min(row + height - 3, SIDE)
            assert cols.start <= col + 3
            assert cols.stop >= min(col + width - 3, SIDE)


def test_the_mask_of_a_file_is_cut_with_it(server: StacServer, tmp_path: Path) -> None:
    mask = np.full((SIDE, SIDE), 255, "uint8")
    mask[::3, ::5] = 0
    write(server.folder / "a.tif", compress="deflate", mask=mask, **(TILED | {"nodata": None}))
    window = cut(server, "a.tif", box_of_pixels(100, 70, 40, 100), tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as part:
        assert np.array_equal(part.dataset_mask(), mask[window.slices])


def test_empty_tiles_stay_empty(server: StacServer, tmp_path: Path) -> None:
    with rasterio.open(
        server.folder / "a.tif",
        "w",
        driver="GTiff",
        height=SIDE,
        width=SIDE,
        count=1,
        dtype="uint16",
        nodata=0,
        crs="EPSG:32631",
        transform=from_origin(LEFT, TOP, 10, 10),
        SPARSE_OK=True,
        compress="deflate",
        **TILED,
    ) as out:
        out.write(np.full((1, 64, 64), 5, "uint16"), window=rasterio.windows.Window(64, 64, 64, 64))
    cut(server, "a.tif", box_of_pixels(10, 10, 150, 150), tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as part:
        assert (part.read(1).max(), part.read(1)[64:128, 64:128].min(), part.read(1)[:64].max()) == (5, 5, 0)


def test_windows_of_several_resolutions_are_the_same_ground(server: StacServer) -> None:
    write_cog(server.folder / "a.tif", dn(0, side=512), blockxsize=64, blockysize=64)
    write_cog(server.folder / "b.tif", dn(0, side=256), size=20, blockxsize=96, blockysize=96)
    client = client_of(server)
    files = [read_tiff(client, client.probe(f"{server.url}/{name}.tif")) for name in "ab"]
    fine, coarse = cut_windows(files, tuple(box_of_pixels(70, 200, 30, 30)))  # type: ignore[arg-type]
    for fine_value, coarse_value in zip(
        (fine.window.row_off, fine.window.col_off, fine.window.height, fine.window.width),
        (coarse.window.row_off, coarse.window.col_off, coarse.window.height, coarse.window.width),
        strict=True,
    ):
        assert fine_value == 2 * coarse_value
    assert fine.size < fine.file.remote.size / 2


def test_the_same_window_makes_the_same_bytes(server: StacServer, tmp_path: Path) -> None:
    write(server.folder / "a.tif", compress="deflate", **TILED)
    for name, bbox in (("1", box_of_pixels(100, 70, 40, 30)), ("2", box_of_pixels(98, 68, 44, 34))):
        cut(server, "a.tif", bbox, tmp_path / name)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"transform": from_origin(LEFT, TOP, 10, 10) @ rasterio.Affine.rotation(10)}, "corner"),
        ({"crs": "+proj=laea +lat_0=51 +lon_0=3 +datum=WGS84"}, "EPSG"),
    ],
)
def test_files_without_a_window_are_named(server: StacServer, more: dict[str, Any], why: str) -> None:
    write(server.folder / "a.tif", **(TILED | more))
    client = client_of(server)
    with pytest.raises(NoWindow, match=why):
        read_tiff(client, client.probe(f"{server.url}/a.tif"))


def test_another_format_has_no_window(server: StacServer) -> None:
    (server.folder / "a.jp2").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100))
    client = client_of(server)
    with pytest.raises(NoWindow, match="no TIFF"):
        read_tiff(client, client.probe(f"{server.url}/a.jp2"))


def test_an_area_outside_is_refused(server: StacServer) -> None:
    write(server.folder / "a.tif", **TILED)
    client = client_of(server)
    file = read_tiff(client, client.probe(f"{server.url}/a.tif"))
    for bbox in ((10.0, 10.0, 11.0, 11.0), (3.2, 50.0, 3.3, 50.1)):
        with pytest.raises(Refused):
            cut_windows([file], bbox)


def _directory(entries: list[tuple[int, int, int, int]], following: int = 0) -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", following)


BASE = [(256, 4, 1, 64), (257, 4, 1, 64), (322, 4, 1, 64), (323, 4, 1, 64)]


@pytest.mark.parametrize(
    "content",
    [
        b"II*\0",
        b"II*\0" + struct.pack("<I", 0),
        b"II*\0" + struct.pack("<I", 1 << 31),
        b"II*\0" + struct.pack("<IH", 8, 65535) + bytes(100),
        _directory(BASE, following=8),
        _directory([*BASE, (324, 4, 1, 9), (325, 4, 1, 1 << 31)]),
        _directory([*BASE, (324, 16, 1 << 29, 8), (325, 16, 1 << 29, 8)]),
        _directory([*BASE, (324, 4, 1 << 20, 8), (325, 4, 1, 8)]),
        _directory([(256, 4, 1, 0), (257, 4, 1, 64), (324, 4, 1, 8), (325, 4, 1, 8)]),
        _directory([(256, 4, 1, 1 << 30), (257, 4, 1, 1 << 30), *BASE[2:], (324, 4, 1, 8), (325, 4, 1, 8)]),
        _directory([(257, 4, 1, 64)]),
        _directory([(256, 99, 1, 64), (257, 2, 1, 64)]),
    ],
)
def test_damaged_headers_are_refused(server: StacServer, content: bytes) -> None:
    (server.folder / "a.tif").write_bytes(content + bytes(40))
    client = client_of(server)
    with pytest.raises((Refused, NoWindow)):
        read_tiff(client, client.probe(f"{server.url}/a.tif"))


def test_any_damage_is_refused_or_makes_a_window(server: StacServer, tmp_path: Path) -> None:
    """Bytes of the header at random: an error of ours, or a file that the decoder then judges."""
    write(server.folder / "a.tif", compress="deflate", **TILED)
    good = (server.folder / "a.tif").read_bytes()
    random = np.random.default_rng(5)
    client = client_of(server)
    for _ in range(60):
        damaged = bytearray(good)
        for _ in range(random.integers(1, 6)):
            damaged[int(random.integers(0, 1200))] = int(random.integers(0, 256))
        (server.folder / "b.tif").write_bytes(damaged)
        try:
            file = read_tiff(client, client.probe(f"{server.url}/b.tif"))
            (found,) = cut_windows([file], tuple(box_of_pixels(100, 70, 40, 30)))  # type: ignore[arg-type]
            write_cut(client, found, tmp_path / "out.tif")
        except (Refused, NoWindow):
            pass
