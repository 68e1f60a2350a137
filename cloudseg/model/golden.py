"""The golden tile: an input and the probability that a net gave for it before it was packed.

The trainer and the import of foreign weights make it and publish it beside the weights (companion `golden`). Before a
promotion, a clean process loads the published file and must reproduce it (`cloudseg.evaluate.blessing`).
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from cloudseg.bands import NO_DATA
from cloudseg.errors import BadWeights
from cloudseg.model.device import Device
from cloudseg.model.normalize import observed
from cloudseg.model.predictor import Predictor
from cloudseg.model.weights import LoadedModel

GOLDEN_FILE: Final = "golden.safetensors"
TOLERANCE: Final = 1e-4
"""Largest difference of a probability. Measured in fp32 between one and two threads: below 1e-7; other processors order
sums differently, hence the room. Even an untrained net with a mean that is off by 0.01 differs by more."""
_SIZE: Final = 128
_SEED: Final = 20200229


def pack_golden(loaded: LoadedModel) -> bytes:
    """Give the safetensors bytes of a golden tile: seeded digital numbers and this net's probability for them (CPU, fp32)."""
    dn = _dn(len(loaded.meta.bands))
    probability = _predict(loaded, dn)
    # int32: not every reader of safetensors knows uint16.
    return save({"dn": torch.from_numpy(dn.astype(np.int32)), "probability": torch.from_numpy(probability)})


def golden_difference(loaded: LoadedModel, golden: bytes) -> float:
    """Give the largest difference between the stored probability and that of a net. Raises BadWeights for an unusable tile."""
    try:
        tensors = load(golden)
        dn, expected = tensors["dn"].numpy().astype(np.uint16), tensors["probability"].numpy()
    except (SafetensorError, KeyError) as error:
        raise BadWeights("the golden tile cannot be read", subject=str(loaded.weights_id), found=error) from error
    if dn.ndim != 3 or dn.shape[0] != len(loaded.meta.bands) or expected.shape != dn.shape[1:]:
        raise BadWeights(
            "the golden tile does not fit the net", subject=str(loaded.weights_id), found=f"{dn.shape} and {expected.shape}",
            expected=f"{len(loaded.meta.bands)} bands",
        )  # fmt: skip
    difference = np.abs(_predict(loaded, dn) - expected)
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")


def _predict(loaded: LoadedModel, dn: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    device = Device(kind="cpu", precision="fp32", threads=torch.get_num_threads(), reason="the golden tile is made and checked in fp32")
    probability: npt.NDArray[np.float32] = Predictor(loaded, device).probability(dn[np.newaxis], observed(dn)[np.newaxis])[0]
    return probability


def _dn(bands: int) -> npt.NDArray[np.uint16]:
    """Give seeded digital numbers `(band, row, col)`: dark to saturated, coarse and fine structure, a corner without data."""
    random = np.random.default_rng(_SEED)
    coarse = random.integers(100, 9000, (bands, 8, 8)).repeat(_SIZE // 8, axis=1).repeat(_SIZE // 8, axis=2)
    dn: npt.NDArray[np.uint16] = np.clip(coarse + random.integers(-90, 1000, (bands, _SIZE, _SIZE)), 1, 10_000).astype(np.uint16)
    dn[:, : _SIZE // 8, : _SIZE // 8] = NO_DATA
    return dn
