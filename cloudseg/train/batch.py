"""Training batches: each is a pure function of the seed and the step, so a resumed run needs only its step."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from cloudseg.dataset.chips import ChipSet
from cloudseg.model.normalize import Scaling, normalize, observed, to_reflectance
from cloudseg.recipe import Recipe
from cloudseg.records import Chip
from cloudseg.train.augment import Sample, augment_sample, zoom_factor
from cloudseg.train.data import CHOICE_STREAM

_CLEAR_BELOW: Final = 0.05
_OVERCAST_ABOVE: Final = 0.95
"""Cloud fractions of a chip that separate the three kinds between which `balance` draws evenly."""
_AHEAD: Final = 3
_THREADS: Final = 2
"""Batches made ahead of the step that uses them; two threads keep up with a step of two cores."""
_MIN_CROP: Final = 16
"""Pixels per side of the smallest window that a zoom may enlarge."""

# Streams of random numbers, kept apart by the entry after the seed in numpy's seed sequence.
_ORDER, _KIND, _SAMPLE = range(CHOICE_STREAM + 1, CHOICE_STREAM + 4)


@dataclass(frozen=True)
class Batch:
    """Input of a training step: x float32 `(batch, band, row, col)`, label uint8 `(batch, row, col)`."""

    x: torch.Tensor
    label: torch.Tensor


class Batches:
    """The batches of one process; `rank` of `world_size` processes share each step without overlap.

    Args:
        chip_set: pixels and labels.
        chips: those to draw from.
        recipe: batch size, crop, balance, augmentation, scaling and seed.
        rank: number of this process.
        world_size: number of processes.
        pin_memory: whether batches are in page-locked memory, from which a copy to a GPU can overlap with computation
            (as in `torch.utils.data.DataLoader`). Has not been run on a GPU yet.
    """

    def __init__(
        self,
        chip_set: ChipSet,
        chips: list[Chip],
        recipe: Recipe,
        *,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        self._set, self._chips, self._recipe = chip_set, chips, recipe
        self._rank, self._world_size, self._pin_memory = rank, world_size, pin_memory
        self._size = recipe.data.crop_size or chip_set.chip_size
        self._scaling = Scaling(recipe.input.clip, recipe.input.mean, recipe.input.std)
        self._kinds = [kind for kind in _by_kind(chips) if kind] if recipe.data.balance else []

    @property
    def steps_per_pass(self) -> int:
        """Steps after which every chip was drawn once (on average, with `balance`)."""
        return -(-len(self._chips) // (self._recipe.budget.batch_size * self._world_size))

    def make(self, step: int) -> Batch:
        """Make the batch of a step."""
        size = self._recipe.budget.batch_size
        first = (step * self._world_size + self._rank) * size
        samples = [self._sample(number) for number in range(first, first + size)]
        reflectance, valid = torch.stack([s.reflectance for s in samples]), torch.stack([s.valid for s in samples])
        x = normalize(reflectance, valid, self._scaling).contiguous(memory_format=torch.channels_last)
        label = torch.stack([s.label for s in samples])
        return Batch(x.pin_memory(), label.pin_memory()) if self._pin_memory else Batch(x, label)

    def iter_from(self, step: int, stop: int) -> Iterator[Batch]:
        """Yield the batches of the steps `step .. stop - 1`, made ahead by background threads."""
        # One torch thread each: these run concurrently with the step, and torch would assign all cores to each of them.
        with ThreadPoolExecutor(
            _THREADS, thread_name_prefix="batches", initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            waiting: list[Future[Batch]] = []
            try:
                for upcoming in range(step, stop):
                    waiting.append(pool.submit(self.make, upcoming))
                    if len(waiting) > _AHEAD:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _sample(self, number: int) -> Sample:
        """Make sample `number` of the endless sequence of this seed."""
        rng = np.random.default_rng([self._recipe.seed, _SAMPLE, number])
        chip = self._pick(number)
        # A zoom of z takes a window of 1/z of the side and resizes it: the whole chip is the largest possible window.
        side = round(self._size / zoom_factor(rng, self._recipe.augment))
        side = min(self._set.chip_size, max(_MIN_CROP, side))
        row, col = (_offset(rng, inside, side, self._set.chip_size) for inside in (chip.height, chip.width))
        window = slice(row, row + side), slice(col, col + side)
        pixels, label = self._set.pixels(chip)[:, *window], self._set.label(chip)[window]
        sample = Sample(to_reflectance(pixels), torch.from_numpy(label.copy()), torch.from_numpy(observed(pixels)))
        return augment_sample(sample, self._size, self._recipe.augment, self._recipe.input.clip, rng)

    def _pick(self, number: int) -> Chip:
        """Return the chip of a sample: the next of this pass, or with `balance` a random one of a random kind."""
        if self._kinds:
            rng = np.random.default_rng([self._recipe.seed, _KIND, number])
            kind = self._kinds[int(rng.integers(len(self._kinds)))]
            return kind[int(rng.integers(len(kind)))]
        passes, position = divmod(number, len(self._chips))
        return self._chips[int(_order(self._recipe.seed, passes, len(self._chips))[position])]


def _by_kind(chips: list[Chip]) -> list[list[Chip]]:
    clear = [chip for chip in chips if chip.cloud_fraction < _CLEAR_BELOW]
    overcast = [chip for chip in chips if chip.cloud_fraction > _OVERCAST_ABOVE]
    mixed = [chip for chip in chips if _CLEAR_BELOW <= chip.cloud_fraction <= _OVERCAST_ABOVE]
    return [clear, mixed, overcast]


def _offset(rng: np.random.Generator, inside: int, side: int, chip_size: int) -> int:
    """Draw the first row or column of a crop; it stays on the scene where the chip is padded."""
    return int(rng.integers(max(0, min(inside, chip_size) - side) + 1))


@lru_cache(maxsize=4)
def _order(seed: int, passes: int, count: int) -> npt.NDArray[np.int64]:
    """Return the order in which a pass goes through the chips."""
    return np.random.default_rng([seed, _ORDER, passes]).permutation(count)
