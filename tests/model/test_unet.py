"""The baseline's nets have the architecture of the baseline project, and they learn."""

import math

import pytest
import torch

from cloudseg.model.nets import build_model
from cloudseg.model.unet import SimpleUNet, SimpleUNetV2, count_parameters
from cloudseg.recipe import Model
from cloudseg.train.trainer import masked_bce

HEAD = """SimpleUNet(
  (enc1): DoubleConv(
    (conv): Sequential(
      (0): Conv2d(3, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
      (1): BatchNorm2d(64, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)
      (2): ReLU(inplace=True)
      (3): Conv2d(64, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
      (4): BatchNorm2d(64, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)
      (5): ReLU(inplace=True)
    )
  )
  (pool1): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
  (enc2): DoubleConv(
    (conv): Sequential(
      (0): Conv2d(64, 128, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
      (1): BatchNorm2d(128, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)
      (2): ReLU(inplace=True)
      (3): Conv2d(128, 128, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
      (4): BatchNorm2d(128, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)
      (5): ReLU(inplace=True)
    )
  )
  (pool2): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
  (bottleneck): DoubleConv(
    (conv): Sequential(
"""
TAIL = """      (5): ReLU(inplace=True)
    )
  )
  (final): Conv2d(64, 1, kernel_size=(1, 1), stride=(1, 1))
)"""


def test_simple_unet_is_the_listed_net() -> None:
    net = SimpleUNet()
    printed = str(net).replace(", bias=True", "")  # PyTorch 2.13 began to print it for BatchNorm
    assert count_parameters(net) == 1_865_409
    assert printed.startswith(HEAD)
    assert printed.endswith(TAIL)


def test_simple_unet_v2_has_the_published_size() -> None:
    assert count_parameters(SimpleUNetV2()) == 468_097


@pytest.mark.parametrize("architecture", ["SimpleUNet", "SimpleUNetV2"])
@pytest.mark.parametrize("widths", [(4,), (4, 6), (4, 6, 8, 10, 12)])
def test_any_bands_and_levels(architecture: str, widths: tuple[int, ...]) -> None:
    net = build_model(Model(architecture=architecture, bands=("red", "swir16"), widths=widths))  # type: ignore[arg-type]
    side = 2 * 2 ** (len(widths) - 1)
    assert net.eval()(torch.zeros(2, 2, side, 2 * side)).shape == (2, 1, side, 2 * side)


def test_loss_at_step_0_is_about_ln_2() -> None:
    torch.manual_seed(0)
    label = torch.randint(0, 2, (2, 32, 32), dtype=torch.uint8)
    loss = masked_bce(SimpleUNet(widths=(8, 16))(torch.randn(2, 3, 32, 32))[:, 0], label)
    assert loss.item() == pytest.approx(math.log(2), abs=0.15)


def test_overfits_four_chips() -> None:
    torch.manual_seed(0)
    x = torch.rand(4, 3, 32, 32) * 0.2
    label = torch.zeros(4, 32, 32, dtype=torch.uint8)
    for index in range(4):
        label[index, 4 + index : 20 + index, 6:24] = 1
    x += 0.5 * label[:, None]
    net = SimpleUNet(widths=(4, 8))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = masked_bce(net(x)[:, 0], label)
        loss.backward()
        optimizer.step()
    found = net.eval()(x)[:, 0] > 0
    truth = label == 1
    assert (found & truth).sum() / (found | truth).sum() > 0.95
