"""The chips of a training: those of the train and validation splits, checked before the first step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cloudseg.dataset.chips import ChipSet
from cloudseg.errors import CheckpointMismatch, EmptySplit
from cloudseg.recipe import Recipe
from cloudseg.records import Chip, Split

# First entry of a seed sequence after the recipe's seed: keeps this stream of random numbers apart from those of
# `cloudseg.train.batch`, which count on from here.
CHOICE_STREAM = 0


@dataclass(frozen=True)
class TrainingData:
    """What a training may see; held-out chips are never among them."""

    chip_set: ChipSet
    train: list[Chip]
    validation: list[Chip]


def select_data(chip_set: ChipSet, recipe: Recipe, *, snapshot_id: str) -> TrainingData:
    """Return the training and validation chips of a snapshot.

    Raises:
        CheckpointMismatch: the snapshot has other bands or another chip size than the recipe.
        EmptySplit: a split has no chips, or only one class.
    """
    if tuple(chip_set.bands) != recipe.model.bands or chip_set.chip_size != recipe.data.chip_size:
        raise CheckpointMismatch(
            "the snapshot was cut for another recipe",
            subject=snapshot_id,
            found=f"{chip_set.chip_size} pixels of {' '.join(chip_set.bands)}",
            expected=f"{recipe.data.chip_size} pixels of {' '.join(recipe.model.bands)}",
            next_step=f"Run `cloudseg snapshot --recipe {recipe.name}` and train on the snapshot that it prints.",
        )
    train = choose_chips(chip_set.of("train"), recipe)
    # Chip ids are hashes: in their order, any first part is a fair draw (Validator.watched).
    validation = sorted(chip_set.of("validation"), key=lambda chip: chip.chip_id)
    _check_split(chip_set, "train", train)
    _check_split(chip_set, "validation", validation)
    return TrainingData(chip_set, train, validation)


def choose_chips(chips: Sequence[Chip], recipe: Recipe) -> list[Chip]:
    """Return the chips to train on in the order of their ids: all, or `max_chips` drawn with the recipe's seed."""
    ordered = sorted(chips, key=lambda chip: chip.chip_id)
    limit = recipe.data.max_chips
    if limit is None or limit >= len(ordered):
        return ordered
    picked = np.random.default_rng([recipe.seed, CHOICE_STREAM]).choice(len(ordered), limit, replace=False)
    return [ordered[i] for i in sorted(picked)]


def _check_split(chip_set: ChipSet, split: Split, chips: list[Chip]) -> None:
    cloudy = sum(chip.cloud_fraction > 0 for chip in chips)
    clear = sum(chip.cloud_fraction < 1 for chip in chips)
    if cloudy and clear:
        return
    one_class = "cloud" if cloudy else "clear ground"
    counts = ", ".join(f"{name} {len(chip_set.of(name))}" for name in ("train", "validation", "held_out"))
    raise EmptySplit(
        f"the {split} split has only {one_class}" if chips else f"the {split} split has no chips",
        subject=f"{split} split",
        found=f"chips: {counts}; of those used in {split} {cloudy} with cloud, {clear} with clear ground",
        expected="both classes in train and in validation",
        next_step="Ingest labeled scenes of more places: a hash of its name puts each place into one split.",
    )
