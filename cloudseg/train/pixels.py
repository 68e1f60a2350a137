"""Where the pixels of a batch come from: the memory-mapped shards, or a copy of the chips in a GPU's memory.

The copy holds canonical digital numbers as uint16 and labels as uint8, so a chip is cut, augmented and normalized
without passing through the host. It has not been run on a GPU yet; the tests compare both on the CPU.
"""

import logging
from collections.abc import Sequence
from typing import Final, Protocol

import torch

from cloudseg.bands import NO_DATA, REFLECTANCE_SCALE
from cloudseg.dataset.chips import ChipSet
from cloudseg.model.normalize import to_reflectance
from cloudseg.model.pixels import observed
from cloudseg.records import Chip
from cloudseg.train.augment import Draw, Sample

log = logging.getLogger(__name__)
_SHARE: Final = 0.25
"""Of the free memory of a GPU; the rest is for activations, which grow with the batch."""


class Pixels(Protocol):
    """Windows of chips on one device."""

    device: torch.device

    def window(self, chip: Chip, draw: Draw) -> Sample:
        """Return the window of a draw; the sample may share memory with the chips and must not be changed."""


class HostPixels:
    """The memory-mapped shards: a window is decoded on the CPU."""

    device = torch.device("cpu")

    def __init__(self, chip_set: ChipSet) -> None:
        self._set = chip_set

    def window(self, chip: Chip, draw: Draw) -> Sample:
        """Return the window of a draw."""
        rows, cols = draw.window
        dn, label = self._set.pixels(chip)[:, rows, cols], self._set.label(chip)[rows, cols]
        return Sample(to_reflectance(dn), torch.from_numpy(label.copy()), torch.from_numpy(observed(dn)))


class DevicePixels:
    """A copy of the chips in the memory of a device, made once.

    Args:
        chip_set: pixels and labels.
        chips: those to copy.
        device: destination.
    """

    def __init__(self, chip_set: ChipSet, chips: Sequence[Chip], device: torch.device) -> None:
        size, bands = chip_set.chip_size, len(chip_set.bands)
        self.device = device
        self._numbers = {chip.chip_id: number for number, chip in enumerate(chips)}
        self._dn = torch.empty((len(chips), bands, size, size), dtype=torch.uint16, device=device)
        self._label = torch.empty((len(chips), size, size), dtype=torch.uint8, device=device)
        for number, chip in enumerate(chips):
            self._dn[number].copy_(torch.from_numpy(chip_set.pixels(chip).copy()))
            self._label[number].copy_(torch.from_numpy(chip_set.label(chip).copy()))

    def window(self, chip: Chip, draw: Draw) -> Sample:
        """Return the window of a draw: slices with indices that the host knows, so nothing waits for the device."""
        number, (rows, cols) = self._numbers[chip.chip_id], draw.window
        dn = self._dn[number, :, rows, cols].float()
        valid = (dn != NO_DATA).all(dim=0)
        return Sample(dn.div_(REFLECTANCE_SCALE), self._label[number, rows, cols], valid)


def choose_pixels(chip_set: ChipSet, chips: Sequence[Chip], device: torch.device) -> Pixels:
    """Return where to cut the chips from: the GPU if they fit into a quarter of its free memory, else the host."""
    if device.type != "cuda":
        return HostPixels(chip_set)
    needed, (free, _) = chip_bytes(chip_set) * len(chips), torch.cuda.mem_get_info(device)
    if not fits(needed, free):
        log.info("%.1f GB of chips stay on the host: the GPU has %.1f GB free", needed / 1e9, free / 1e9)
        return HostPixels(chip_set)
    log.info("%d chips, %.1f GB, are copied to the GPU, which has %.1f GB free", len(chips), needed / 1e9, free / 1e9)
    return DevicePixels(chip_set, chips, device)


def chip_bytes(chip_set: ChipSet) -> int:
    """Return the bytes of a chip on a device: two for each band of a pixel, one for its label."""
    return (2 * len(chip_set.bands) + 1) * chip_set.chip_size**2


def fits(needed: int, free: int) -> bool:
    """Return whether so many bytes of chips may be copied to a GPU with so many bytes free."""
    return needed <= _SHARE * free
