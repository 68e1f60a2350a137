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
from cloudseg.model.normalize import normalize
from cloudseg.model.pixels import Scaling
from cloudseg.recipe import Recipe
from cloudseg.records import Chip
from cloudseg.train.augment import Augmentation, Draw
from cloudseg.train.data import CHOICE_STREAM
from cloudseg.train.pixels import choose_pixels

_CLEAR_BELOW: Final = 0.05
_OVERCAST_ABOVE: Final = 0.95
"""Cloud fractions of a chip that separate the three kinds between which `balance` draws evenly."""
_CPU: Final = torch.device("cpu")
_AHEAD: Final = 3
_THREADS: Final = 2
"""Batches made ahead of the step that uses them; two threads keep up with a step of two cores."""

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
        device: where the training computes. For a GPU batches are made there if the chips fit into its memory
            (`cloudseg.train.pixels`), otherwise in page-locked memory of the host, from which a copy overlaps with
            computation (as in `torch.utils.data.DataLoader`). Has not been run on a GPU yet.
    """

    def __init__(
        self,
        chip_set: ChipSet,
        chips: list[Chip],
        recipe: Recipe,
        *,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device = _CPU,
    ) -> None:
        self._chips, self._recipe = chips, recipe
        self._rank, self._world_size, self._device = rank, world_size, device
        self._pixels = choose_pixels(chip_set, chips, device)
        size = recipe.data.crop_size or chip_set.chip_size
        self._augmentation = Augmentation(recipe, size=size, chip_size=chip_set.chip_size)
        self._scaling = Scaling(recipe.input.clip, recipe.input.mean, recipe.input.std)
        self._kinds = [kind for kind in _by_kind(chips) if kind] if recipe.data.balance else []

    @property
    def steps_per_pass(self) -> int:
        """Steps after which every chip was drawn once (on average, with `balance`)."""
        return -(-len(self._chips) // (self._recipe.budget.batch_size * self._world_size))

    def make(self, step: int) -> Batch:
        """Make the batch of a step: drawn on the host, made where the chips are."""
        size = self._recipe.budget.batch_size
        first = (step * self._world_size + self._rank) * size
        drawn = [self._draw(number) for number in range(first, first + size)]
        draws = [draw for _, draw in drawn]
        samples = [self._augmentation.change_geometry(self._pixels.window(chip, draw), draw) for chip, draw in drawn]
        reflectance, label, valid = self._augmentation.mix(
            torch.stack([s.reflectance for s in samples]),
            torch.stack([s.label for s in samples]),
            torch.stack([s.valid for s in samples]),
            draws,
        )
        reflectance, label = self._augmentation.change_radiometry(reflectance, label, draws)
        x = normalize(reflectance, valid, self._scaling)
        x = self._augmentation.drop_bands(x, draws).contiguous(memory_format=torch.channels_last)
        if x.device.type != self._device.type:
            return Batch(x.pin_memory(), label.pin_memory())
        return Batch(x, label)

    def iter_from(self, step: int, stop: int) -> Iterator[Batch]:
        """Yield the batches of the steps `step .. stop - 1`, made ahead by background threads."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="batches", initializer=self._begin_thread) as pool:
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

    def _begin_thread(self) -> None:
        # One torch thread each: these run concurrently with the step, and torch would assign all cores to each of them.
        torch.set_num_threads(1)
        if self._device.type == "cuda":
            torch.cuda.set_device(
                self._device
            )  # a new thread pins memory for the first GPU, not for that of its process

    def _draw(self, number: int) -> tuple[Chip, Draw]:
        """Draw sample `number` of the endless sequence of this seed."""
        rng = np.random.default_rng([self._recipe.seed, _SAMPLE, number])
        chip = self._pick(number)
        return chip, self._augmentation.draw(rng, (chip.height, chip.width))

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


@lru_cache(maxsize=4)
def _order(seed: int, passes: int, count: int) -> npt.NDArray[np.int64]:
    """Return the order in which a pass goes through the chips."""
    return np.random.default_rng([seed, _ORDER, passes]).permutation(count)
