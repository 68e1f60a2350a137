"""Damage that no reader of the format notices: one flipped bit, as a disk or a memory makes it."""

from pathlib import Path

import numpy as np
import rasterio


def flip_a_bit_unnoticed(path: Path) -> int:
    """Flip one bit of a GeoTIFF so that it still decodes without an error, to other pixels; return its byte."""
    whole = path.read_bytes()
    with rasterio.open(path) as dataset:
        before = dataset.read()
    for at in range(len(whole) // 3, len(whole), 37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            with rasterio.open(path) as dataset:
                if not np.array_equal(dataset.read(), before):
                    return at
        except rasterio.errors.RasterioError:
            continue
    raise AssertionError(f"every flipped bit of {path} is noticed")
