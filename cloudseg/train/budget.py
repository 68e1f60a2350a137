"""How many steps a training takes: decided once, before the first one, and kept in its checkpoints."""

import logging
import math
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from cloudseg.train.checkpoint import Progress
from cloudseg.train.trainer import Setting, Trainer

log = logging.getLogger(__name__)
_WARM_UP_STEPS: Final = 2
_BLOCK_STEPS: Final = 8
_MOST_BLOCKS: Final = 9
_MEASURED_SHARE: Final = 0.03
"""Of the budget: longer measuring would cost more steps than a better estimate gives."""
_MOST_STEPS: Final = _WARM_UP_STEPS + _MOST_BLOCKS * _BLOCK_STEPS
_FEWEST_EPOCHS: Final = 8
"""A short time budget cuts epochs rather than their number.

They are what others watch, and what early stop chooses from.
"""
_FINISH_S: Final = 8.0
"""Packing, ONNX export and registration after the last step."""
OVERTIME: Final = 1.5
"""A machine that became slower may take this much of the budget before the training ends at the next epoch."""


def plan(setting: Setting, *, already_spent_s: float) -> Progress:
    """Return the progress of a training that has not begun.

    The smallest of epochs, steps and what the minutes allow.
    """
    budget = setting.recipe.budget
    trial = Trainer(setting, Progress(step=0, total_steps=_MOST_STEPS, epoch_steps=1))
    epoch_steps = budget.epoch_steps or trial.batches.steps_per_pass
    limits = [budget.steps, budget.epochs * epoch_steps if budget.epochs else None]
    if budget.minutes is not None:
        trial.progress.epoch_steps = epoch_steps
        limits.append(_steps_in(trial, budget.minutes * 60, already_spent_s))
    total = min(limit for limit in limits if limit is not None)
    if budget.minutes is not None and total == limits[-1]:
        epoch_steps = min(epoch_steps, math.ceil(total / _FEWEST_EPOCHS))
    return Progress(step=0, total_steps=total, epoch_steps=min(epoch_steps, total))


def _steps_in(trial: Trainer, budget_s: float, already_spent_s: float) -> int:
    """Measure step and validation on throw-away parameters and return the steps that fit; at least one.

    Never planned again: the steps fix the course of the learning rate, and a resumed run must end with the same
    weights.
    """
    group, begun = trial.setting.group, time.monotonic()
    step_s = _time_steps(trial, _MEASURED_SHARE * budget_s)
    chip_s = _time_validation(trial)
    shown, all_chips = trial.validation_part, len(trial.setting.validation_chips)
    left = budget_s - already_spent_s - (time.monotonic() - begun) - _FINISH_S - chip_s * all_chips / group.world
    epoch_s = chip_s * shown / group.world
    fitting = steps_that_fit(left, step_s=step_s, epoch_s=epoch_s, epoch_steps=trial.progress.epoch_steps)
    steps = int(group.from_leader(fitting))
    log.info(
        "pace: %.3f s a step, %.3f s a validation chip; %.1f minutes allow %d steps",
        step_s,
        chip_s,
        budget_s / 60,
        steps,
    )
    return steps


def steps_that_fit(left_s: float, *, step_s: float, epoch_s: float, epoch_steps: int) -> int:
    """Return how many steps, with the validations between them, take at most this time; at least one.

    Args:
        left_s: seconds for training, without the last validation and the registration.
        step_s: seconds a step.
        epoch_s: seconds that the end of an epoch takes.
        epoch_steps: steps of an epoch; fewer where less than `_FEWEST_EPOCHS` of them fit.
    """
    steps = left_s / (step_s + epoch_s / epoch_steps)
    if steps < _FEWEST_EPOCHS * epoch_steps:
        steps = (left_s - _FEWEST_EPOCHS * epoch_s) / step_s
    return max(1, math.floor(steps))


def _time_steps(trial: Trainer, measured_s: float) -> float:
    """Take steps until the time is over, at least one block of them."""
    moments: list[float] = []
    for batch in trial.batches.iter_from(0, _MOST_STEPS):
        trial.take_step(batch)
        moments.append(time.monotonic())
        whole_blocks = len(moments) > _WARM_UP_STEPS and (len(moments) - _WARM_UP_STEPS) % _BLOCK_STEPS == 0
        if whole_blocks and trial.setting.group.from_leader(moments[-1] - moments[0]) > measured_s:
            break
    return pace_of(moments[_WARM_UP_STEPS - 1 :])


def pace_of(moments: Sequence[float]) -> float:
    """Return seconds a step from the moments at which steps ended: the median over blocks of the mean of a block.

    A machine that is busy with something else during less than half of the blocks does not count (median of means);
    inside a block slow and fast steps belong together, because batches are made ahead.
    """
    blocks = pairwise(moments[::_BLOCK_STEPS])
    return statistics.median((last - first) / _BLOCK_STEPS for first, last in blocks)


def _time_validation(trial: Trainer) -> float:
    chips = trial.setting.validation_chips[: trial.setting.recipe.budget.batch_size * trial.setting.group.world]
    predictor = trial.predictor()
    trial.count(predictor, chips)  # the first pass pays for kernels that later ones find ready
    begun = time.monotonic()
    trial.count(predictor, chips)
    return (time.monotonic() - begun) * trial.setting.group.world / len(chips)
