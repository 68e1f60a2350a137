"""Room in GDAL's block cache, so that no block of a file is decoded twice.

Windows that end within a block come back to it with the next row of windows. JPEG 2000 takes half a second for a tile
of 1024 x 1024 pixels of four bands, so what a cache too small costs is most of the time (docs/log.md).
"""

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import rasterio

_LEAST_MB: Final = 64
_MEMORY_SHARE: Final = 4
"""The cache may take the memory limit divided by this."""
_SLACK: Final = 1.25
"""GDAL counts more than the pixels of a block, and a cache of exactly what is needed keeps none until it is needed."""


def room_for_blocks(datasets: Iterable[Any], rows: int, cols: int, memory_mb: int) -> rasterio.Env:
    """Return options of GDAL, to be entered, under which windows read in row-major order decode each block once.

    The cache stays as large as that until another one is asked for: GDAL has one for the process.

    Args:
        datasets: The open files that are read together.
        rows: Of a window.
        cols: Of a window.
        memory_mb: Memory limit of the process in MiB. The cache takes no more than a quarter of it; where a row of
            blocks is larger, they are decoded again.
    """
    needed = sum(_bytes_needed(dataset, rows, cols) for dataset in datasets)
    return rasterio.Env(GDAL_CACHEMAX=min(max(_LEAST_MB << 20, needed), (memory_mb << 20) // _MEMORY_SHARE))


def _bytes_needed(dataset: Any, rows: int, cols: int) -> int:
    """Return the size of the decoded blocks under one window, or under one row of windows where they share blocks."""
    block_rows, block_cols = dataset.block_shapes[0]
    alone = rows % block_rows == 0 and (cols % block_cols == 0 or cols >= dataset.width)
    down = max(1, rows // block_rows) if alone or block_rows % rows == 0 else (rows - 2) // block_rows + 2
    across = math.ceil((min(cols, dataset.width) if alone else dataset.width) / block_cols)
    pixel = sum(np.dtype(dtype).itemsize for dtype in dataset.dtypes)
    return int(_SLACK * down * block_rows * across * block_cols * pixel)
