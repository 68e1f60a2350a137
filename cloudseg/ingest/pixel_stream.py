"""The pixels of a canonical raster on their way from the decoder process to the writer process, through a pipe.

One JSON line that says how they come, then the windows in row-major order as plain numbers in the machine's byte order,
then one byte that says that the decoder is content with them. No format is parsed: whatever the bytes are, they are
pixels, too few or too many.
"""

import io
import os
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from cloudseg.errors import BadScene
from cloudseg.grid import Window
from cloudseg.ingest.job import WindowedPixels

_COMMIT: Final = b"."
_MAX_LINE: Final = 1 << 16
_CHUNK: Final = 1 << 20

W = TypeVar("W", bound=WindowedPixels)


def windows_of(height: int, width: int, pixels: WindowedPixels) -> Iterator[Window]:
    """Yield the windows of a raster in the order of the stream."""
    for row in range(0, height, pixels.rows):
        for col in range(0, width, pixels.cols):
            yield Window(row, col, min(pixels.rows, height - row), min(pixels.cols, width - col))


class PixelSender:
    """The decoder's end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def begin(self, pixels: WindowedPixels) -> None:
        """Send what the windows that follow make."""
        self._send(pixels.model_dump_json().encode() + b"\n")

    def send(self, values: npt.NDArray[Any]) -> None:
        """Send the next window: `(band, row, col)` of a scene, `(row, col)` of a label."""
        self._send(np.ascontiguousarray(values).data.cast("B"))

    def commit(self) -> None:
        """Send that these were all pixels and that the raster is good, and close the pipe."""
        self._send(_COMMIT)
        os.close(self._descriptor)

    def _send(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest[:_CHUNK]) :]


class PixelReceiver:
    """The writer's end: what arrives is not trusted."""

    def __init__(self, descriptor: int) -> None:
        self._file = io.BufferedReader(io.FileIO(descriptor), _CHUNK)

    def close(self) -> None:
        """Close the pipe; what else the decoder sends gets an error."""
        self._file.close()

    def begin(self, kind: type[W]) -> W:
        """Return what the windows that follow make.

        Raises:
            EOFError: The decoder ended before it sent anything; its own answer says why.
            ValidationError: It is not a line of this kind.
        """
        line = self._file.readline(_MAX_LINE)
        if not line:
            raise EOFError
        return kind.model_validate_json(line)

    def receive(self, shape: tuple[int, ...], dtype: type[np.uint8 | np.uint16]) -> npt.NDArray[Any]:
        """Return the next window.

        Raises:
            EOFError: The decoder ended before it sent all of it.
        """
        values = np.empty(shape, dtype)
        buffer = values.data.cast("B") if values.size else memoryview(b"")
        if self._file.readinto(buffer) != len(buffer):
            raise EOFError
        return values

    def finish(self) -> None:
        """Wait until the decoder is content with what it sent.

        Raises:
            EOFError: It is not.
            BadScene: There are more pixels than the raster has.
        """
        end = self._file.read(1)  # not to the end of the file: a process that the decoder left may hold the pipe open
        if not end:
            raise EOFError
        if end != _COMMIT:
            raise BadScene(
                "the decoder sent more pixels than the raster has",
                next_step="Inspect the file before trying again: it may be malicious.",
            )
