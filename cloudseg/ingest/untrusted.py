"""Opens a raster that came from outside. Runs in the bounded child process only.

Two drivers, no sidecar files, no virtual formats, no network: a VRT or a `/vsicurl` path inside a dropped file is
just a file that is no GeoTIFF. Sizes are checked before a pixel is read.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from cloudseg.errors import BadScene

_SIGNATURES: Final = {
    # TIFF 6.0, section 2, and BigTIFF; JPEG 2000 Part 1, annex I (file) and annex A (bare codestream).
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JP2OpenJPEG",
    b"\xff\x4f\xff\x51": "JP2OpenJPEG",
}
"""The two drivers that the layouts need, chosen by the first bytes: GDAL never guesses what a file is."""
MAX_BANDS: Final = 64
DTYPES: Final = ("uint8", "uint16", "int16", "float32", "float64")
_COPY: Final = re.compile(r"\bsource\d+(?=[,:])")
"""How messages of GDAL name the private copy."""
_MAX_SIDE: Final = 200_000
"""Rows or columns; keeps a one-pixel-high monster from becoming a million windows."""
_BLOCK_SHARE: Final = 8
"""A compressed block, once decoded, may take this fraction of the memory limit: GDAL holds several at a time."""

READ_ERRORS: Final = (RasterioError, CPLE_BaseError)
"""What rasterio raises; CPLE_BaseError is the base of errors that it passes through from GDAL."""


@contextmanager
def open_untrusted(path: str, shown: str, *, max_pixels: int, memory_mb: int) -> Iterator[rasterio.DatasetReader]:
    """Open a GeoTIFF or JPEG 2000 file and check its size. Raises BadScene."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = _open(path, shown)
    with dataset:
        _check_size(dataset, shown, max_pixels, memory_mb)
        yield dataset


def check_pixels(dataset: rasterio.DatasetReader, shown: str) -> None:
    """Check that the numbers can be reflectance: no palette, no complex or 32-bit integers. Raises BadScene."""
    if ColorInterp.palette in dataset.colorinterp:
        raise BadScene(
            "colours from a palette are no reflectance",
            subject=shown,
            expected="one number a band",
            next_step="Bring the original bands.",
        )
    for dtype in dataset.dtypes:
        if dtype not in DTYPES:
            raise BadScene(
                "numbers of this type have no known scale",
                subject=shown,
                found=dtype,
                expected=", ".join(DTYPES),
                next_step="Convert the file to uint16 reflectance x 10000 (GDAL: gdal_translate -ot UInt16 -scale).",
            )


def _open(path: str, shown: str) -> rasterio.DatasetReader:
    with Path(path).open("rb") as handle:
        head = handle.read(256)
    driver = next((driver for signature, driver in _SIGNATURES.items() if head.startswith(signature)), None)
    if driver is None:
        raise BadScene(
            _what_it_is(head),
            subject=shown,
            expected="a GeoTIFF or JPEG 2000 raster",
            next_step="Get the file again from its source.",
        )
    try:
        # Raw strings reach GDAL: only an absolute path of our own temporary folder, never a name from outside.
        return rasterio.open(Path(path).absolute(), driver=driver, sharing=False)
    except READ_ERRORS as error:
        raise BadScene(
            "the header of the raster cannot be read",
            subject=shown,
            found=_short(error, path),
            expected="a GeoTIFF or JPEG 2000 raster",
            next_step="Get the file again from its source.",
        ) from error


def _what_it_is(head: bytes) -> str:
    """Say what a person would see at the first glance."""
    if not head:
        return "the file is empty"
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if text.startswith((b"<vrtdataset", b"<gdaltileindex", b"<ogrvrt")):
        return "a virtual raster, which points to other files, is never opened"
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "the file is a web page or XML text, not a raster"
    if text.startswith(b"version https://git-lfs"):
        return "the file is a Git LFS pointer, not the raster itself"
    return "the file is no raster of a known format"


def _check_size(dataset: rasterio.DatasetReader, shown: str, max_pixels: int, memory_mb: int) -> None:
    height, width = dataset.height, dataset.width
    if height * width > max_pixels or max(height, width) > _MAX_SIDE:
        raise BadScene(
            "the raster is larger than allowed",
            subject=shown,
            found=f"{height} x {width} pixels",
            expected=f"at most {max_pixels} pixels",
            next_step="Cut it into tiles, or raise CLOUDSEG_MAX_SCENE_PIXELS.",
        )
    if dataset.count > MAX_BANDS:
        raise BadScene(
            "the raster has too many bands", subject=shown, found=dataset.count, expected=f"at most {MAX_BANDS}"
        )
    rows, cols = dataset.block_shapes[0]
    interleaved = dataset.count if str(dataset.interleaving).lower().endswith("pixel") else 1
    # JPEG 2000 counts 32-bit numbers while it decodes; eight bytes a pixel cover every type that is accepted.
    megabytes = rows * cols * interleaved * 8 / 1e6
    if megabytes > memory_mb / _BLOCK_SHARE:
        raise BadScene(
            "the raster is stored in blocks that are too large to decode safely",
            subject=shown,
            found=f"{rows} x {cols} pixels x {interleaved} bands",
            expected=f"at most {memory_mb // _BLOCK_SHARE} MB a block",
            next_step="Store it in tiles (GDAL: gdal_translate -of COG).",
        )


def read_error(error: Exception, shown: str) -> BadScene:
    """Return the error of pixels that cannot be read."""
    return BadScene(
        "the pixels cannot be read: the file is truncated or corrupt",
        subject=shown,
        found=_short(error),
        expected="every block readable",
        next_step="Get the file again from its source.",
    )


def _short(error: Any, path: str = "") -> str:
    cause = error.__cause__ or error.__context__
    text = str(cause or error).replace(str(Path(path).absolute()), "the file") if path else str(cause or error)
    text = _COPY.sub("the file", text)
    return " ".join(text.split())[:300]
