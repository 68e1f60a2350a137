"""The weights file: safetensors with one JSON document that holds everything needed to predict; no pickle."""

from dataclasses import dataclass
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from cloudseg.keys import canonical_json, id_from_hash, sha256_of
from cloudseg.model.meta import WeightsMeta, bad_weights, read_meta, read_weights_header
from cloudseg.model.nets import build_model
from cloudseg.model.safetensors_header import METADATA_KEY
from cloudseg.model.unet import UNet

_VARIANCE: Final = ".running_var"
"""End of the names of BatchNorm's variances."""


@dataclass(frozen=True)
class LoadedModel:
    """A net in evaluation mode with its metadata."""

    net: UNet
    meta: WeightsMeta
    weights_id: str | None = None
    """None for a net that is not packed (validation during training)."""


def pack_weights(net: UNet, meta: WeightsMeta) -> bytes:
    """Return the safetensors bytes of a net; the same parameters and metadata produce the same bytes."""
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in net.state_dict().items()}
    return save(tensors, {METADATA_KEY: canonical_json(meta.model_dump(mode="json")).decode()})


def load_weights(data: bytes, device: torch.device | None = None) -> LoadedModel:
    """Build the net of a weights file on a device (the CPU when None), in evaluation mode.

    The file may be hostile: its header is bounded and checked against the net that the metadata describes before
    anything is allocated.

    Raises:
        BadWeights: not a safetensors file, or not one of a supported net.
    """
    header = read_weights_header(data)
    meta = read_meta(header)
    _check_shapes(header, meta)
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise bad_weights("not a safetensors file", found=error) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values() if tensor.is_floating_point()):
        raise bad_weights("a parameter is not finite")
    if negative := sorted(
        name for name, values in tensors.items() if name.endswith(_VARIANCE) and bool((values < 0).any())
    ):
        # Its root is NaN, and so is then everything that the net computes.
        raise bad_weights("a variance is negative", found=negative[0], expected="running variances of 0 or more")
    net = build_model(meta.model)
    net.load_state_dict(tensors, strict=True)
    return LoadedModel(net.to(device or torch.device("cpu")).eval(), meta, id_from_hash("w", sha256_of(data)))


def _check_shapes(header: dict[str, Any], meta: WeightsMeta) -> None:
    with torch.device("meta"):  # shapes only, no memory
        expected = {name: list(tensor.shape) for name, tensor in build_model(meta.model).state_dict().items()}
    found = {
        name: entry.get("shape") for name, entry in header.items() if name != "__metadata__" and isinstance(entry, dict)
    }
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise bad_weights(
            f"{len(wrong)} tensors do not fit the net {meta.architecture} {meta.widths}",
            found=f"{name} {found.get(name, 'absent')}",
            expected=f"{name} {expected.get(name, 'absent')}",
        )
    odd = sorted({str(header[name].get("dtype")) for name in expected} - {"F32", "I64"})
    if odd:
        raise bad_weights("tensors of another type", found=", ".join(odd), expected="F32 (I64 for counters)")
