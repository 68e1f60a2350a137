"""Read where the directories of a TIFF say that its pixels are, without GDAL; size of the raster that a header claims.

Small files can claim a lot: many tiles at one place in the file unfold to many times its size. TIFF 6.0, section 2, and
the BigTIFF design (libtiff.gitlab.io/libtiff/specification/bigtiff.html); JPEG 2000 Part 1, annexes A.5.1 and I.5.3.1.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from cloudseg.errors import BadScene

_MAX_DIRECTORIES: Final = 256
"""A COG has one for each overview and mask; a file with more is a document or an attack."""
_MAX_ENTRIES: Final = 4_096
_MAX_BLOCKS: Final = 16_000_000
"""A raster of 400 million pixels and four bands in blocks of 16 x 16 has six million."""
_WIDTH, _HEIGHT, _BITS, _SAMPLES = 256, 257, 258, 277
_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS = 273, 279, 324, 325
_SIZE: Final = frozenset({_WIDTH, _HEIGHT, _BITS, _SAMPLES})
_BLOCKS: Final = frozenset({_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS})
_DTYPES: Final = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
"""Integer types of a field: all that libtiff accepts for offsets, signed ones among them."""

Integers = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class TiffFormat:
    """How the numbers of a TIFF are written."""

    order: str
    entry: struct.Struct
    count: struct.Struct
    offset: struct.Struct
    dtype_offset: str


def claimed_bytes(handle: IO[bytes]) -> int | None:
    """Return the size of all pixels that the header of a TIFF or JPEG 2000 file claims; None for another file.

    Args:
        handle: A file that can be read at any position.
    """
    handle.seek(0)
    head = handle.read(4096)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        try:
            fields = next(_directories(handle, _SIZE), {})
            numbers = [int(fields[tag][0]) for tag in (_WIDTH, _HEIGHT)]
            samples = int(fields[_SAMPLES][0]) if _SAMPLES in fields else 1
            bits = int(fields[_BITS].max()) if _BITS in fields else 1
        except (KeyError, IndexError, ValueError, struct.error, BadScene):
            return None
        return numbers[0] * numbers[1] * samples * -(-bits // 8)
    position = head.find(b"\xff\x4f\xff\x51")  # start of codestream, then the marker of the size
    if head.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f")) and position >= 0 and len(head) >= position + 42:
        right, lower, left, top = struct.unpack_from(">IIII", head, position + 8)
        (components,) = struct.unpack_from(">H", head, position + 40)
        return int(max(0, right - left) * max(0, lower - top) * components * 4)
    return None


def check_blocks(handle: IO[bytes], display_name: str) -> None:
    """Check that no two tiles or strips of a TIFF are the same bytes of the file.

    Blocks of no bytes are left out: GDAL writes them for tiles that are empty (SPARSE_OK).

    Args:
        handle: A TIFF that can be read at any position.
        display_name: The file's name, for messages.

    Raises:
        BadScene: Blocks share bytes, or the directories are endless.
    """
    try:
        for fields in _directories(handle, _BLOCKS):
            for offsets, counts in ((_TILE_OFFSETS, _TILE_COUNTS), (_STRIP_OFFSETS, _STRIP_COUNTS)):
                if offsets in fields:
                    _check_shared(fields[offsets], fields.get(counts, np.empty(0, np.uint64)), display_name)
    except (struct.error, ValueError) as error:
        raise BadScene(
            "the header of the raster cannot be read",
            subject=display_name,
            found=" ".join(str(error).split())[:200],
            expected="a TIFF directory",
            next_step="Get the file again from its source.",
        ) from error
    except BadScene as error:
        raise BadScene(
            error.what, subject=display_name, found=error.found, expected=error.expected, next_step=error.next_step
        ) from error


def _check_shared(offsets: Integers, counts: Integers, display_name: str) -> None:
    # libtiff estimates counts that are missing: of such blocks no two may begin at the same place.
    sizes_of = np.ones(len(offsets), np.uint64)
    sizes_of[: len(counts)] = counts[: len(offsets)]
    stored = (sizes_of > 0) & (offsets > 0)
    order = np.argsort(offsets[stored], kind="stable")
    starts, sizes = offsets[stored][order], sizes_of[stored][order]
    shared = int(np.count_nonzero(starts[1:] - starts[:-1] < sizes[:-1]))
    if shared:
        raise BadScene(
            "tiles or strips of the file share the same bytes",
            subject=display_name,
            found=f"{shared} of {len(offsets)} blocks begin inside of another",
            expected="a block of its own for each tile",
            next_step="Write the file again (GDAL: gdal_translate). If you did not make it, it may be malicious.",
        )


def _directories(handle: IO[bytes], wanted: frozenset[int]) -> Iterator[dict[int, Integers]]:
    """Yield the wanted integer fields of each directory of the file.

    Raises:
        BadScene: There are too many, or one comes twice.
        ValueError: A directory is outside the file, or too large.
        struct.error: The file ends in a directory.
    """
    kind, position = tiff_format(handle)
    seen: set[int] = set()
    while position:
        if position in seen or len(seen) >= _MAX_DIRECTORIES:
            raise BadScene(
                "the directories of the file are endless",
                found=f"{len(seen)} directories",
                expected=f"at most {_MAX_DIRECTORIES}, each once",
                next_step="Get the file again from its source.",
            )
        seen.add(position)
        handle.seek(position)
        (entries,) = kind.count.unpack(handle.read(kind.count.size))
        if entries > _MAX_ENTRIES:
            raise ValueError(f"{entries} entries in a directory")
        data = handle.read(entries * kind.entry.size)
        (position,) = kind.offset.unpack(handle.read(kind.offset.size))
        yield _fields(handle, kind, data, wanted)


def tiff_format(handle: IO[bytes]) -> tuple[TiffFormat, int]:
    """Return how the file is written, and where its first directory is."""
    handle.seek(0)
    head = handle.read(16)
    order = "<" if head[:2] == b"II" else ">"
    if struct.unpack_from(f"{order}H", head, 2) == (43,):
        kind = TiffFormat(
            order, struct.Struct(f"{order}HHQ8s"), struct.Struct(f"{order}Q"), struct.Struct(f"{order}Q"), "u8"
        )
        return kind, int(struct.unpack_from(f"{order}Q", head, 8)[0])
    kind = TiffFormat(
        order, struct.Struct(f"{order}HHI4s"), struct.Struct(f"{order}H"), struct.Struct(f"{order}I"), "u4"
    )
    return kind, int(struct.unpack_from(f"{order}I", head, 4)[0])


def _fields(handle: IO[bytes], kind: TiffFormat, data: bytes, wanted: frozenset[int]) -> dict[int, Integers]:
    found: dict[int, Integers] = {}
    for tag, code, count, value in kind.entry.iter_unpack(data):
        if tag not in wanted or code not in _DTYPES or tag in found:
            continue
        if count > _MAX_BLOCKS:
            raise ValueError(f"{count} values in a field")
        dtype = np.dtype(f"{kind.order}{_DTYPES[code]}")
        size = count * dtype.itemsize
        if size > len(value):
            handle.seek(int(np.frombuffer(value, f"{kind.order}{kind.dtype_offset}")[0]))
            value = handle.read(size)
        if len(value) < size:
            raise ValueError("the file ends in a field")
        found[tag] = np.frombuffer(value[:size], dtype).astype(np.uint64)
    return found
