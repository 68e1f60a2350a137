"""Read the directories of a TIFF on a server by range: sizes, tiles and georeference, no pixel.

TIFF 6.0, section 2; BigTIFF; GeoTIFF (OGC 19-008). The service does this itself, in Python, on plain numbers that are
checked; GDAL, which reads pixels, stays in the sandboxed decoder. Only files that a window can be cut out of by copying
whole blocks are accepted: `NoWindow` says why another one is not.
"""

import math
import struct
from dataclasses import dataclass
from typing import IO, Any, Final, cast

import numpy as np
import numpy.typing as npt

from cloudseg.ingest.stac_source.hosts import Refused
from cloudseg.ingest.stac_source.http_client import HttpClient, Remote
from cloudseg.ingest.tiff_layout import tiff_format

_BLOCK: Final = 1 << 14
"""Bytes of one request for the header; a COG of 10 980 pixels square has a header of about 10 kB."""
_MAX_HEADER: Final = 32 << 20
"""Bytes of header that are read at most."""
_MAX_DIRECTORIES: Final = 64
_MAX_ENTRIES: Final = 1_024
_MAX_VALUE: Final = 16 << 20
_TYPE_BYTES: Final = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_NUMBER: Final = {1: "u1", 3: "u2", 4: "u4", 11: "f4", 12: "f8", 13: "u4", 16: "u8", 18: "u8"}

SUBFILE, WIDTH, HEIGHT, COMPRESSION, SAMPLES, PLANAR = 254, 256, 257, 259, 277, 284
STRIP_OFFSETS, ROWS_PER_STRIP, STRIP_COUNTS = 273, 278, 279
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 322, 323, 324, 325
PIXEL_SCALE, TIEPOINT, TRANSFORMATION, GEO_KEYS = 33550, 33922, 34264, 34735
_OTHER_GEOREFERENCE: Final = (TRANSFORMATION, 50844)
"""A matrix, and rational polynomial coefficients: a window would need them recomputed."""
_OLD_JPEG: Final = 6
"""Compression whose tables lie anywhere in the file (TIFF 6.0, section 22)."""
_MODEL_TYPE, _GEOGRAPHIC, _PROJECTED = 1024, 2048, 3072
"""Geo keys (OGC 19-008, 7.4.3)."""
_IS_MASK, _IS_REDUCED = 4, 1
COPIED: Final[tuple[int, ...]] = (
    # Baseline: new subfile type, bits, compression, photometric, description, samples, resolution, planar, unit,
    # software, time, predictor, colors, inks, extra samples, sample format, minimum and maximum, JPEG tables, YCbCr.
    *(254, 258, 259, 262, 266, 270, 277, 282, 283, 284, 296, 305, 306, 317, 320, 332, 338, 339, 340, 341, 347),
    *(529, 530, 531, 532),
    # Georeference but for the corner, GDAL's metadata and no-data value, LERC's parameters.
    *(33550, 34735, 34736, 34737, 42112, 42113, 50674),
)
"""Fields that mean the same in a window."""
_READ: Final = frozenset(
    (*COPIED, WIDTH, HEIGHT, STRIP_OFFSETS, ROWS_PER_STRIP, STRIP_COUNTS, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS)
) | {TILE_COUNTS, TIEPOINT}

Numbers = npt.NDArray[Any]


class NoWindow(Exception):
    """A window cannot be cut out of this file, which may be valid all the same: it is fetched whole."""


@dataclass(frozen=True)
class Entry:
    """One field of a directory, as it is written in the file."""

    code: int
    count: int
    value: bytes


@dataclass(frozen=True)
class Directory:
    """The fields of one image of a file, and the blocks that its pixels are in."""

    order: str
    fields: dict[int, Entry]
    width: int
    height: int
    block_width: int
    block_height: int
    planes: int
    offsets: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.uint64]

    @property
    def is_tiled(self) -> bool:
        """Whether blocks are tiles, not strips."""
        return TILE_OFFSETS in self.fields

    @property
    def columns(self) -> int:
        """Blocks from left to right."""
        return math.ceil(self.width / self.block_width)

    @property
    def rows(self) -> int:
        """Blocks from top to bottom."""
        return math.ceil(self.height / self.block_height)

    def values(self, tag: int) -> Numbers:
        """Return the numbers of a field; empty if there is none."""
        return _numbers(self.order, self.fields.get(tag))


@dataclass(frozen=True)
class TiffFile:
    """A TIFF with a north-up georeference."""

    remote: Remote
    image: Directory
    mask: Directory | None
    """The validity of the pixels, where the file has it."""
    epsg: int
    left: float
    top: float
    """Coordinates of the first corner, in the unit of the CRS."""
    x_size: float
    y_size: float
    """Of a pixel, both positive."""


def read_tiff(client: HttpClient, remote: Remote) -> TiffFile:
    """Return what the header of a file says.

    Raises:
        NoWindow: The file is no such TIFF.
        Refused: The header is damaged, endless or far too large.
        NotRead: The server does not answer.
    """
    if not remote.ranges:
        raise NoWindow("the server sends whole files only")
    handle = cast(IO[bytes], _RemoteHandle(client, remote))
    try:
        if handle.read(4) not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            raise NoWindow("the file is no TIFF")
        image, mask = _read_images(handle, remote)
        return _with_georeference(remote, image, mask)
    except (struct.error, ValueError, IndexError, KeyError, OverflowError) as error:
        raise Refused(
            "the header of the raster cannot be read",
            found=f"{type(error).__name__}: {error}"[:200],
            expected="a TIFF directory",
            next_step="Get the file again from its source.",
        ) from error


def _read_images(handle: IO[bytes], remote: Remote) -> tuple[Directory, Directory | None]:
    """Return the first image and its mask. Overviews are passed over, and so are other images, which GDAL ignores."""
    order, found = _entries_of_all(handle)
    image = _directory(handle, order, found[0], remote)
    for fields in found[1:]:
        kind = int(next(iter(_numbers(order, _loaded(handle, order, fields.get(SUBFILE)))), 0))
        if kind & _IS_MASK and not kind & _IS_REDUCED:
            mask = _directory(handle, order, fields, remote)
            if (mask.width, mask.height) != (image.width, image.height):
                raise NoWindow("the mask has another size than the image")
            return image, mask
    return image, None


def _entries_of_all(handle: IO[bytes]) -> tuple[str, list[dict[int, Entry]]]:
    """Return the byte order, and the fields of every directory; long values as the place where they are."""
    kind, position = tiff_format(handle)
    found: list[dict[int, Entry]] = []
    seen: set[int] = set()
    while position:
        if position in seen or len(seen) >= _MAX_DIRECTORIES:
            raise ValueError(f"{len(seen)} directories and no end")
        seen.add(position)
        handle.seek(position)
        (count,) = kind.count.unpack(handle.read(kind.count.size))
        if count > _MAX_ENTRIES:
            raise ValueError(f"{count} entries in a directory")
        data = handle.read(count * kind.entry.size)
        (position,) = kind.offset.unpack(handle.read(kind.offset.size))
        found.append({tag: Entry(code, size, value) for tag, code, size, value in kind.entry.iter_unpack(data)})
    if not found:
        raise ValueError("no directory")
    return kind.order, found


def _directory(handle: IO[bytes], order: str, fields: dict[int, Entry], remote: Remote) -> Directory:
    if any(tag in fields for tag in _OTHER_GEOREFERENCE):
        raise NoWindow("the georeference is not one corner and a pixel size")
    wanted = {tag: each for tag, each in fields.items() if tag in _READ}
    loaded = {tag: value for tag, each in wanted.items() if (value := _loaded(handle, order, each)) is not None}

    def one(tag: int, default: int | None = None) -> int:
        values = _numbers(order, loaded.get(tag))
        if len(values) == 0 and default is not None:
            return default
        return int(values[0])

    width, height = one(WIDTH), one(HEIGHT)
    tiled = TILE_OFFSETS in loaded
    block_width = one(TILE_WIDTH) if tiled else width
    block_height = one(TILE_HEIGHT) if tiled else min(one(ROWS_PER_STRIP, height), height)
    if min(width, height, block_width, block_height) < 1 or max(width, height) > 1_000_000:
        raise ValueError(f"{width} x {height} pixels in blocks of {block_width} x {block_height}")
    if one(COMPRESSION, 1) == _OLD_JPEG:
        raise NoWindow("the file is compressed as an old JPEG")
    planes = one(SAMPLES, 1) if one(PLANAR, 1) == 2 else 1
    offsets = _numbers(order, loaded.get(TILE_OFFSETS if tiled else STRIP_OFFSETS)).astype(np.uint64)
    counts = _numbers(order, loaded.get(TILE_COUNTS if tiled else STRIP_COUNTS)).astype(np.uint64)
    found = Directory(order, loaded, width, height, block_width, block_height, planes, offsets, counts)
    blocks = found.columns * found.rows * planes
    if len(offsets) != blocks or len(counts) != blocks:
        raise ValueError(f"{len(offsets)} offsets and {len(counts)} sizes of {blocks} blocks")
    if bool(np.any(counts > remote.size)) or bool(np.any(offsets > remote.size - counts)):
        raise ValueError("blocks outside of the file")
    return found


def _loaded(handle: IO[bytes], order: str, entry: Entry | None) -> Entry | None:
    """Return a field with its value; None for a field of a type that does not exist."""
    if entry is None or entry.code not in _TYPE_BYTES:
        return None
    size = entry.count * _TYPE_BYTES[entry.code]
    if size <= len(entry.value):
        return Entry(entry.code, entry.count, entry.value[:size])
    if size > _MAX_VALUE:
        raise ValueError(f"a field of {size} bytes")
    (position,) = struct.unpack(f"{order}{'Q' if len(entry.value) == 8 else 'I'}", entry.value)
    handle.seek(position)
    return Entry(entry.code, entry.count, _exactly(handle.read(size), size))


def _exactly(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise ValueError("the file ends in a field")
    return data


def _numbers(order: str, entry: Entry | None) -> Numbers:
    if entry is None or entry.code not in _NUMBER:
        return np.empty(0)
    return np.frombuffer(entry.value, f"{order}{_NUMBER[entry.code]}")


def _with_georeference(remote: Remote, image: Directory, mask: Directory | None) -> TiffFile:
    scale, tie = image.values(PIXEL_SCALE), image.values(TIEPOINT)
    if len(scale) < 2 or len(tie) != 6:
        raise NoWindow("the georeference is not one corner and a pixel size")
    numbers = [float(value) for value in (*scale[:2], tie[0], tie[1], tie[3], tie[4])]
    x_size, y_size, column, row, x, y = numbers
    if not all(math.isfinite(value) for value in numbers) or x_size <= 0 or y_size <= 0:
        raise NoWindow("the pixel size is not positive")
    return TiffFile(remote, image, mask, _epsg(image), x - column * x_size, y + row * y_size, x_size, y_size)


def _epsg(image: Directory) -> int:
    keys = [int(value) for value in image.values(GEO_KEYS)]
    # Four numbers a key: id, place of the value (0: here), count, value. The first four are the header.
    found = {keys[at]: keys[at + 3] for at in range(4, len(keys) - 3, 4) if keys[at + 1] == 0}
    code = found.get({1: _PROJECTED, 2: _GEOGRAPHIC}.get(found.get(_MODEL_TYPE, 0), 0), 0)
    if not 1024 <= code < 32767:
        raise NoWindow("the CRS has no EPSG code")
    return code


class _RemoteHandle:
    """A file on a server, read in pieces that are kept; only what a header needs."""

    def __init__(self, client: HttpClient, remote: Remote) -> None:
        self._client, self._remote = client, remote
        self._position = 0
        self._blocks: dict[int, bytes] = {}

    def seek(self, position: int) -> int:
        self._position = position
        return position

    def read(self, size: int) -> bytes:
        """Return at most so many bytes; fewer at the end of the file."""
        end = min(self._position + size, self._remote.size)
        if end <= self._position:
            return b""
        first, last = self._position // _BLOCK, (end - 1) // _BLOCK
        self._fetch(first, last)
        data = b"".join(self._blocks[index] for index in range(first, last + 1))
        begin = self._position - first * _BLOCK
        found = data[begin : begin + end - self._position]
        self._position = end
        return found

    def _fetch(self, first: int, last: int) -> None:
        """Fetch the missing blocks of a run with one request."""
        missing = [index for index in range(first, last + 1) if index not in self._blocks]
        if not missing:
            return
        if (len(self._blocks) + missing[-1] - missing[0] + 1) * _BLOCK > _MAX_HEADER:
            raise ValueError(f"a header of more than {_MAX_HEADER >> 20} MB")
        begin = missing[0] * _BLOCK
        data = self._client.read_range(self._remote, begin, min((missing[-1] + 1) * _BLOCK, self._remote.size) - begin)
        for index in range(missing[0], missing[-1] + 1):
            at = (index - missing[0]) * _BLOCK
            self._blocks[index] = data[at : at + _BLOCK]
