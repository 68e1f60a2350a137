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

from cloudseg.ingest import DecodeLimits
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
    "a_directory_that_names_itself": (lambda: b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "cannot be read"),
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
