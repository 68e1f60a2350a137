"""The moving average of a net: it forgets the first random weights fast, and later moves slowly."""

import pytest
import torch

from cloudseg.model.nets import build_model
from cloudseg.model.unet import UNet
from cloudseg.train.trainer import EMA
from tests.tiny_world import recipe


def filled(value: float) -> UNet:
    """A net whose parameters and statistics all are one number."""
    net = build_model(recipe().model)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.fill_(value)
    return net


@pytest.mark.parametrize(
    ("step", "decay"), [(0, 1 / 10), (1, 2 / 11), (8, 9 / 18), (80, 81 / 90), (81, 0.9), (100_000, 0.9)]
)
def test_the_decay_grows_up_to_its_value(step: int, decay: float) -> None:
    """min(0.9, (1 + n) / (10 + n)) of the average stays, the rest is the new net."""
    average = EMA(filled(1.0), decay=0.9)
    average.update(filled(0.0), step)
    for name, tensor in average.net.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, torch.full_like(tensor, decay), msg=name)


def test_counters_are_copied_and_the_followed_net_stays() -> None:
    net = filled(3.0)
    average = EMA(filled(1.0), decay=0.9)
    average.update(net, 0)
    counters = [tensor for tensor in average.net.state_dict().values() if not tensor.is_floating_point()]
    assert counters
    assert all(int(tensor) == 3 for tensor in counters), "num_batches_tracked of BatchNorm"
    assert all(bool((tensor == 3).all()) for tensor in net.state_dict().values())


def test_the_average_is_a_copy_without_gradients() -> None:
    net = filled(1.0)
    average = EMA(net, decay=0.9)
    with torch.no_grad():
        net.final.weight.fill_(5.0)
    assert bool((average.net.final.weight == 1).all())
    assert not any(parameter.requires_grad for parameter in average.net.parameters())
    assert not average.net.training
