"""Cut windows out of TIFFs on a server: the blocks that an area needs are copied as they are into a small TIFF.

No pixel is decoded here. Windows begin and end at blocks, so they are at most one block larger than the area on each
side; the windows of all files of a scene are the same ground, because bands of one scene must fit together.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from cloudseg.grid import Window
from cloudseg.ingest.stac_source import tiff_file as t
from cloudseg.ingest.stac_source.hosts import Refused
from cloudseg.ingest.stac_source.http_client import HttpClient
from cloudseg.ingest.stac_source.search import Bounds
from cloudseg.ingest.stac_source.tiff_file import Directory, Entry, NoWindow, TiffFile
from cloudseg.scratch import cannot_write

_TOLERANCE: Final = 1e-6
"""Pixels by which an edge may miss a block without needing another one."""
_GAP: Final = 1 << 14
"""Bytes between two blocks that are read with them, because a request costs more."""
_LONGEST: Final = 32 << 20
"""Bytes of one request."""
_BIG: Final = {"<": b"II+\0", ">": b"MM\0+"}
_HEADER: Final = 16
_LONG8, _DOUBLE, _LONG = 16, 12, 4

Extent = tuple[float, float, float, float]
"""Left, bottom, right, top in the CRS."""


@dataclass(frozen=True)
class Cut:
    """A window of one file."""

    file: TiffFile
    window: Window

    @property
    def is_whole(self) -> bool:
        """Whether the window is the whole image."""
        image = self.file.image
        return self.window == Window(0, 0, image.height, image.width)

    @property
    def size(self) -> int:
        """Bytes of the blocks."""
        parts = [self.file.image, *([self.file.mask] if self.file.mask else [])]
        return sum(int(part.counts[_blocks(part, self.window)].sum()) for part in parts)


def cut_windows(files: Sequence[TiffFile], bounds: Bounds) -> list[Cut]:
    """Return the window of each file that the area needs: the same ground in all, whole blocks in each.

    Args:
        files: The files of one scene.
        bounds: The area.

    Raises:
        NoWindow: The files have several coordinate systems.
        Refused: The area is outside of the files, or the CRS is not known.
    """
    if len({file.epsg for file in files}) != 1:
        raise NoWindow("the files have several coordinate systems")
    wanted = _project(bounds, files[0].epsg)
    # The window of one file grows to whole blocks, which may need more blocks of another: until none grows.
    while True:
        windows = [_window(file, wanted) for file in files]
        grown = _union([wanted, *(_extent(file, window) for file, window in zip(files, windows, strict=True))])
        if grown == wanted:
            return [Cut(file, window) for file, window in zip(files, windows, strict=True)]
        wanted = grown


def write_cut(client: HttpClient, cut: Cut, to: Path) -> None:
    """Write a window as a BigTIFF: the blocks, then the directories. The same window makes the same bytes.

    Raises:
        NotRead: The server does not answer, or the file has changed since it was probed.
        StoreUnreachable: The file cannot be written, usually because the disk is full.
    """
    file, order = cut.file, cut.file.image.order
    parts = [file.image, *([file.mask] if file.mask else [])]
    try:
        with to.open("wb") as out:
            out.write(bytes(_HEADER))
            tables = [_copy_blocks(client, file, part, cut.window, out) for part in parts]
            link = 0  # where the address of the next directory belongs; 0: into the header
            for part, (offsets, counts) in zip(parts, tables, strict=True):
                fields = _fields(part, cut, offsets, counts)
                position, following = _write_directory(out, order, fields)
                _link(out, order, link, position)
                link = following
    except OSError as error:
        raise cannot_write(to.parent, error) from error


def _project(bounds: Bounds, epsg: int) -> Extent:
    try:
        left, bottom, right, top = transform_bounds(CRS.from_epsg(4326), CRS.from_epsg(epsg), *bounds)
    except RasterioError as error:
        raise Refused("the area cannot be projected", found=f"EPSG:{epsg}: {error}"[:200]) from error
    if not (np.isfinite([left, bottom, right, top]).all() and left < right and bottom < top):
        raise _outside(f"EPSG:{epsg}")
    return left, bottom, right, top


def _window(file: TiffFile, wanted: Extent) -> Window:
    """Return the blocks of a file that an extent needs, as a window of pixels."""
    image = file.image
    left, bottom, right, top = wanted
    columns = _span((left - file.left) / file.x_size, (right - file.left) / file.x_size, image.block_width, image.width)
    rows = _span((file.top - top) / file.y_size, (file.top - bottom) / file.y_size, image.block_height, image.height)
    if file.mask is not None:
        # The mask has blocks of its own.
        columns = _span(*columns, file.mask.block_width, image.width)
        rows = _span(*rows, file.mask.block_height, image.height)
        again = (_span(*columns, image.block_width, image.width), _span(*rows, image.block_height, image.height))
        if again != (columns, rows):
            raise NoWindow("image and mask have blocks that do not fit")
    return Window(rows[0], columns[0], rows[1] - rows[0], columns[1] - columns[0])


def _span(first: float, last: float, block: int, length: int) -> tuple[int, int]:
    """Return the pixels from the block of `first` to the block before `last`, inside of the image."""
    begin = max(0, int((first + _TOLERANCE) // block) * block)
    end = min(length, -int(-(last - _TOLERANCE) // block) * block)
    if begin >= end:
        raise _outside(f"pixels {first:.0f} to {last:.0f} of {length}")
    return begin, end


def _outside(found: str) -> Refused:
    return Refused("the area is outside of the image", found=found, expected="an image that the area meets")


def _extent(file: TiffFile, window: Window) -> Extent:
    left, top = file.left + window.col_off * file.x_size, file.top - window.row_off * file.y_size
    return left, top - window.height * file.y_size, left + window.width * file.x_size, top


def _union(extents: list[Extent]) -> Extent:
    left, bottom, right, top = zip(*extents, strict=True)
    return min(left), min(bottom), max(right), max(top)


def _blocks(part: Directory, window: Window) -> Any:
    """Return the indexes of the blocks of a window: plane by plane, row by row."""
    rows = range(window.row_off // part.block_height, -(-(window.row_off + window.height) // part.block_height))
    columns = range(window.col_off // part.block_width, -(-(window.col_off + window.width) // part.block_width))
    per_plane = part.rows * part.columns
    return np.array(
        [
            plane * per_plane + row * part.columns + column
            for plane in range(part.planes)
            for row in rows
            for column in columns
        ],
        np.int64,
    )


def _copy_blocks(client: HttpClient, file: TiffFile, part: Directory, window: Window, out: Any) -> Any:
    """Append the blocks of a window to a file and return their offsets and sizes in it."""
    indexes = _blocks(part, window)
    counts = part.counts[indexes].astype(np.int64)
    starts = part.offsets[indexes].astype(np.int64)
    offsets = np.zeros(len(indexes), np.int64)
    for first, size, members in _requests(starts, counts):
        data = client.read_range(file.remote, first, size)
        for index in members:
            offsets[index] = out.tell()
            begin = int(starts[index]) - first
            out.write(data[begin : begin + int(counts[index])])
    return offsets, counts


def _requests(starts: Any, counts: Any) -> list[tuple[int, int, list[int]]]:
    """Return first byte, size and blocks of each request; blocks near each other are read together."""
    found: list[tuple[int, int, list[int]]] = []
    for index in (int(at) for at in np.argsort(starts, kind="stable") if counts[at]):
        begin, end = int(starts[index]), int(starts[index] + counts[index])
        if found:
            first, size, members = found[-1]
            longer = max(size, end - first)
            if begin <= first + size + _GAP and longer <= _LONGEST:
                found[-1] = (first, longer, [*members, index])
                continue
        found.append((begin, end - begin, [index]))
    return found


def _fields(part: Directory, cut: Cut, offsets: Any, counts: Any) -> dict[int, Entry]:
    """Return the fields of the window's directory."""
    fields: dict[int, Entry] = {tag: part.fields[tag] for tag in t.COPIED if tag in part.fields}
    tags = (t.TILE_OFFSETS, t.TILE_COUNTS) if part.is_tiled else (t.STRIP_OFFSETS, t.STRIP_COUNTS)
    for tag, values in zip(tags, (offsets, counts), strict=True):
        fields[tag] = Entry(_LONG8, len(values), np.asarray(values, f"{part.order}u8").tobytes())
    numbers = {t.WIDTH: cut.window.width, t.HEIGHT: cut.window.height}
    if part.is_tiled:
        numbers |= {t.TILE_WIDTH: part.block_width, t.TILE_HEIGHT: part.block_height}
    else:
        numbers |= {t.ROWS_PER_STRIP: part.block_height}
    for tag, number in numbers.items():
        fields[tag] = Entry(_LONG, 1, struct.pack(f"{part.order}I", number))
    if t.TIEPOINT in part.fields:
        left, _, _, top = _extent(cut.file, cut.window)
        fields[t.TIEPOINT] = Entry(_DOUBLE, 6, struct.pack(f"{part.order}6d", 0, 0, 0, left, top, 0))
    return fields


def _write_directory(out: Any, order: str, fields: dict[int, Entry]) -> tuple[int, int]:
    """Append a directory; return where it begins, and where the address of the next one belongs."""
    entries = []
    for tag, field in sorted(fields.items()):
        value = field.value.ljust(8, b"\0")
        if len(field.value) > 8:
            out.write(bytes(-out.tell() % 8))
            value = struct.pack(f"{order}Q", out.tell())
            out.write(field.value)
        entries.append(struct.pack(f"{order}HHQ8s", tag, field.code, field.count, value))
    out.write(bytes(-out.tell() % 8))
    position = out.tell()
    out.write(struct.pack(f"{order}Q", len(entries)) + b"".join(entries))
    following = out.tell()
    out.write(bytes(8))
    return position, following


def _link(out: Any, order: str, link: int, position: int) -> None:
    end = out.tell()
    if link == 0:
        out.seek(0)
        out.write(_BIG[order] + struct.pack(f"{order}HHQ", 8, 0, position))
    else:
        out.seek(link)
        out.write(struct.pack(f"{order}Q", position))
    out.seek(end)
