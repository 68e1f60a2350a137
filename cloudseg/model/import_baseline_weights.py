"""Read the weights that the baseline project published: tensors only, nothing of the pickle is executed."""

from pathlib import Path
from typing import Any

import torch

from cloudseg.bands import LANDSAT_L1, NIR, RGB
from cloudseg.errors import BadWeights
from cloudseg.model.meta import WeightsMeta
from cloudseg.model.unet import SimpleUNetV2, count_parameters

_FULL_SCALE = 65_535
"""The baseline project divided raw Landsat Level-1 digital numbers by this."""

BASELINE_MEAN = LANDSAT_L1.offset
BASELINE_STD = LANDSAT_L1.scale * _FULL_SCALE
BASELINE_CLIP = LANDSAT_L1.scale * _FULL_SCALE + LANDSAT_L1.offset
"""x = DN / 65535 where reflectance = DN * 2e-5 - 0.1, hence x = (reflectance + 0.1) / 1.3107.

The clip is the reflectance of DN 65535, so it changes nothing. Pixels without data have DN 0, and x = 0, in both.
"""


def read_baseline_weights(path: Path) -> tuple[SimpleUNetV2, WeightsMeta]:
    """Return the net in evaluation mode and its metadata: red, green, blue, nir, threshold 0.5.

    Raises:
        BadWeights: the file cannot be read, holds anything but tensors, or tensors of another net.
    """
    net = SimpleUNetV2()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(state, dict):
            _check_real(state, net)
            net.load_state_dict(state, strict=True)
    except BadWeights as error:
        raise BadWeights(error.what, subject=path.name, found=error.found, expected=error.expected) from error
    except OSError as error:
        raise BadWeights("the file cannot be read", subject=path.name, found=error.strerror or error) from error
    except Exception as error:
        # torch's reader raises errors of every kind for damaged bytes (fuzzing: IndexError, KeyError, ...). Its message
        # is not repeated: for a file that is not plain tensors it recommends unpickling it anyway.
        raise BadWeights(
            "not the baseline's weights",
            subject=path.name,
            found=f"a file that torch rejects ({type(error).__name__})",
            expected="the state of SimpleUNetV2 (468,097 parameters)",
            next_step="Use the .pth file that the baseline project published.",
        ) from error
    if not isinstance(state, dict):
        raise BadWeights("the file holds no dictionary of tensors", subject=path.name, found=type(state).__name__)
    return net.eval(), _baseline_meta(net)


def _check_real(state: dict[Any, Any], net: SimpleUNetV2) -> None:
    """Raise BadWeights for a parameter of another kind of number: torch would drop an imaginary part in silence."""
    for name, parameter in net.state_dict().items():
        found = state.get(name)
        if isinstance(found, torch.Tensor) and found.is_floating_point() != parameter.is_floating_point():
            raise BadWeights(
                "a parameter is of another kind of number",
                found=f"{name}: {str(found.dtype).removeprefix('torch.')}",
                expected=str(parameter.dtype).removeprefix("torch."),
            )


def _baseline_meta(net: SimpleUNetV2) -> WeightsMeta:
    return WeightsMeta(
        architecture="SimpleUNetV2",
        bands=(*RGB, NIR),
        widths=net.widths,
        dropout=0.3,
        total_parameters=count_parameters(net),
        clip=BASELINE_CLIP,
        mean=(BASELINE_MEAN,),
        std=(BASELINE_STD,),
        working_resolution_m=None,
        threshold=0.5,
        tta_flip=False,
        chip_size=384,
        recipe_name="baseline-published",
    )
