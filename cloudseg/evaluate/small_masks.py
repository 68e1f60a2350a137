"""Label and mask of the scenes of an evaluation, reduced, in one object: pictures of any two models without a net.

The object is a ZIP of PNGs named after the scenes; a gray value is 3 x class of the label + class of the mask, with
0 clear, 1 cloud, 2 none. The same masks give the same bytes.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from cloudseg.bands import MASK_NO_DATA
from cloudseg.records import Evaluation
from cloudseg.storage import Store

SIDE: Final = 288
"""Longest side in pixels, that of a panel: a scene is about 5 kB."""
MOST_SCENES: Final = 2_000
"""Of an evaluation, in the order of their ids, which are hashes: two models keep the same ones. About 10 MB."""
ASSET: Final = "masks"
"""Name of the object in `Evaluation.report`; evaluations of earlier releases have none."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""Of every entry: the first time that a ZIP can hold."""
_NONE: Final = 2

UInt8 = npt.NDArray[np.uint8]


def encode_small(label: UInt8, mask: UInt8) -> bytes:
    """Return the PNG of a reduced label and mask, both `(row, col)` of 0, 1 and 255."""
    codes = 3 * np.where(label == MASK_NO_DATA, _NONE, label) + np.where(mask == MASK_NO_DATA, _NONE, mask)
    out = io.BytesIO()
    Image.fromarray(codes.astype(np.uint8)).save(out, "PNG", optimize=True)
    return out.getvalue()


def decode_small(png: bytes) -> tuple[UInt8, UInt8]:
    """Return label and mask `(row, col)` of a PNG of `encode_small`."""
    with Image.open(io.BytesIO(png)) as image:
        codes = np.asarray(image)
    label, mask = np.divmod(codes, np.uint8(3))
    return _classes(label), _classes(mask)


def _classes(codes: UInt8) -> UInt8:
    return np.where(codes == _NONE, np.uint8(MASK_NO_DATA), codes)


def pack_small(pngs: Mapping[str, bytes]) -> bytes:
    """Return the object of the PNGs by scene id, of the first `MOST_SCENES` of them."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for scene_id in sorted(pngs)[:MOST_SCENES]:
            archive.writestr(zipfile.ZipInfo(f"{scene_id}.png", _EPOCH), pngs[scene_id])
    return out.getvalue()


def read_small(store: Store, evaluation: Evaluation, scene_ids: Sequence[str]) -> dict[str, tuple[UInt8, UInt8]]:
    """Return label and mask of scenes, of those that the evaluation kept.

    Raises:
        ObjectMissing: the store lacks the object.
        ObjectCorrupt: its bytes do not match their checksum.
    """
    stored = evaluation.report.get(ASSET)
    if stored is None:
        return {}
    with zipfile.ZipFile(io.BytesIO(store.get(stored["key"], stored["sha256"]))) as archive:
        there = set(archive.namelist())
        return {
            scene_id: decode_small(archive.read(f"{scene_id}.png"))
            for scene_id in scene_ids
            if f"{scene_id}.png" in there
        }
