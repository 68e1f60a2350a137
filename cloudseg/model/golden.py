"""The golden sample: input and expected output that are published with weights. A clean process must reproduce it."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from cloudseg.errors import BadWeights
from cloudseg.keys import canonical_json
from cloudseg.model.device import Device
from cloudseg.model.pixels import observed
from cloudseg.model.safetensors_header import METADATA_KEY, read_metadata
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.weights import LoadedModel

GOLDEN_FILE: Final = "golden.safetensors"
FORMAT: Final = "cloudseg-golden-1"
TOLERANCE: Final = 2e-3
"""Largest difference of probability that another CPU's float32 arithmetic may make.

A wrong band order, scale or net makes a far larger one.
"""
_SIDE: Final = 192
"""Pixels; the file has about 370 kB with three bands."""
REFERENCE_DEVICE: Final = Device(
    kind="cpu", precision="fp32", threads=0, reason="golden samples are computed on the CPU in fp32"
)


@dataclass(frozen=True)
class GoldenSample:
    """`dn` uint16 `(1, band, row, col)`, `probability` float32 `(1, row, col)`, meaningless at invalid pixels."""

    weights_id: str | None
    dn: npt.NDArray[np.uint16]
    probability: npt.NDArray[np.float32]


def pack_golden(loaded: LoadedModel, dn: npt.NDArray[np.uint16] | None = None) -> bytes:
    """Return the golden sample of weights as safetensors bytes.

    Args:
        loaded: the weights.
        dn: canonical uint16 `(band, row, col)` in the order of the weights' bands, cut to 192 × 192; None uses smooth
            random fields from dark to bright.

    Raises:
        BadWeights: the net's output is not finite.
    """
    pixels = _smooth_fields(len(loaded.meta.bands)) if dn is None else np.ascontiguousarray(dn[:, :_SIDE, :_SIDE])
    valid = observed(pixels)[None]
    probability = TorchPredictor(loaded, REFERENCE_DEVICE).probability(pixels[None], valid)
    if not np.isfinite(probability[valid]).all():
        raise BadWeights(
            "the net's output on the golden sample is not finite",
            subject=loaded.weights_id or "weights",
            found=f"{int((~np.isfinite(probability[valid])).sum())} of {int(valid.sum())} pixels",
            expected="a probability between 0 and 1",
            next_step="These weights cannot predict: use others.",
        )
    header = canonical_json({"format": FORMAT, "weights_id": loaded.weights_id, "tolerance": TOLERANCE}).decode()
    # safetensors writes an array's memory as it is: only C order can be read back.
    tensors: dict[str, npt.NDArray[Any]] = {
        "dn": np.ascontiguousarray(pixels[None]),
        "probability": np.ascontiguousarray(probability),
    }
    return save(tensors, {METADATA_KEY: header})


def read_golden(data: bytes) -> GoldenSample:
    """Read a golden sample.

    Raises:
        BadWeights: not a golden sample.
    """
    try:
        header, tensors = read_metadata(data), load(data)
        return GoldenSample(header["weights_id"], tensors["dn"], tensors["probability"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BadWeights("not a golden sample", found=error, expected=FORMAT) from error


def golden_difference(loaded: LoadedModel, golden: GoldenSample) -> float:
    """Return the largest difference of probability between a golden sample and these weights, over valid pixels."""
    valid = observed(golden.dn)
    found = TorchPredictor(loaded, REFERENCE_DEVICE).probability(golden.dn, valid)
    return float(np.abs(found - golden.probability)[valid].max(initial=0.0))


def _smooth_fields(bands: int) -> npt.NDArray[np.uint16]:
    """Return coarse seeded noise between 0 and 0.8 reflectance, interpolated, the same on every machine."""
    coarse = np.random.default_rng(20_240_101).integers(1, 8000, (bands, 9, 9))
    at = np.linspace(0, 8, _SIDE)
    cell = np.minimum(at.astype(int), 7)
    part = at - cell
    rows = coarse[:, cell] * (1 - part)[:, None] + coarse[:, cell + 1] * part[:, None]
    fields = rows[:, :, cell] * (1 - part) + rows[:, :, cell + 1] * part
    pixels: npt.NDArray[np.uint16] = np.maximum(np.rint(fields), 1).astype(np.uint16)
    return pixels
