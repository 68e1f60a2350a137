"""Refuse a scene whose values contradict the offset that was applied, with both readings in the message.

Runs in the sandboxed decoder process.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from cloudseg.bands import RGB
from cloudseg.errors import BadScene
from cloudseg.grid import Window
from cloudseg.ingest.georeference import Grid
from cloudseg.ingest.layer import Layer
from cloudseg.ingest.plausibility import find_wrong_offset
from cloudseg.ingest.radiometry import BandScale
from cloudseg.ingest.untrusted import read_window

_OFFSET: Final = -0.1
"""Reflectance of the offset of Sentinel-2 since processing baseline 04.00."""
_SAMPLE: Final = 1024
"""Side in pixels of the part in the middle from which the readings are computed."""


def check_offset(
    counts: npt.NDArray[np.int64], scales: dict[str, BandScale], layers: list[Layer], grid: Grid, display_name: str
) -> None:
    """Check that the canonical digital numbers fit the offset of each band.

    Args:
        counts: Histogram of the valid canonical digital numbers `(band, number)`, as far as they go.
        scales: Scale by band name, in the order of `counts`.
        layers: The open files, for the message.
        grid: Their common grid.
        display_name: The scene's name, for messages.

    Raises:
        BadScene: Reflectance is below 0 in much of the scene, or a guess without offset meets values that never fall
            below that offset.
    """
    contradiction = find_wrong_offset(counts, scales)
    if contradiction is None:
        return
    guessed = any(scale.radiometry.guessed for scale in scales.values())
    assumed = any(scale.assumed for scale in scales.values())
    sources = list(dict.fromkeys(scale.radiometry.source for scale in scales.values()))
    raise BadScene(
        f"the values contradict the offset that {'was guessed' if guessed else 'the metadata states'}: {contradiction}",
        subject=display_name,
        found=f"{_readings(layers, grid)} ({'; '.join(sources)})"[:1_000],
        expected="reflectance above 0, and dark pixels near 0",
        next_step="Write scale and offset into the file (GDAL: gdal_edit.py -scale 0.0001 -offset -0.1, or -offset 0 "
        "with -scale 0.0001 if the offset has been removed)."
        if assumed
        else "Put the product's metadata (MTD_MSIL1C.xml, MTD_MSIL2A.xml or its STAC item) beside the bands."
        if guessed
        else "Get metadata and bands of the same processing; the offset may have been removed from the bands already.",
    )


def _readings(layers: list[Layer], grid: Grid) -> str:
    """Return how red, green and blue read with and without the offset."""
    rows, cols = min(_SAMPLE, grid.height), min(_SAMPLE, grid.width)
    window = Window((grid.height - rows) // 2, (grid.width - cols) // 2, rows, cols)
    with_offset, without = [], []
    for layer in layers:
        for index, name, scale in zip(layer.indexes, layer.names, layer.scales, strict=True):
            if name not in RGB:
                continue
            dn = read_window(layer.view, index, window, layer.job.display_name).astype(np.float64)
            dn = dn[np.isfinite(dn) & ~np.isin(dn, scale.fills)] * scale.radiometry.scale
            if dn.size:
                offset = scale.radiometry.offset or _OFFSET
                below = 100 * float(np.mean(dn + offset <= 0))
                with_offset.append(f"{name} median {np.median(dn + offset):.3f}, {below:.0f} % not above 0")
                without.append(f"{name} median {np.median(dn):.3f}")
    offsets = sorted({scale.radiometry.offset or _OFFSET for layer in layers for scale in layer.scales})
    named = ", ".join(f"{offset:g}" for offset in offsets)
    return f"with offset {named}: {', '.join(with_offset)}; without: {', '.join(without)}"
