"""Open an untrusted raster. Runs in the sandboxed decoder process only.

Two drivers (for labels PNG too), no virtual formats, no network, and GDAL looks at no file beside it
(`cloudseg.ingest.pam` and `cloudseg.ingest.validity` open the few that count, by name): a VRT or a `/vsicurl` path
inside a file makes it a file that is not a GeoTIFF. Sizes are checked before a pixel is read.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from cloudseg.errors import BadScene
from cloudseg.grid import Window
from cloudseg.ingest.tiff_layout import check_blocks

_SIGNATURES: Final = {
    # TIFF 6.0, section 2, and BigTIFF; JPEG 2000 Part 1, annex I (file) and annex A (bare codestream).
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JP2OpenJPEG",
    b"\xff\x4f\xff\x51": "JP2OpenJPEG",
}
"""Driver by first bytes, so that GDAL never probes the format of a file."""
_PNG: Final = {b"\x89PNG\r\n\x1a\n": "PNG"}
"""PNG (ISO/IEC 15948, 5.2), for labels only: as a scene it would have no georeference."""
MAX_BANDS: Final = 64
DTYPES: Final = ("uint8", "uint16", "int16", "float32", "float64")
_COPY: Final = re.compile(r"\bsource\d+(?=[,:])")
"""Name of the private copy in messages of GDAL."""
_MAX_SIDE: Final = 200_000
"""Rows or columns; a raster one pixel high must not become a million windows."""
_BLOCK_DIVISOR: Final = 8
"""A decoded block may take the memory limit divided by this: GDAL holds several at a time."""

_READ_ERRORS: Final = (RasterioError, CPLE_BaseError)
"""Errors of rasterio; CPLE_BaseError is the base of those that it passes through from GDAL."""


@contextmanager
def open_untrusted(
    path: str, display_name: str, *, max_pixels: int, memory_mb: int, png: bool = False
) -> Iterator[rasterio.DatasetReader]:
    """Open a GeoTIFF or JPEG 2000 file and check its size.

    Args:
        path: The private copy.
        display_name: The file's name, for messages.
        max_pixels: Largest number of rows × columns.
        memory_mb: Memory limit of the process.
        png: Whether the file may be a PNG.

    Raises:
        BadScene: The file is not such a raster, or too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = _open(path, display_name, _SIGNATURES | _PNG if png else _SIGNATURES)
    with dataset:
        _check_size(dataset, display_name, max_pixels, memory_mb)
        yield dataset


def check_pixels(dataset: rasterio.DatasetReader, display_name: str) -> None:
    """Check that the pixel values can be reflectance.

    Raises:
        BadScene: The raster has a palette, complex values or 32-bit integers.
    """
    if ColorInterp.palette in dataset.colorinterp:
        raise BadScene(
            "a palette has no reflectance",
            subject=display_name,
            found=", ".join(meaning.name for meaning in dataset.colorinterp),
            expected="one value per band",
            next_step="Use the original bands.",
        )
    for dtype in dataset.dtypes:
        if dtype not in DTYPES:
            raise BadScene(
                "unsupported data type",
                subject=display_name,
                found=dtype,
                expected=", ".join(DTYPES),
                next_step="Convert the file to uint16 reflectance x 10000 (GDAL: gdal_translate -ot UInt16 -scale).",
            )


def _open(path: str, display_name: str, signatures: Mapping[bytes, str]) -> rasterio.DatasetReader:
    with Path(path).open("rb") as handle:
        head = handle.read(256)
    driver = next((driver for signature, driver in signatures.items() if head.startswith(signature)), None)
    if driver is None:
        raise BadScene(
            _describe_content(head),
            subject=display_name,
            expected="a GeoTIFF or JPEG 2000 raster" if signatures is _SIGNATURES else "a GeoTIFF, JPEG 2000 or PNG",
            next_step="Get the file again from its source.",
        )
    if driver == "GTiff":
        with Path(path).open("rb") as handle:
            check_blocks(handle, display_name)
    try:
        # GDAL gets an absolute path in the scratch directory, never an untrusted name.
        return rasterio.open(Path(path).absolute(), driver=driver, sharing=False)
    except _READ_ERRORS as error:
        raise BadScene(
            "the header of the raster cannot be read",
            subject=display_name,
            found=_short(error, path),
            expected="a GeoTIFF or JPEG 2000 raster",
            next_step="Get the file again from its source.",
        ) from error


def _describe_content(head: bytes) -> str:
    """Return what the first bytes of a file show that is not a raster."""
    if not head:
        return "the file is empty"
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if text.startswith((b"<vrtdataset", b"<gdaltileindex", b"<ogrvrt")):
        return "the file is a virtual raster, which refers to other files"
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "the file is a web page or XML text, not a raster"
    if text.startswith(b"version https://git-lfs"):
        return "the file is a Git LFS pointer, not the raster itself"
    return "the file is not a supported raster"


def _check_size(dataset: rasterio.DatasetReader, display_name: str, max_pixels: int, memory_mb: int) -> None:
    """Check pixels, bands and the size of a decoded block against the limits."""
    height, width = dataset.height, dataset.width
    if height * width > max_pixels or max(height, width) > _MAX_SIDE:
        raise BadScene(
            "the raster is larger than allowed",
            subject=display_name,
            found=f"{height} x {width} pixels",
            expected=f"at most {max_pixels} pixels",
            next_step="Split it into tiles, or raise CLOUDSEG_MAX_SCENE_PIXELS.",
        )
    if dataset.count > MAX_BANDS:
        raise BadScene(
            "the raster has too many bands", subject=display_name, found=dataset.count, expected=f"at most {MAX_BANDS}"
        )
    rows, cols = dataset.block_shapes[0]
    interleaved = dataset.count if str(dataset.interleaving).lower().endswith("pixel") else 1
    # The JPEG 2000 decoder works on 32-bit integers; eight bytes per pixel cover every accepted data type.
    megabytes = rows * cols * interleaved * 8 / 1e6
    if megabytes > memory_mb / _BLOCK_DIVISOR:
        raise BadScene(
            "the blocks of the raster are too large to decode",
            subject=display_name,
            found=f"{rows} x {cols} pixels x {interleaved} bands",
            expected=f"at most {memory_mb // _BLOCK_DIVISOR} MB per block",
            next_step="Convert it to a tiled file (GDAL: gdal_translate -of COG).",
        )


def rasterio_window(window: Window) -> RasterioWindow:
    """Return the window as rasterio's class."""
    return RasterioWindow(window.col_off, window.row_off, window.width, window.height)


def read_window(
    dataset: Any, indexes: int | list[int], window: Window, display_name: str, *, masks: bool = False
) -> npt.NDArray[Any]:
    """Read pixels in the file's data type.

    Args:
        dataset: A dataset or warped VRT.
        indexes: One band index, from 1, or several.
        window: The pixels.
        display_name: The file's name, for messages.
        masks: Read the masks of the bands instead.

    Returns:
        `(row, col)` for one index, `(band, row, col)` for several.

    Raises:
        BadScene: The file is truncated or corrupt.
    """
    try:
        read = dataset.read_masks if masks else dataset.read
        pixels: npt.NDArray[Any] = read(indexes, window=rasterio_window(window))
    except _READ_ERRORS as error:
        raise BadScene(
            "the pixels cannot be read: the file is truncated or corrupt",
            subject=display_name,
            found=_short(error),
            expected="every block readable",
            next_step="Get the file again from its source.",
        ) from error
    return pixels


def _short(error: Any, path: str = "") -> str:
    """Return the cause of an error in one line, without the path of the private copy."""
    cause = error.__cause__ or error.__context__
    text = str(cause or error).replace(str(Path(path).absolute()), "the file") if path else str(cause or error)
    text = _COPY.sub("the file", text)
    return " ".join(text.split())[:300]
