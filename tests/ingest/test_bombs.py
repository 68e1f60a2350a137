"""Decompression bombs, headers that claim huge sizes, values that are not finite: refused within the limits."""

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from cloudseg.errors import BadScene
from cloudseg.ingest import DecodeLimits, ingest_scene
from cloudseg.ingest.tiff_layout import check_blocks, claimed_bytes
from tests.ingest.conftest import Service
from tests.ingest.tiles import SIZE, clouds, random_dn, write

_LONG, _SHORT, _ASCII = 4, 3, 2


def _tiff(entries: list[tuple[int, int, int, int]], rest: bytes = b"") -> bytes:
    """Return a classic little-endian TIFF.

    8 bytes, one directory of (tag, type, count, value or offset), then `rest`.
    """
    packed = b"".join(
        struct.pack("<HHI", tag, kind, count) + struct.pack("<I", value) for tag, kind, count, value in sorted(entries)
    )
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + packed + struct.pack("<I", 0) + rest


def _claiming(
    width: int, height: int, *, tile: int = 0, bands: int = 3, rest: bytes = b"", compression: int = 1
) -> bytes:
    """Return a header that claims this size; all strips or tiles are at one offset right after the directory."""
    behind = 8 + 2 + 12 * (11 if tile else 10) + 4
    common = [
        (256, _LONG, 1, width),
        (257, _LONG, 1, height),
        (258, _SHORT, 1, 8),
        (259, _SHORT, 1, compression),
        (262, _SHORT, 1, 2),
        (277, _SHORT, 1, bands),
        (284, _SHORT, 1, 1),
    ]
    if tile:
        return _tiff(
            [
                *common,
                (322, _SHORT, 1, tile),
                (323, _SHORT, 1, tile),
                (324, _LONG, 1, behind),
                (325, _LONG, 1, len(rest)),
            ],
            rest,
        )
    return _tiff([*common, (273, _LONG, 1, behind), (278, _LONG, 1, height), (279, _LONG, 1, len(rest))], rest)


def _zip_bomb() -> bytes:
    """Return one strip of 108 MB of zeros in a hundred kilobytes; its header claims 1.9 GB."""
    return zlib.compress(bytes(108_000_000), 1)


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "four_billion_pixels_a_side": (lambda: _claiming(0xFFFFFFFF, 0xFFFFFFFF), "cannot be read|larger than allowed"),
    "a_line_of_a_billion": (lambda: _claiming(1_000_000_000, 1), "cannot be read|larger than allowed"),
    "billions_of_tiles": (lambda: _claiming(2_000_000, 2_000_000, tile=16), "cannot be read|larger than allowed"),
    "many_tiles_of_no_bytes": (
        lambda: _claiming(1984, 1984, tile=16, compression=8),
        "cannot be read|no geotransform|no coordinate",
    ),
    "sixty_thousand_bands": (lambda: _claiming(16, 16, bands=60_000), "cannot be read|too many bands|no coordinate"),
    "zip_bomb": (
        lambda: _claiming(25_000, 25_000, rest=_zip_bomb(), compression=8),
        "larger than allowed|too large to decode",
    ),
    "a_directory_that_names_itself": (lambda: b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "endless"),
    "a_tag_of_four_billion_letters": (
        lambda: _tiff([(256, _LONG, 1, 16), (257, _LONG, 1, 16), (270, _ASCII, 0xFFFFFFFF, 8)]),
        "cannot be read|no coordinate",
    ),
    "jp2_of_a_giant": (
        lambda: (
            b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 \0\0\0\0jp2 \0\0\0\x2djp2h"
            b"\0\0\0\x16ihdr\xff\xff\xff\xff\xff\xff\xff\xff"
            b"\0\x03\7\7\0\0\0\0\0\x0fcolr\1\0\0\0\0\0\x10"
        ),
        "cannot be read|larger than allowed",
    ),
}


def test_bombs_are_refused_before_they_are_decompressed(service: Service, inbox: Path) -> None:
    for name, (make, _) in BOMBS.items():
        (inbox / f"{name}.{'jp2' if name.startswith('jp2') else 'tif'}").write_bytes(make())
    service.limits = DecodeLimits(timeout_s=20, memory_mb=1024)
    service.ingest(inbox, workers=2)
    assert service.scenes() == {}
    entries = service.quarantine()
    wrong = {
        name: str(entries[name].what)
        for name, (_, reason) in BOMBS.items()
        if not re.search(reason, entries[name].what)
    }
    assert wrong == {}, "no reason is a time limit: nothing was decompressed"


def test_a_huge_sparse_file_costs_at_most_its_time_limit(service: Service, inbox: Path) -> None:
    """Sparse: 225 million pixels that were never written, read as zeros; a file of a few kilobytes."""
    sparse = write(inbox / "sparse.tif", random_dn(size=64))
    with rasterio.open(
        sparse,
        "w",
        driver="GTiff",
        width=15_000,
        height=15_000,
        count=3,
        dtype="uint16",
        crs="EPSG:32631",
        tiled=True,
        sparse_ok=True,
        transform=from_origin(5e5, 5.6e6, 10, 10),
        blockxsize=512,
        blockysize=512,
        compress="deflate",
    ) as out:
        out.descriptions = ("red", "green", "blue")
    assert sparse.stat().st_size < 100_000
    service.limits = DecodeLimits(timeout_s=0.05, memory_mb=1024)
    service.ingest(inbox)
    assert service.scenes() == {}
    assert service.quarantine()["sparse"].what


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38])
def test_values_that_are_not_finite_are_no_data(service: Service, inbox: Path, value: float) -> None:
    pixels = random_dn(dtype="float32") / np.float32(10_000)
    pixels[:, :8] = value
    write(inbox / "a.tif", pixels)
    service.ingest(inbox)
    if "a" in service.scenes():
        assert service.scenes()["a"].valid_fraction == pytest.approx(1 - 8 / SIZE)
    else:  # huge finite values mean that the scale is wrong
        assert "cannot be reflectance" in service.quarantine()["a"].what
        assert value == np.float32(3.4e38) or value == 3.4e38


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0, 0.0])
def test_an_invalid_scale_is_refused(service: Service, inbox: Path, scale: float) -> None:
    write(inbox / "a.tif", random_dn(), scale=scale)
    service.ingest(inbox)
    assert "not plausible" in service.quarantine()["a"].what


def test_a_label_of_infinities_is_no_label(service: Service, inbox: Path) -> None:
    write(inbox / "images" / "a.tif", random_dn())
    write(inbox / "labels" / "a.tif", np.where(clouds() > 0, np.inf, 0).astype(np.float32), names=["label"])
    service.ingest(inbox)
    assert [label for label in service.labels(service.scenes()["a"]) if label.cloud_fraction > 0] == []


def _alias_tiles(path: Path, *, shift: int = 0) -> None:
    """Make every tile of a tiled GeoTIFF the bytes of its first one, as one edit of its directory does.

    Args:
        path: The file.
        shift: Bytes by which each tile begins after the one before.
    """
    data = bytearray(path.read_bytes())
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, _, count, position = struct.unpack_from("<HHII", data, entry)
        if tag in (324, 325):
            first = struct.unpack_from("<I", data, position)[0]
            values = [first + (index * shift if tag == 324 else 0) for index in range(count)]
            struct.pack_into(f"<{count}I", data, position, *values)
    path.write_bytes(data)


@pytest.mark.parametrize("shift", [0, 3])
def test_tiles_that_share_bytes_are_refused(service: Service, inbox: Path, shift: int) -> None:
    """Two megabytes once made half a gigabyte of scratch files and a scene of 285 MB."""
    tiled = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    write(inbox / "aliased.tif", random_dn(size=512), **tiled)
    _alias_tiles(inbox / "aliased.tif", shift=shift)
    write(inbox / "good.tif", random_dn(size=512), **tiled)
    service.ingest(inbox)
    assert list(service.scenes()) == ["good"]
    assert "share the same bytes" in service.quarantine()["aliased"].what


def test_strips_that_share_bytes_are_refused_in_labels_too(service: Service, inbox: Path) -> None:
    write(inbox / "images" / "a.tif", random_dn(size=512))
    write(inbox / "labels" / "a.tif", clouds(512), names=["label"], tiled=True, blockxsize=64, blockysize=64)
    _alias_tiles(inbox / "labels" / "a.tif")
    service.ingest(inbox)
    assert service.labels(service.scenes()["a"]) == []
    assert "share the same bytes" in service.quarantine()["a (label)"].what


def test_empty_tiles_of_a_sparse_file_share_nothing(service: Service, inbox: Path) -> None:
    """GDAL gives tiles that were never written offset 0 and no bytes (SPARSE_OK)."""
    profile = {"driver": "GTiff", "width": 512, "height": 512, "count": 3, "dtype": "uint16", "crs": "EPSG:32631"}
    with rasterio.open(
        inbox / "sparse.tif",
        "w",
        **profile,
        transform=from_origin(5e5, 5.6e6, 10, 10),
        tiled=True,
        blockxsize=64,
        blockysize=64,
        sparse_ok=True,
        nodata=0,
    ) as out:
        out.descriptions = ("red", "green", "blue")
        out.write(random_dn(size=256), window=rasterio.windows.Window(0, 0, 256, 256))
    service.ingest(inbox)
    assert service.scenes()["sparse"].valid_fraction == 0.25


def test_a_sparse_file_far_larger_than_its_raster_is_not_copied(
    service: Service, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gigabyte that is no gigabyte on the sender's disk once filled TMPDIR at every ingest."""
    path = write(inbox / "sparse.tif", random_dn())
    with path.open("r+b") as handle:
        handle.truncate(200 << 20)
    copied: list[Path] = []
    monkeypatch.setattr(ingest_scene, "copy_file", lambda *arguments, **_: copied.append(arguments[3]))
    service.ingest(inbox)
    assert service.scenes() == {}
    assert "larger than its raster can need" in service.quarantine()["sparse"].what
    assert copied == []


@pytest.mark.parametrize("name", ["a.tif", "labels/a.tif", "notes.pdf"])
def test_a_file_beyond_the_limit_is_refused(service: Service, inbox: Path, name: str) -> None:
    path = write(inbox / name, random_dn())
    with path.open("r+b") as handle:
        handle.truncate(3 << 20)
    service.limits = DecodeLimits(timeout_s=30, memory_mb=2048, max_bytes=2 << 20)
    service.ingest(inbox)
    assert service.scenes() == {}
    if name == "a.tif":
        assert "larger than its raster can need" in service.quarantine()["a"].what
    assert len(service.ingest(inbox).quarantined) == 0, "and is known the next time"


def test_a_scene_beyond_the_limit_is_refused_by_its_header(service: Service, inbox: Path) -> None:
    write(inbox / "a.tif", random_dn(size=512), compress="deflate")
    service.limits = DecodeLimits(timeout_s=30, memory_mb=2048, max_bytes=512 * 512 * 3 * 2 - 1)
    service.ingest(inbox)
    assert "larger" in service.quarantine()["a"].what


def test_the_size_that_a_header_claims(tmp_path: Path) -> None:
    for name, driver in (("a.tif", "GTiff"), ("a.jp2", "JP2OpenJPEG")):
        path = write(tmp_path / name, random_dn(size=64), names=None, driver=driver)
        with path.open("rb") as handle:
            assert claimed_bytes(handle) == 64 * 64 * 3 * (2 if driver == "GTiff" else 4)
    big = write(tmp_path / "big.tif", random_dn(size=64, dtype="float32"), bigtiff="yes", tiled=True)
    with big.open("rb") as handle:
        assert claimed_bytes(handle) == 64 * 64 * 3 * 4
        check_blocks(handle, "big.tif")
    (tmp_path / "text").write_bytes(b"II*\0")
    for name in ("text", "a.aux"):
        (tmp_path / name).touch()
        with (tmp_path / name).open("rb") as handle:
            assert claimed_bytes(handle) is None


@pytest.mark.parametrize("order", ["<", ">"])
def test_directories_that_are_endless_are_refused(tmp_path: Path, order: str) -> None:
    """A chain of valid directories, and one that leads back to itself."""
    signature = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 42)
    chain = b"".join(struct.pack(f"{order}HI", 0, 8 + 6 * (index + 1)) for index in range(1000))
    for data in (chain, struct.pack(f"{order}HI", 0, 8)):
        path = tmp_path / "a.tif"
        path.write_bytes(signature + struct.pack(f"{order}I", 8) + data)
        with path.open("rb") as handle, pytest.raises(BadScene, match="endless"):
            check_blocks(handle, "a.tif")
